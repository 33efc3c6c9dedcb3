//! What operators say of records, and the removal of records. Each is one script, which compares the run.
//!
//! An override is kept with its record, and so ends with it.

use std::sync::Arc;

use async_trait::async_trait;
use sd_backend::Owner;
use sd_core::port::{Operator, check_run, no_such_record};
use sd_core::{Error, ErrorKind, Override, RecordId, Result};

use crate::client::Client;
use crate::codec::names::Layout;
use crate::records::{Records, Verdict};

/// Changes records of other processes.
#[derive(Debug)]
pub(crate) struct RedisOperator {
    records: Records,
}

impl RedisOperator {
    pub(crate) fn new(client: Arc<Client>, layout: Layout) -> Self {
        let records = Records::new(client, layout);
        Self { records }
    }

    /// What came of a change of this run's record.
    fn check(&self, op: &'static str, record: &RecordId, verdict: Verdict) -> Result<()> {
        match verdict {
            Verdict::Done => Ok(()),
            Verdict::Missing | Verdict::Held(Owner::Free | Owner::Us) => {
                Err(no_such_record(op, record))
            }
            Verdict::Held(Owner::Run(holder)) => check_run(op, record, holder),
            Verdict::Held(Owner::NoRecord(reason)) => {
                let place = self.records.place(record);
                Err(Error::new(ErrorKind::InvalidData, op)
                    .because(format!("{place} is not a record: {reason}")))
            }
        }
    }
}

#[async_trait]
impl Operator for RedisOperator {
    async fn set_override(&self, record: &RecordId, wanted: Option<Override>) -> Result<()> {
        let op = match wanted {
            Some(_) => "redis: set override",
            None => "redis: clear override",
        };
        let verdict = self.records.say(op, record, wanted).await?;
        self.check(op, record, verdict)
    }

    async fn remove(&self, record: &RecordId) -> Result<()> {
        const OP: &str = "redis: remove";
        let verdict = self.records.remove(OP, record).await?;
        self.check(OP, record, verdict)
    }
}
