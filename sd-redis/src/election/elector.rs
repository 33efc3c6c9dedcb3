//! Elections: a queue in which each candidate has a lease. The one that joined first, of those whose leases have not ended, leads.
//!
//! All of it is kept by scripts, by the clock of the one server that has the election. What that server has confirmed may be lost when
//! another takes its place: see [`safety`](crate::election::safety). So this is no `StrictElector`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_backend::Participations;
use sd_core::clock::Clock;
use sd_core::port::{Entry, LeaderWatcher, Limits, Safety, Ticket};
use sd_core::{ElectionName, Elector, Error, ErrorKind, FencingToken, Result};

use crate::client::Client;
use crate::election::candidate::{RedisCandidate, micros};
use crate::election::changes::Changes;
use crate::election::clients::{CandidateClients, ElectorClients};
use crate::election::entry::RedisEntry;
use crate::election::keys::ElectionKeys;
use crate::election::leader_watcher::RedisLeaderWatcher;
use crate::election::safety::safety;
use crate::election::{scripts, term_record};

/// Far below what Redis takes for one value (512 MiB), since each observer reads it.
const MOST_VALUE_BYTES: usize = 64 * 1024;
/// So that a server that is busy for a moment ends no term.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
/// Beyond that, it is no sign of life.
const LONGEST_TTL: Duration = Duration::from_secs(3600);

/// The elections of one Redis, over connections apart from the registry's.
#[derive(Debug)]
pub(crate) struct RedisElector {
    /// For reading only, over the connections that the whole registry uses.
    shared: Arc<Client>,
    clients: ElectorClients,
    clock: Arc<dyn Clock>,
    limits: Limits,
    /// By what each proves that its entry is its own.
    participations: Participations<String>,
}

impl RedisElector {
    /// An elector that connects when it is first used, and closes with the `shared` client.
    pub(crate) fn new(
        shared: Arc<Client>,
        clients: Arc<CandidateClients>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            clients: ElectorClients::of(clients),
            shared,
            clock,
            limits: Limits::new(SHORTEST_TTL..=LONGEST_TTL, MOST_VALUE_BYTES),
            participations: Participations::default(),
        }
    }

    fn keys(&self, name: &ElectionName) -> ElectionKeys {
        ElectionKeys::new(&self.shared.config().election_prefix, name)
    }

    async fn enter(&self, ticket: &Ticket) -> Result<RedisEntry> {
        const OP: &str = "redis: join election";
        ticket.check(&self.limits)?;
        let (keys, client) = (self.keys(&ticket.name), self.clients.here());
        let owner = self.participations.begin(ticket, owner);
        // Before there is anything to be told.
        let changes = Changes::follow(&client, &keys).await?;
        let (id, ttl) = (ticket.id.to_string(), micros(ticket.ttl));
        let new_history = format!("{:016x}", fastrand::u64(..));
        let args = [
            keys.changes.as_bytes(),
            id.as_bytes(),
            owner.as_bytes(),
            new_history.as_bytes(),
            ttl.as_bytes(),
            &ticket.value,
        ];
        let queue = keys.queue();
        let mut said = client.run(OP, &scripts::JOIN, &queue, &args).await?;
        let token = match said.text()?.as_str() {
            "ok" => FencingToken::new(said.text()?, said.number()?),
            "conflict" => {
                // There is nothing of this participation at the server.
                self.participations.end(ticket);
                let why = format!(
                    "{id} in {} is the entry of another candidate: give each candidate an id of its own",
                    keys.order
                );
                return Err(Error::new(ErrorKind::Conflict, OP).because(why));
            }
            _ => {
                let why = format!(
                    "the tokens in {} and {} leave no room for a greater one: look for a program that writes there, and remove both",
                    keys.order, keys.history
                );
                return Err(Error::new(ErrorKind::InvalidData, OP).because(why));
            }
        };
        let candidate = RedisCandidate::new(&client, keys, ticket, &owner, token, changes);
        Ok(RedisEntry::new(candidate, ticket, self.limits.clone()))
    }
}

#[async_trait]
impl Elector for RedisElector {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn safety(&self) -> Result<Safety> {
        safety(&self.shared).await
    }

    async fn join(&self, ticket: &Ticket) -> Result<Box<dyn Entry>> {
        Ok(Box::new(self.enter(ticket).await?))
    }

    /// Removes the entry of this participation, and no other one's. A ticket that this elector did not begin has none.
    async fn leave(&self, ticket: &Ticket) -> Result<()> {
        const OP: &str = "redis: leave election";
        let Some(owner) = self.participations.find(ticket) else {
            return Ok(());
        };
        let (keys, client) = (self.keys(&ticket.name), self.clients.here());
        let (stored, ended) = if ticket.records_term {
            term_record::ended(&client, &keys, &owner).await?
        } else {
            Default::default()
        };
        let id = ticket.id.to_string();
        let args = [
            keys.changes.as_bytes(),
            id.as_bytes(),
            owner.as_bytes(),
            &stored,
            &ended,
        ];
        let all = keys.queue_and_term();
        client.run(OP, &scripts::LEAVE, &all, &args).await?;
        self.participations.end(ticket);
        Ok(())
    }

    async fn observe(&self, name: &ElectionName) -> Result<Box<dyn LeaderWatcher>> {
        let (client, clock) = (Arc::clone(&self.shared), Arc::clone(&self.clock));
        let watcher = RedisLeaderWatcher::open(client, clock, self.keys(name));
        Ok(Box::new(watcher.await?))
    }
}

/// What proves that an entry is of one participation.
fn owner() -> String {
    format!("{:032x}", fastrand::u128(..))
}
