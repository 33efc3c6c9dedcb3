//! Elections: a node for each candidate, in order of joining, as Curator's `LeaderLatch` has them; the first one leads.
//!
//! ZooKeeper names the nodes. So that one is found again though the answer to its making was lost, its name holds the id of the ticket, and
//! a random number that tells it from the node of another client with that id.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_backend::Participations;
use sd_core::clock::Clock;
use sd_core::port::{Entry, LeaderWatcher, Limits, Safety, StrictElector, Ticket};
use sd_core::retry::Backoff;
use sd_core::{ElectionName, Elector, Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};
use tracing::debug;
use zookeeper_client as zk;

use crate::client::Client;
use crate::client::error::{for_readers, translate};
use crate::client::parents::make_parents;
use crate::client::session::Session;
use crate::election::candidate_node::CandidateNode;
use crate::election::candidate_sessions::{CandidateSession, CandidateSessions, ElectorSessions};
use crate::election::entry::ZkEntry;
use crate::election::keys::ElectionKeys;
use crate::election::leader_watcher::ZkLeaderWatcher;
use crate::election::participation::Participation;
use crate::election::safety::safety;
use crate::election::{term_record, token_domain};

/// Far below what ZooKeeper takes in one request (1 MiB).
const MOST_VALUE_BYTES: usize = 64 * 1024;
/// A server with short ticks grants as little.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
/// Beyond that, it is no sign of life.
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// How often a node is asked for again, because a node above it was missing.
const MOST_ROUNDS: u32 = 5;

/// The elections of one ensemble, in sessions apart from that of the registry.
#[derive(Debug)]
pub(crate) struct ZkElector {
    /// For reading only, in the session that the whole registry uses.
    shared: Arc<Client>,
    sessions: ElectorSessions,
    clock: Arc<dyn Clock>,
    limits: Limits,
    participations: Participations<Participation>,
}

/// A node of ours, as it was found or made.
struct Made {
    node: String,
    created: i64,
}

impl ZkElector {
    /// An elector that connects when it is first used, in one of these sessions, and closes with the `shared` client.
    pub(crate) fn new(
        shared: Arc<Client>,
        sessions: Arc<CandidateSessions>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            sessions: ElectorSessions::of(sessions),
            shared,
            clock,
            limits: Limits::new(SHORTEST_TTL..=LONGEST_TTL, MOST_VALUE_BYTES),
            participations: Participations::default(),
        }
    }

    async fn enter(&self, op: &'static str, ticket: &Ticket) -> Result<ZkEntry> {
        let session = self.sessions.get(op, ticket.ttl).await?;
        let new = || Participation::new(ticket, self.shared.config());
        let participation = self.participations.begin(ticket, new);
        let entered = self.enter_in(op, &session, &participation, ticket).await;
        let candidate = match entered {
            Ok(candidate) => candidate,
            Err(error) if error.kind() == ErrorKind::Conflict => {
                self.participations.end(ticket);
                return Err(error);
            }
            Err(error) => return Err(session.explained(error).await),
        };
        participation.set_node(&candidate.node);
        let (clock, limits) = (Arc::clone(&self.clock), self.limits.clone());
        Ok(ZkEntry::new(
            candidate,
            ticket,
            participation,
            clock,
            limits,
        ))
    }

    async fn enter_in(
        &self,
        op: &'static str,
        candidates: &Arc<CandidateSession>,
        participation: &Participation,
        ticket: &Ticket,
    ) -> Result<CandidateNode> {
        let (session, acls, keys) = (&candidates.session, self.shared.acls(), &participation.keys);
        let history = keys.history();
        let domain = token_domain::ensure(session, acls, op, &history);
        let domain = candidates.token_domain.get_or_try_init(|| domain).await?;
        let found = if participation.asks_in(candidates) {
            self.find(op, session, participation, ticket).await?
        } else {
            None
        };
        let made = match found {
            Some(made) => made,
            None => self.make(op, session, participation, ticket).await?,
        };
        Ok(CandidateNode {
            session: Arc::clone(candidates),
            acls,
            path: keys.candidate(&made.node),
            node: made.node,
            keys: keys.clone(),
            created: made.created,
            token_domain: Arc::clone(domain),
        })
    }

    /// The node that an earlier attempt has made in this session. One that was made in an earlier session is deleted.
    async fn find(
        &self,
        op: &'static str,
        session: &Session,
        participation: &Participation,
        ticket: &Ticket,
    ) -> Result<Option<Made>> {
        let mut found = None;
        let nodes = all_nodes(op, session, participation).await?;
        let is_own = |node: &&String| node.starts_with(&participation.node_prefix);
        for node in nodes.iter().filter(is_own) {
            let client = session.client(op).await?;
            let path = participation.keys.candidate(node);
            let Some(stat) = session.call(op, client.check_stat(&path)).await? else {
                continue;
            };
            if stat.ephemeral_owner == session.id() && found.is_none() {
                let (node, created) = (node.clone(), stat.czxid);
                found = Some(Made { node, created });
            } else {
                delete(op, session, &path).await?;
            }
        }
        // One whose answer was lost has not been let in yet.
        if let Some(made) = &found
            && participation.node().as_ref() != Some(&made.node)
        {
            admit(op, session, participation, ticket, &made.node, &nodes).await?;
        }
        Ok(found)
    }

    /// Makes the node. Takes it back if another participation with this id was first.
    async fn make(
        &self,
        op: &'static str,
        session: &Session,
        participation: &Participation,
        ticket: &Ticket,
    ) -> Result<Made> {
        let (acls, keys) = (self.shared.acls(), &participation.keys);
        let prefix = keys.candidate(&participation.node_prefix);
        let data = keys.data(&ticket.value);
        let data = data.map_err(|error| Error::invalid_input(op, error.to_string()))?;
        let options = zk::CreateMode::EphemeralSequential.with_acls(acls);
        for _ in 0..MOST_ROUNDS {
            let client = session.client(op).await?;
            // ZooKeeper carries them out in this order.
            let created = session.answer(op, client.create(&prefix, &data, &options));
            let listed = session.answer(op, client.list_children(keys.candidates()));
            let (stat, sequence, nodes) = match tokio::try_join!(created, listed)? {
                (Ok((stat, sequence)), Ok(nodes)) => (stat, sequence, nodes),
                (Err(zk::Error::NoNode), _) => {
                    make_parents(session, acls, op, keys.candidates()).await?;
                    continue;
                }
                (Err(error), _) | (_, Err(error)) => return Err(translate(op, error)),
            };
            let node = format!("{}{sequence}", participation.node_prefix);
            admit(op, session, participation, ticket, &node, &nodes).await?;
            let created = stat.czxid;
            return Ok(Made { node, created });
        }
        Err(Error::new(ErrorKind::Unavailable, op).because(format!(
            "{} was deleted each time before a candidate could be put there",
            keys.candidates()
        )))
    }
}

