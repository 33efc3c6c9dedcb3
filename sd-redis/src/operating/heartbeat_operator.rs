//! The removal of heartbeats. They have no room for what operators say.

use async_trait::async_trait;
use sd_backend::Owner;
use sd_core::port::{Operator, check_run, no_such_record};
use sd_core::{Error, ErrorKind, Override, RecordId, Result};

use crate::heartbeats::Heartbeats;
use crate::records::Verdict;

/// Removes records of other processes.
#[derive(Debug)]
pub(crate) struct HeartbeatOperator(Heartbeats);

impl HeartbeatOperator {
    pub(crate) fn new(heartbeats: Heartbeats) -> Self {
        Self(heartbeats)
    }
}

#[async_trait]
impl Operator for HeartbeatOperator {
    async fn set_override(&self, _record: &RecordId, _wanted: Option<Override>) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "redis: set override").because(
            "a heartbeat has an address and nothing else: change the instance at its owner, or remove it",
        ))
    }

    async fn remove(&self, record: &RecordId) -> Result<()> {
        const OP: &str = "redis: remove";
        match self.0.end(OP, record).await? {
            Verdict::Done => Ok(()),
            Verdict::Missing | Verdict::Held(Owner::Free | Owner::Us) => {
                Err(no_such_record(OP, record))
            }
            Verdict::Held(Owner::Run(holder)) => check_run(OP, record, holder),
            Verdict::Held(Owner::NoRecord(reason)) => {
                Err(Error::new(ErrorKind::InvalidData, OP).because(reason))
            }
        }
    }
}
