//! Elections: a session for each candidate, and a key for each election; who has the lock on it leads.

use std::sync::Arc;

use async_trait::async_trait;
use sd_backend::{ParticipationId, Participations};
use sd_core::clock::Clock;
use sd_core::port::{Entry, LeaderWatcher, Limits, Safety, StrictElector, Ticket};
use sd_core::{ElectionName, Elector, ErrorKind, Result};

use crate::client::sessions::{LONGEST_TTL, SHORTEST_TTL};
use crate::client::{Client, Concurrency};
use crate::election::candidate_sessions::CandidateSessions;
use crate::election::entry::ConsulEntry;
use crate::election::keys::ElectionKeys;
use crate::election::leader_watcher::ConsulLeaderWatcher;
use crate::election::participation::Participation;
use crate::election::safety::safety;
use crate::write_queue::WriteQueue;

/// Encoded twice, far below what Consul takes as a value (512 KiB).
const MOST_VALUE_BYTES: usize = 64 * 1024;
/// Beside those of the backend, within what an agent allows for each address.
const CONCURRENCY: Concurrency = Concurrency {
    blocking_queries: 28,
    requests: 8,
};

/// The elections of one datacenter, over connections of its own.
#[derive(Debug)]
pub(crate) struct ConsulElector {
    client: Arc<Client>,
    /// The backend's, whose connections observers share with all other readers.
    shared: Arc<Client>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    participations: Arc<Participations<Participation>>,
    writes: Arc<WriteQueue<ParticipationId>>,
}

impl ConsulElector {
    /// An elector that connects when it is first used, and closes with the backend.
    pub(crate) fn new(shared: Arc<Client>, clock: Arc<dyn Clock>) -> Self {
        Self {
            client: Arc::new(shared.sibling(CONCURRENCY)),
            shared,
            clock,
            limits: Limits::new(SHORTEST_TTL..=LONGEST_TTL, MOST_VALUE_BYTES),
            participations: Arc::default(),
            writes: Arc::default(),
        }
    }
}

/// Forgets a participation, whose entries then take no lock any more.
fn end(participations: &Participations<Participation>, ticket: &Ticket) {
    if let Some(participation) = participations.end(ticket) {
        participation.set_session(None);
    }
}

#[async_trait]
impl Elector for ConsulElector {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn safety(&self) -> Result<Safety> {
        self.client.signal.check_open("consul: safety")?;
        Ok(safety(self.client.config()))
    }

    async fn join(&self, ticket: &Ticket) -> Result<Box<dyn Entry>> {
        const OP: &str = "consul: join election";
        self.client.signal.check_open(OP)?;
        ticket.check(&self.limits)?;
        let id = ParticipationId::from(ticket);
        let (client, wanted) = (Arc::clone(&self.client), ticket.clone());
        let participations = Arc::clone(&self.participations);
        let joining = async move {
            let prefix = &client.config().election_prefix;
            let participation =
                participations.begin(&wanted, || Participation::new(&wanted, prefix));
            let sessions = CandidateSessions {
                client: &client,
                op: OP,
                ticket: &wanted,
                participation: &participation,
            };
            match sessions.acquire().await {
                Ok(session) => Ok((participation, session)),
                Err(error) => {
                    if error.kind() == ErrorKind::Conflict {
                        end(&participations, &wanted);
                    }
                    Err(error)
                }
            }
        };
        let (participation, session) = self.writes.run(OP, &id, joining).await?;
        let (client, writes) = (Arc::clone(&self.client), Arc::clone(&self.writes));
        let entry = ConsulEntry::new(client, writes, participation, session, ticket, &self.limits);
        entry.begin(OP).await?;
        Ok(Box::new(entry))
    }

    async fn leave(&self, ticket: &Ticket) -> Result<()> {
        const OP: &str = "consul: leave election";
        self.client.signal.check_open(OP)?;
        let id = ParticipationId::from(ticket);
        let (client, wanted) = (Arc::clone(&self.client), ticket.clone());
        let participations = Arc::clone(&self.participations);
        let leaving = async move {
            // A ticket that this elector did not begin has none.
            let Some(participation) = participations.find(&wanted) else {
                return Ok(());
            };
            let sessions = CandidateSessions {
                client: &client,
                op: OP,
                ticket: &wanted,
                participation: &participation,
            };
            sessions.end().await?;
            end(&participations, &wanted);
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
