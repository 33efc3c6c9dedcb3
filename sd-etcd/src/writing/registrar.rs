//! Writing: one record, one lease, and every write guarded by a comparison at the server.
//!
//! A record is ours if it hangs on our lease or says our incarnation. Whatever else lies under its key is another's and is never
//! touched.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, PutOptions, Txn, TxnOp};
use sd_backend::{Owner, Record};
use sd_core::port::{Attempt, Limits, Registration};
use sd_core::{ErrorKind, Instance, RecordId, Registrar, Result};

use crate::client::Client;
use crate::client::answer::found_sets;
use crate::client::error::is_full;
use crate::client::leases::{LONGEST_TTL, Leases, SHORTEST_TTL};
use crate::codec::{Layout, overrides};
use crate::writing::left_record::LeftRecord;
use crate::writing::registration::EtcdRegistration;
use crate::writing::removal::{MOST_ROUNDS, Removal, changes_too_fast};

/// Far below what etcd takes in one request (1.5 MiB), and large enough for any sensible metadata.
const MOST_RECORD_BYTES: usize = 64 * 1024;

/// Writes records to one cluster.
#[derive(Debug)]
pub(crate) struct EtcdRegistrar {
    client: Arc<Client>,
    layout: Layout,
    limits: Limits,
    leases: Arc<Leases<RecordId>>,
}

impl EtcdRegistrar {
    pub(crate) fn new(client: Arc<Client>, layout: Layout) -> Self {
        Self {
            client,
            layout,
            limits: Limits::new(SHORTEST_TTL..=LONGEST_TTL, MOST_RECORD_BYTES),
            leases: Arc::default(),
        }
    }

    /// Puts a record on the lease that is kept for it, or on a new one. Returns the lease and the time-to-live that was granted.
    async fn write_on_own_lease(
        &self,
        op: &'static str,
        key: &str,
        value: &[u8],
        record: &RecordId,
        ttl: Duration,
    ) -> Result<(i64, Duration)> {
        let held = self.leases.acquire(&self.client, op, record, ttl).await?;
        let put = self.put(op, key, value, record, held.0).await;
        put.inspect_err(|error| {
            if error.kind() == ErrorKind::LeaseLost {
                self.leases.forget(record, held.0);
            }
        })?;
        Ok(held)
    }

    /// Puts a record unless another's is there.
    async fn put(
        &self,
        op: &'static str,
        key: &str,
        value: &[u8],
        record: &RecordId,
        lease: i64,
    ) -> Result<()> {
        let override_key = self.layout.override_key(&record.service, &record.id);
        // 0 stands for a key that is not there.
        let mut unchanged = vec![(key, 0)];
        let mut of_override = None;
        for _ in 0..MOST_ROUNDS {
            let put = TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
            let unchanged_since = unchanged.iter();
            let unchanged_since =
                unchanged_since.map(|(key, at)| Compare::mod_revision(*key, CompareOp::Equal, *at));
            let writes = std::iter::once(put).chain(of_override.take());
            let reads = std::iter::once(key).chain(override_key.as_deref());
            let txn = Txn::new()
                .when(unchanged_since.collect::<Vec<_>>())
                .and_then(writes.collect::<Vec<_>>())
                .or_else(reads.map(|key| TxnOp::get(key, None)).collect::<Vec<_>>());
            let answer = self.client.txn(op, &txn).await?;
            if answer.succeeded() {
                return Ok(());
            }
            let sets = found_sets(&answer).into_iter();
            let mut entries = sets.map(|set| set.into_iter().next());
            let (found, beside) = (entries.next().flatten(), entries.next().flatten());
            let Some(found) = found else {
                unchanged = vec![(key, 0)];
                continue;
            };
            if found.lease() == lease && found.value() == value {
                return Ok(());
            }
            let stored = self.layout.stored_in(&found, record);
            if found.lease() != lease {
                Owner::of(&stored, record).check_writable(op, key)?;
            }
            unchanged = vec![(key, found.mod_revision())];
            if let Some(override_key) = override_key.as_deref() {
                unchanged.push((
                    override_key,
                    beside.as_ref().map_or(0, KeyValue::mod_revision),
                ));
                of_override = beside
                    .filter(|beside| overrides::is_override(beside.value()))
                    .and_then(|beside| follow_up(override_key, &beside, &stored, lease));
            }
        }
        Err(changes_too_fast(op, key))
    }

