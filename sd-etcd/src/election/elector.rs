//! Elections: one key for each candidate, on a lease of its own; the oldest key leads.
//!
//! The id of a ticket decides the key. The lease is random: it is what proves that a key is ours, so that two candidates with one
//! id are told apart, also when answers are lost.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
use sd_backend::ParticipationId;
use sd_core::clock::Clock;
use sd_core::port::{Entry, LeaderWatcher, Limits, Safety, StrictElector, Ticket};
use sd_core::{ElectionName, Elector, Error, ErrorKind, Result};
use tokio::time::sleep;
use tracing::debug;

use crate::client::Client;
use crate::client::answer::{Position, found, position};
use crate::client::error::is_unreachable;
use crate::client::leases::{LONGEST_TTL, Leases, SHORTEST_TTL};
use crate::election::candidate_key::{CandidateKey, delete_entry};
use crate::election::entry::EtcdEntry;
use crate::election::keys::ElectionKeys;
use crate::election::leader_watcher::EtcdLeaderWatcher;
use crate::election::safety::safety;
use crate::election::term_record;

/// Far below what etcd takes in one request (1.5 MiB).
const MOST_VALUE_BYTES: usize = 64 * 1024;

/// From the deletion of an entry to the end of its lease: time for the next candidate to read that it is first. etcd commits to disk
/// while it ends a lease, and that read would wait for it: a hand-over would take half as long again.
const BEFORE_LEASE_ENDS: Duration = Duration::from_millis(10);

/// The elections of one cluster, over a connection of its own.
#[derive(Debug)]
pub(crate) struct EtcdElector {
    /// For reading only, over the connection that the whole registry uses.
    shared: Arc<Client>,
    client: Arc<Client>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    leases: Leases<ParticipationId>,
}

impl EtcdElector {
    /// An elector that connects when it is first used, and closes with the `shared` client.
    pub(crate) fn new(shared: Arc<Client>, clock: Arc<dyn Clock>) -> Self {
        Self {
            client: Arc::new(shared.sibling()),
            shared,
            clock,
            limits: Limits::new(SHORTEST_TTL..=LONGEST_TTL, MOST_VALUE_BYTES),
            leases: Leases::default(),
        }
    }

    fn keys(&self, name: &ElectionName) -> ElectionKeys {
        ElectionKeys::new(&self.client.config().election_prefix, name)
    }

    pub(crate) async fn enter(&self, ticket: &Ticket) -> Result<EtcdEntry> {
        const OP: &str = "etcd: join election";
        ticket.check(&self.limits)?;
        let owner = ParticipationId::from(ticket);
        let keys = self.keys(&ticket.name);
        let (lease, ttl) = self
            .leases
            .acquire(&self.client, OP, &owner, ticket.ttl)
            .await?;
        let key = keys.entry(ticket.id);
        let created = match self.put(OP, &key, &ticket.value, lease).await {
            Ok(created) => created,
            Err(error) => {
                if error.kind() == ErrorKind::Conflict {
                    // Nothing is attached to our lease, and it ends by itself if this fails.
                    let _ = self.leases.release(&self.client, OP, &owner).await;
                }
                return Err(error);
            }
        };
        let candidate = CandidateKey {
            client: Arc::clone(&self.client),
            keys,
            key,
            lease,
            ttl,
            created,
            #[cfg(test)]
            is_deaf: std::sync::atomic::AtomicBool::new(false),
        };
        Ok(EtcdEntry::new(candidate, ticket, self.limits.clone()))
    }

    /// Puts the entry unless it is there already; returns when it was created.
    async fn put(&self, op: &'static str, key: &str, value: &[u8], lease: i64) -> Result<Position> {
        let on_lease = PutOptions::new().with_lease(lease);
        let key_only = GetOptions::new().with_keys_only();
        let txn = Txn::new()
            .when([Compare::create_revision(key, CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key, value, Some(on_lease))])
            .or_else([TxnOp::get(key, Some(key_only))]);
        let answer = self.client.txn(op, &txn).await?;
        let at = position(op, answer.header())?;
        if answer.succeeded() {
            return Ok(at);
        }
        // Put by an attempt whose answer was lost, or by an earlier call.
        match found(&answer) {
            Some(entry) if entry.lease() == lease => Ok(Position {
                revision: entry.create_revision(),
                ..at
            }),
            _ => Err(Error::new(ErrorKind::Conflict, op).because(format!(
                "{key} is the entry of another candidate: give each candidate an id of its own"
            ))),
        }
    }
}

#[async_trait]
impl Elector for EtcdElector {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn safety(&self) -> Result<Safety> {
        safety(&self.client).await
    }

    async fn join(&self, ticket: &Ticket) -> Result<Box<dyn Entry>> {
        Ok(Box::new(self.enter(ticket).await?))
    }

    /// Deletes our entry, which tells the next candidate, and then ends our lease. Neither touches what is another's: the lease is ours
    /// alone, and what hangs on it is our entry. A ticket that this elector did not begin has none.
    async fn leave(&self, ticket: &Ticket) -> Result<()> {
        const OP: &str = "etcd: leave election";
        let owner = ParticipationId::from(ticket);
        let Some(lease) = self.leases.id(&owner) else {
            return Ok(());
        };
        let keys = self.keys(&ticket.name);
        let entry = keys.entry(ticket.id);
        let told = if ticket.records_term {
            term_record::end(&self.client, &keys, &entry, lease).await
        } else {
            let txn = delete_entry(&entry, lease);
            self.client.repeatable_txn(OP, &txn).await.map(drop)
        };
        match told {
            Ok(()) => sleep(BEFORE_LEASE_ENDS).await,
            // Then our lease cannot be ended now, either.
            Err(error) if is_unreachable(&error) => return Err(error),
            // It goes with the lease. Without a mark the next leader may wait for nothing, but with the lease it would not be next.
            Err(error) => {
                debug!(error = %error.report(), "an entry was not deleted before its lease");
            }
        }
        self.leases.release(&self.client, OP, &owner).await
    }

    async fn observe(&self, name: &ElectionName) -> Result<Box<dyn LeaderWatcher>> {
        let watcher = EtcdLeaderWatcher::open(&self.shared, &self.clock, self.keys(name)).await?;
        Ok(Box::new(watcher))
    }
}

impl StrictElector for EtcdElector {}
