//! One record at the server: renewed, updated, proved to be ours.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, PutOptions, Txn, TxnOp};
use sd_backend::Record;
use sd_core::port::{Liveness, Registration, Renewed};
use sd_core::{Error, ErrorKind, Instance, RecordId, Result};
use tokio::time::timeout;
use tracing::debug;

use crate::client::Client;
use crate::client::answer::{found, found_sets};
use crate::client::leases::Leases;
use crate::codec::{Layout, overrides};

/// How long an override that was written by hand may take to be given a lease.
const ATTACH_WITHIN: Duration = Duration::from_millis(500);

/// A record under one key, attached to one lease.
#[derive(Debug)]
pub(crate) struct EtcdRegistration {
    pub(crate) client: Arc<Client>,
    pub(crate) layout: Layout,
    pub(crate) leases: Arc<Leases<RecordId>>,
    pub(crate) record: RecordId,
    pub(crate) key: String,
    pub(crate) lease: i64,
    pub(crate) ttl: Duration,
}

impl EtcdRegistration {
    /// Our record, if it is that. Only our lease is attached to it: ids of leases are random.
    fn check_ours<'a>(
        &self,
        op: &'static str,
        found: Option<&'a KeyValue>,
    ) -> Result<&'a KeyValue> {
        match found {
            Some(found) if found.lease() == self.lease => Ok(found),
            Some(_) => Err(Error::new(ErrorKind::Conflict, op)
                .because(format!("{} was taken over by another lease", self.key))),
            None => {
                Err(Error::new(ErrorKind::NotFound, op)
                    .because(format!("{} was deleted", self.key)))
            }
        }
    }

    /// Lets an override that hangs on no lease, since it was written by hand, end with the record. The next renewal tries again.
    async fn attach(&self, op: &'static str, overriding: &KeyValue) {
        let (key, on_ours) = (overriding.key(), PutOptions::new().with_lease(self.lease));
        let txn = Txn::new()
            .when([
                Compare::mod_revision(key, CompareOp::Equal, overriding.mod_revision()),
                Compare::lease(self.key.as_str(), CompareOp::Equal, self.lease),
            ])
            .and_then([TxnOp::put(key, overriding.value(), Some(on_ours))]);
        // It must not make a renewal late that has been done.
        match timeout(ATTACH_WITHIN, self.client.txn(op, &txn)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                debug!(error = %error.report(), "an override without a lease was left so");
            }
            Err(_) => debug!("an override without a lease was left so: no answer in time"),
        }
    }

    fn note_loss(&self, error: &Error) {
        if error.kind() == ErrorKind::LeaseLost {
            self.leases.forget(&self.record, self.lease);
        }
    }
}

#[async_trait]
impl Registration for EtcdRegistration {
    fn liveness(&self) -> Liveness {
        Liveness::Lease { ttl: self.ttl }
    }

    /// A lease outlives a key that was deleted, so both are asked after, side by side. It also outlives a removal that stopped halfway.
    async fn renew(&self) -> Result<Renewed> {
        const OP: &str = "etcd: renew";
        let id = &self.record;
        let overriding = self.layout.override_key(&id.service, &id.id);
        let reads = [Some(self.key.clone()), overriding].into_iter().flatten();
        let reads = Txn::new().and_then(reads.map(|key| TxnOp::get(key, None)).collect::<Vec<_>>());
        let (extended, read) = tokio::join!(
            self.client.keep_alive(OP, self.lease),
            self.client.repeatable_txn(OP, &reads),
        );
        extended.inspect_err(|error| self.note_loss(error))?;
        let found = found_sets(&read?);
        let mut found = found.iter().map(|found| found.first());
        let record = self.check_ours(OP, found.next().flatten())?;
        let overriding = found.next().flatten();
        let said = match self.layout.stored_in(record, id) {
            Ok(Record::Live(instance)) => overriding
                .and_then(|found| overrides::decode(found.value()).ok())
                .and_then(|found| found.of(&instance, record.create_revision())),
            Ok(Record::Withdrawn(_)) => {
                return Err(Error::new(ErrorKind::NotFound, OP)
                    .because(format!("an operator is removing {}", self.key)));
            }
            Err(_) => None,
        };
        if let Some(overriding) = overriding.filter(|found| said.is_some() && found.lease() == 0) {
            self.attach(OP, overriding).await;
        }
        Ok(Renewed::new(self.liveness()).with_override(said))
    }

    async fn update(&self, record: &Instance) -> Result<()> {
        const OP: &str = "etcd: update";
        let value = self.layout.encode(OP, record)?;
        let key = self.key.as_str();
        let attached = PutOptions::new().with_lease(self.lease);
        let key_only = GetOptions::new().with_keys_only();
        let txn = Txn::new()
            .when([Compare::lease(key, CompareOp::Equal, self.lease)])
            .and_then([TxnOp::put(key, value, Some(attached))])
            .or_else([TxnOp::get(key, Some(key_only))]);
        let answer = self
            .client
            .txn(OP, &txn)
            .await
            .inspect_err(|error| self.note_loss(error))?;
        if answer.succeeded() {
            return Ok(());
        }
        self.check_ours(OP, found(&answer).as_ref()).map(drop)
    }
}