    /// Tells readers that our record goes on purpose, and deletes it unless the end of `lease` does.
    async fn remove(&self, op: &'static str, record: &RecordId, lease: Option<i64>) -> Result<()> {
        let key = self.layout.key(&record.service, &record.id);
        for _ in 0..MOST_ROUNDS {
            let answer = self
                .client
                .get(op, key.as_bytes(), &GetOptions::new())
                .await?;
            let Some(found) = answer.kvs().first() else {
                return Ok(());
            };
            let stored = self.layout.stored_in(found, record);
            let on_our_lease = lease == Some(found.lease());
            if !on_our_lease && Owner::of(&stored, record) != Owner::Us {
                return Ok(());
            }
            let removal = Removal {
                client: &self.client,
                op,
                key: &key,
                // It hangs on the lease that ends with the registration.
                beside: None,
            };
            let announced = removal.announce(found, stored.as_ref().ok()).await?;
            let Some(last) = announced else {
                continue;
            };
            if on_our_lease || removal.delete(found, last).await? {
                return Ok(());
            }
        }
        Err(changes_too_fast(op, &key))
    }
}

/// What becomes of an override whose record is written over, and keeps its create revision: it goes with a record that is being
/// withdrawn, and follows another one to its new lease.
fn follow_up(
    key: &str,
    beside: &KeyValue,
    stored: &Result<Record, String>,
    lease: i64,
) -> Option<TxnOp> {
    if matches!(stored, Ok(Record::Withdrawn(_))) {
        return Some(TxnOp::delete(key, None));
    }
    let moved = PutOptions::new().with_lease(lease);
    (beside.lease() != lease).then(|| TxnOp::put(key, beside.value(), Some(moved)))
}

#[async_trait]
impl Registrar for EtcdRegistrar {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn record_bytes(&self, record: &Instance) -> Result<usize> {
        Ok(self.layout.encode("etcd: register", record)?.len())
    }

    async fn register(
        &self,
        record: &Instance,
        attempt: &Attempt,
    ) -> Result<Box<dyn Registration>> {
        const OP: &str = "etcd: register";
        let value = self.layout.encode(OP, record)?;
        let id = record.record_id();
        let key = self.layout.key(&id.service, &id.id);
        let written = self
            .write_on_own_lease(OP, &key, &value, &id, attempt.ttl)
            .await;
        let (lease, ttl) = match written {
            Err(error) if is_full(&error) => {
                let left = LeftRecord {
                    client: &self.client,
                    layout: &self.layout,
                    record: &id,
                    key: &key,
                };
                let Some((lease, ttl)) = left.go_on(OP, record, &value).await? else {
                    return Err(error);
                };
                if self.leases.id(&id) != Some(lease) {
                    // One that was granted before the database was full has no use.
                    self.leases.release(&self.client, OP, &id).await?;
                }
                self.leases.adopt(&id, lease, ttl);
                (lease, ttl)
            }
            written => written?,
        };
        Ok(Box::new(EtcdRegistration {
            client: Arc::clone(&self.client),
            layout: self.layout.clone(),
            leases: Arc::clone(&self.leases),
            record: id,
            key,
            lease,
            ttl,
        }))
    }

    async fn withdraw(&self, record: &RecordId) -> Result<()> {
        const OP: &str = "etcd: withdraw";
        let lease = self.leases.id(record);
        self.remove(OP, record, lease).await?;
        self.leases.release(&self.client, OP, record).await
    }

    /// The lease lives on until its time-to-live ends, or until another client moves the record to its own.
    async fn release(&self, record: &RecordId) -> Result<()> {
        if let Some(lease) = self.leases.id(record) {
            self.leases.forget(record, lease);
        }
        Ok(())
    }
}