impl Drop for ZkElector {
    /// A candidate that has not left would keep its place for as long as another one has its session.
    fn drop(&mut self) {
        for participation in self.participations.take_all() {
            let Some(candidates) = participation.session() else {
                continue;
            };
            candidates.spawn(abandon(Arc::clone(&candidates), participation));
        }
    }
}

/// Takes away what a participation has at the server. Others lead in its session: only if that does not work for as long as the session
/// would outlive its client, the session ends.
async fn abandon(candidates: Arc<CandidateSession>, participation: Arc<Participation>) {
    const OP: &str = "zk: abandon election";
    let session = &candidates.session;
    let give_up = Instant::now() + session.timeout();
    let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    while let Err(error) = exit(OP, &candidates, &participation, false).await {
        debug!(error = %error.report(), "a candidate that is gone cannot be taken out of its election");
        if session.has_ended() {
            return;
        }
        if Instant::now() >= give_up {
            session.end("one of its candidates is gone and could not be taken out of its election");
            return;
        }
        sleep(pauses.next_delay()).await;
    }
}

/// Takes away what a participation has at the server, by requests in this session. If it `ends_term`, its leader has stopped.
async fn exit(
    op: &'static str,
    candidates: &CandidateSession,
    participation: &Participation,
    ends_term: bool,
) -> Result<()> {
    match exit_in(op, &candidates.session, participation, ends_term).await {
        Err(error) => Err(candidates.explained(error).await),
        left => left,
    }
}

async fn exit_in(
    op: &'static str,
    session: &Session,
    participation: &Participation,
    ends_term: bool,
) -> Result<()> {
    let keys = &participation.keys;
    let last = participation.node();
    let mut ended = false;
    if let Some(node) = last.as_ref().filter(|_| ends_term) {
        ended = term_record::end(session, keys, node).await?;
    }
    if !ended {
        let nodes = match last {
            // Its session has kept it all the time, so there is no other one.
            Some(node) if participation.is_settled_in(session) => vec![node],
            _ => nodes_of(op, session, participation).await?,
        };
        for node in nodes {
            delete(op, session, &keys.candidate(&node)).await?;
        }
    }
    if let Some(node) = participation
        .node()
        .filter(|_| participation.has_proclaimed())
    {
        delete(op, session, &keys.value(&node)).await?;
    }
    Ok(())
}

