//! One record at the server: renewed, updated, proved to be ours.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, PutOptions, Txn, TxnOp};
use sd_core::port::{Liveness, Registration};
use sd_core::{Error, ErrorKind, Instance, RecordId, Result};

use crate::client::Client;
use crate::client::answer::found;
use crate::client::leases::Leases;
use crate::codec::Layout;

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
    /// Only our lease is attached to our record: ids of leases are random.
    fn check_ours(&self, op: &'static str, found: Option<&KeyValue>) -> Result<()> {
        match found {
            Some(found) if found.lease() == self.lease => Ok(()),
            Some(_) => Err(Error::new(ErrorKind::Conflict, op)
                .because(format!("{} was taken over by another lease", self.key))),
            None => {
                Err(Error::new(ErrorKind::NotFound, op)
                    .because(format!("{} was deleted", self.key)))
            }
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

    /// A lease outlives a key that was deleted, so both are asked after, side by side.
    async fn renew(&self) -> Result<Liveness> {
        const OP: &str = "etcd: renew";
        let key_only = GetOptions::new().with_keys_only();
        let (extended, read) = tokio::join!(
            self.client.keep_alive(OP, self.lease),
            self.client.get(OP, self.key.as_bytes(), &key_only),
        );
        extended.inspect_err(|error| self.note_loss(error))?;
        self.check_ours(OP, read?.kvs().first())?;
        Ok(self.liveness())
    }

    async fn update(&self, record: &Instance) -> Result<()> {
        const OP: &str = "etcd: update";
        if record.record_id() != self.record {
            return Err(Error::invalid_input(
                OP,
                "service, id and incarnation cannot change: register another instance",
            ));
        }
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
        self.check_ours(OP, found(&answer).as_ref())
    }

    /// etcd does not report that a lease has expired. The next renewal does.
    async fn lost(&self) -> Error {
        std::future::pending().await
    }
}
