//! The leases that may be at the server on our behalf, so that none is left behind or used by two.
//!
//! The id of a lease is ours to choose, so it is known even if the answer to the grant is not. It is random, so what is attached
//! to it is ours.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use sd_core::sync::lock;
use sd_core::{ErrorKind, Result};

use crate::client::Client;

/// etcd raises shorter ones to this with its default election timeout of 1 s.
pub(crate) const SHORTEST_TTL: Duration = Duration::from_secs(2);
/// Longer ones would not be leases.
pub(crate) const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);

/// The lease of each owner, a record for instance.
#[derive(Debug)]
pub(crate) struct Leases<K>(Mutex<BTreeMap<K, Lease>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    id: i64,
    /// `None` until the server granted it.
    ttl: Option<Duration>,
}

impl<K> Default for Leases<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone> Leases<K> {
    /// The owner's lease, freshly extended, or a new one; with the time-to-live that was granted for it.
    pub(crate) async fn acquire(
        &self,
        client: &Client,
        op: &'static str,
        owner: &K,
        ttl: Duration,
    ) -> Result<(i64, Duration)> {
        let held = lock(&self.0).get(owner).copied();
        match held {
            Some(Lease { id, ttl: Some(ttl) }) => match client.keep_alive(op, id).await {
                Ok(()) => return Ok((id, ttl)),
                Err(error) if error.kind() == ErrorKind::LeaseLost => {}
                Err(error) => return Err(error),
            },
            // The answer to the grant never came.
            Some(Lease { id, ttl: None }) => client.revoke(op, id).await?,
            None => {}
        }
        let id = fastrand::i64(1..=i64::MAX);
        self.set(owner, Lease { id, ttl: None });
        let ttl = client.grant(op, id, ttl).await?;
        self.set(owner, Lease { id, ttl: Some(ttl) });
        Ok((id, ttl))
    }

    /// Takes a lease that an earlier client of the owner has left for its own.
    pub(crate) fn adopt(&self, owner: &K, id: i64, ttl: Duration) {
        self.set(owner, Lease { id, ttl: Some(ttl) });
    }

    /// The id of the owner's lease, granted or not.
    pub(crate) fn id(&self, owner: &K) -> Option<i64> {
        lock(&self.0).get(owner).map(|lease| lease.id)
    }

    /// Ends the owner's lease, and with it what is attached to it.
    pub(crate) async fn release(&self, client: &Client, op: &'static str, owner: &K) -> Result<()> {
        if let Some(id) = self.id(owner) {
            client.revoke(op, id).await?;
            self.forget(owner, id);
        }
        Ok(())
    }

    /// Forgets the lease of an owner if it still is this one.
    pub(crate) fn forget(&self, owner: &K, id: i64) {
        let mut leases = lock(&self.0);
        if leases.get(owner).is_some_and(|lease| lease.id == id) {
            leases.remove(owner);
        }
    }

    fn set(&self, owner: &K, lease: Lease) {
        lock(&self.0).insert(owner.clone(), lease);
    }
}
