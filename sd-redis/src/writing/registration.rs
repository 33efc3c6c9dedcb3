//! One record at the server: renewed, updated, proved to be ours.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::{Liveness, Registration, Renewed};
use sd_core::{Error, ErrorKind, Instance, RecordId, Result};

use crate::codec::value::override_of;
use crate::records::{Records, Verdict};
use crate::writing::renewals::Renewals;

/// A record in the hash of its service.
#[derive(Debug)]
pub(crate) struct RedisRegistration {
    pub(crate) records: Records,
    pub(crate) renewals: Arc<Renewals>,
    pub(crate) record: RecordId,
    pub(crate) ttl: Duration,
}

impl RedisRegistration {
    fn lost(&self, op: &'static str, kind: ErrorKind, why: &str) -> Error {
        let place = &self.renewals.keys.records;
        Error::new(kind, op).because(format!("{:?} in {place} {why}", self.record.id))
    }

    fn missing(&self, op: &'static str) -> Error {
        self.lost(op, ErrorKind::NotFound, "has ended or was removed")
    }
}

#[async_trait]
impl Registration for RedisRegistration {
    fn liveness(&self) -> Liveness {
        Liveness::Lease { ttl: self.ttl }
    }

    async fn renew(&self) -> Result<Renewed> {
        const OP: &str = "redis: renew";
        let said = self.renewals.renew(OP, &self.record, self.ttl).await?;
        let lost = |kind, why| Err(self.lost(OP, kind, why));
        match said.as_str() {
            "missing" => Err(self.missing(OP)),
            "gone" => lost(ErrorKind::NotFound, "was removed by an operator"),
            "held" => lost(ErrorKind::Conflict, "belongs to another run"),
            "unreadable" => lost(ErrorKind::Conflict, "is no record any more"),
            said => Ok(Renewed::new(self.liveness()).with_override(override_of(said.as_bytes()))),
        }
    }

    async fn update(&self, record: &Instance) -> Result<()> {
        const OP: &str = "redis: update";
        match self.records.put(OP, record, self.ttl, true).await? {
            Verdict::Done => Ok(()),
            Verdict::Missing => Err(self.missing(OP)),
            Verdict::Held(owner) => {
                let place = self.records.place(&self.record);
                owner.check_writable(OP, &place)?;
                Err(self.missing(OP))
            }
        }
    }
}