/// Takes a node back that was made and must not stand beside these.
async fn admit(
    op: &'static str,
    session: &Session,
    participation: &Participation,
    ticket: &Ticket,
    node: &str,
    nodes: &[String],
) -> Result<()> {
    let keys = &participation.keys;
    let is_other = |other: &&String| {
        keys.id_of(other) == Some(ticket.id)
            && keys.is_before(other, node)
            && !other.starts_with(&participation.node_prefix)
    };
    let why = if let Some(other) = keys.of_another_format(nodes) {
        format!(
            "{} is the node of a candidate of another election_format: give all candidates of an election the same",
            keys.candidate(other)
        )
    } else if let Some(other) = nodes.iter().find(is_other) {
        format!(
            "{} is the node of another candidate with the id {}: give each candidate an id of its own",
            keys.candidate(other),
            ticket.id
        )
    } else {
        return Ok(());
    };
    delete(op, session, &keys.candidate(node)).await?;
    Err(Error::new(ErrorKind::Conflict, op).because(why))
}

/// The nodes of a participation, whatever became of the attempts to make them.
async fn nodes_of(
    op: &'static str,
    session: &Session,
    participation: &Participation,
) -> Result<Vec<String>> {
    let mut nodes = all_nodes(op, session, participation).await?;
    nodes.retain(|node| node.starts_with(&participation.node_prefix));
    Ok(nodes)
}

/// The nodes of all candidates.
async fn all_nodes(
    op: &'static str,
    session: &Session,
    participation: &Participation,
) -> Result<Vec<String>> {
    let client = session.client(op).await?;
    // An attempt may have been made over a connection to another member, of which this one has not heard yet.
    let synced = session.answer(op, client.sync("/"));
    let nodes = session.answer(op, client.list_children(participation.keys.candidates()));
    match tokio::try_join!(synced, nodes)? {
        (Err(error), _) => Err(translate(op, error)),
        (Ok(()), Err(zk::Error::NoNode)) => Ok(Vec::new()),
        (Ok(()), nodes) => nodes.map_err(|error| translate(op, error)),
    }
}

/// Deletes a node, which may be gone already.
async fn delete(op: &'static str, session: &Session, path: &str) -> Result<()> {
    let client = session.client(op).await?;
    match session.answer(op, client.delete(path, None)).await? {
        Ok(()) | Err(zk::Error::NoNode) => Ok(()),
        Err(error) => Err(translate(op, error)),
    }
}

#[async_trait]
impl Elector for ZkElector {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn safety(&self) -> Result<Safety> {
        self.shared.signal.check_open("zk: safety")?;
        Ok(safety())
    }

    async fn join(&self, ticket: &Ticket) -> Result<Box<dyn Entry>> {
        const OP: &str = "zk: join election";
        self.shared.signal.check_open(OP)?;
        ticket.check(&self.limits)?;
        let joining = async {
            match self.enter(OP, ticket).await {
                // With its session went what was begun in it.
                Err(lost) if lost.kind() == ErrorKind::LeaseLost => {
                    self.enter(OP, ticket).await.map_err(for_readers)
                }
                entered => entered,
            }
        };
        let entry = self.shared.signal.unless_closed(OP, joining).await?;
        Ok(Box::new(entry))
    }

    /// Deletes our node, which tells the next candidate. A ticket that this elector did not begin has none.
    async fn leave(&self, ticket: &Ticket) -> Result<()> {
        const OP: &str = "zk: leave election";
        self.shared.signal.check_open(OP)?;
        let Some(participation) = self.participations.find(ticket) else {
            return Ok(());
        };
        let leaving = async {
            let Some(session) = participation.session() else {
                return Ok(());
            };
            match exit(OP, &session, &participation, ticket.records_term).await {
                // The server may not know yet that it has ended, and its node says how the term did.
                Err(lost) if lost.kind() == ErrorKind::LeaseLost => {
                    let next = self.sessions.get(OP, ticket.ttl).await?;
                    let left = exit(OP, &next, &participation, ticket.records_term).await;
                    left.map_err(for_readers)
                }
                left => left,
            }
        };
        self.shared.signal.unless_closed(OP, leaving).await?;
        self.participations.end(ticket);
        Ok(())
    }

    async fn observe(&self, name: &ElectionName) -> Result<Box<dyn LeaderWatcher>> {
        let keys = ElectionKeys::new(self.shared.config(), name);
        let (client, clock) = (Arc::clone(&self.shared), Arc::clone(&self.clock));
        Ok(Box::new(ZkLeaderWatcher::open(client, clock, keys).await?))
    }
}

impl StrictElector for ZkElector {}
