//! Elections: a session for each candidate, and a key for each election; who has the lock on it leads.
//!
//! The server chooses the ids of sessions. So that a session is found again though the answer to its making was lost, its name holds
//! the id of the ticket, and a nonce that tells it from the session of another client with that id.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::{
    Clock, ElectionName, Elector, Entry, Error, ErrorKind, LeaderWatcher, Limits, Result, Safety,
    StrictElector, Ticket,
};
use tokio::time::sleep;

use crate::client::clients::Clients;
use crate::client::sessions::{LONGEST_TTL, SHORTEST_TTL};
use crate::client::{Client, Concurrency};
use crate::election::entry::{ConsulEntry, Place};
use crate::election::keys::ElectionKeys;
use crate::election::leader_watcher::ConsulLeaderWatcher;
use crate::election::participation::{Participation, ParticipationId, Participations};
use crate::election::safety::safety;
use crate::election::term_record;
use crate::write_queue::WriteQueue;

/// Encoded twice, far below what Consul takes as a value (512 KiB).
const MOST_VALUE_BYTES: usize = 64 * 1024;
/// Beside those of the backend, within what an agent allows for each address.
const CONCURRENCY: Concurrency = Concurrency {
    blocking_queries: 28,
    requests: 8,
};

/// The servers write one thing after the other: first that the next leader has the lock, then that our session has ended.
const GIVE_WAY: Duration = Duration::from_millis(5);

/// The elections of one datacenter, over connections of its own.
#[derive(Debug)]
pub(crate) struct ConsulElector {
    client: Arc<Client>,
    /// The backend's, whose connections observers share with all other readers.
    shared: Arc<Client>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    participations: Arc<Participations>,
    writes: Arc<WriteQueue<ParticipationId>>,
}

impl ConsulElector {
    /// An elector that connects when it is first used, and closes with the backend.
    pub(crate) fn new(clients: &Clients, clock: Arc<dyn Clock>) -> Self {
        Self {
            client: clients.sibling(CONCURRENCY),
            shared: Arc::clone(clients.shared()),
            clock,
            limits: Limits::new(SHORTEST_TTL..=LONGEST_TTL, MOST_VALUE_BYTES),
            participations: Arc::default(),
            writes: Arc::default(),
        }
    }
}

/// What is done to the sessions of one participation.
struct Sessions<'a> {
    client: &'a Client,
    op: &'static str,
    ticket: &'a Ticket,
    participation: &'a Participation,
}

impl Sessions<'_> {
    /// The participation's session, freshly renewed, or a new one.
    async fn acquire(&self) -> Result<String> {
        if let Some(session) = self.participation.session() {
            match self.client.renew_session(self.op, &session).await {
                Ok(()) => return Ok(session),
                // So that whoever leaves looks for the one that is made now.
                Err(error) if error.kind() == ErrorKind::LeaseLost => {
                    self.participation.set_session(None);
                }
                Err(error) => return Err(error),
            }
        }
        let (ours, others) = self.find().await?;
        if others {
            return Err(Error::new(ErrorKind::Conflict, self.op).because(format!(
                "another participation in {} has the id {}: each needs an id of its own",
                self.ticket.name, self.ticket.id
            )));
        }
        let session = if let Some(session) = ours.into_iter().next() {
            session
        } else {
            let (name, ttl) = (self.name(), self.ticket.ttl);
            self.client.create_session(self.op, &name, ttl).await?
        };
        self.participation.set_session(Some(session.clone()));
        Ok(session)
    }

    /// Gives up the lead if it is held, so that no lock-delay applies, and ends all sessions.
    async fn end(&self) -> Result<()> {
        let sessions = match self.participation.session() {
            Some(session) => vec![session],
            None => self.find().await?.0,
        };
        for session in sessions {
            let Self { client, op, .. } = self;
            let keys = &self.participation.keys;
            let led = (self.ticket.records_term
                && term_record::end(client, keys, &session).await?)
                || client.kv_release(op, keys.leader(), &session).await?;
            if led {
                sleep(GIVE_WAY).await;
            }
            client.destroy_session(op, &session).await?;
        }
        Ok(())
    }

    /// The sessions of this participation, and whether another one with its id has any.
    async fn find(&self) -> Result<(Vec<String>, bool)> {
        let candidate = self.participation.keys.candidate(self.ticket.id);
        let all = self.client.list_sessions(self.op).await?.into_iter();
        let (ours, others): (Vec<_>, Vec<_>) = all
            .filter(|session| session.name.starts_with(&candidate))
            .partition(|session| session.name == self.name());
        let ours = ours.into_iter().map(|session| session.id).collect();
        Ok((ours, !others.is_empty()))
    }

    fn name(&self) -> String {
        format!(
            "{}{}",
            self.participation.keys.candidate(self.ticket.id),
            self.participation.nonce
        )
    }
}

#[async_trait]
impl Elector for ConsulElector {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn safety(&self) -> Result<Safety> {
        self.client.check_open("consul: safety")?;
        Ok(safety(self.client.config()))
    }

    async fn join(&self, ticket: &Ticket) -> Result<Box<dyn Entry>> {
        const OP: &str = "consul: join election";
        self.client.check_open(OP)?;
        ticket.check(&self.limits)?;
        let id = (ticket.name.clone(), ticket.id);
        let keys = ElectionKeys::new(&self.client.config().election_prefix, &ticket.name);
        let place = Place {
            client: Arc::clone(&self.client),
            writes: Arc::clone(&self.writes),
            id: id.clone(),
            keys,
        };
        let (participations, wanted) = (Arc::clone(&self.participations), ticket.clone());
        let (client, keys) = (Arc::clone(&self.client), place.keys.clone());
        let joining = async move {
            let participation = participations.begin(&id, &keys, &wanted.value);
            let sessions = Sessions {
                client: &client,
                op: OP,
                ticket: &wanted,
                participation: &participation,
            };
            match sessions.acquire().await {
                Ok(session) => Ok((participation, session)),
                Err(error) => {
                    if error.kind() == ErrorKind::Conflict {
                        participations.end(&id);
                    }
                    Err(error)
                }
            }
        };
        let (participation, session) = self.writes.run(OP, &place.id, joining).await?;
        let entry = ConsulEntry::new(place, ticket, &self.limits, participation, session);
        entry.begin(OP).await?;
        Ok(Box::new(entry))
    }

    async fn leave(&self, ticket: &Ticket) -> Result<()> {
        const OP: &str = "consul: leave election";
        self.client.check_open(OP)?;
        let id = (ticket.name.clone(), ticket.id);
        let (client, participations) = (Arc::clone(&self.client), Arc::clone(&self.participations));
        let (wanted, left) = (ticket.clone(), id.clone());
        let leaving = async move {
            // A ticket that this elector did not begin has none.
            let Some(participation) = participations.find(&left) else {
                return Ok(());
            };
            let sessions = Sessions {
                client: &client,
                op: OP,
                ticket: &wanted,
                participation: &participation,
            };
            sessions.end().await?;
            participations.end(&left);
            Ok(())
        };
        self.writes.run(OP, &id, leaving).await
    }

    async fn observe(&self, name: &ElectionName) -> Result<Box<dyn LeaderWatcher>> {
        let keys = ElectionKeys::new(&self.client.config().election_prefix, name);
        let (client, clock) = (Arc::clone(&self.shared), Arc::clone(&self.clock));
        let watcher = ConsulLeaderWatcher::open(client, clock, keys).await?;
        Ok(Box::new(watcher))
    }
}

impl StrictElector for ConsulElector {}
