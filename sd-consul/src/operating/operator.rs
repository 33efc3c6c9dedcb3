//! What operators say of records, and the removal of records, at the agent that keeps them.
//!
//! An agent compares nothing, so whose the record is, is looked up before. What is written names the run, and says nothing of another
//! one that takes the id meanwhile.

use std::sync::Arc;

use async_trait::async_trait;
use sd_core::port::{Operator, check_run, no_such_record};
use sd_core::{Error, ErrorKind, Override, RecordId, Result};

use crate::client::Client;
use crate::codec::{HealthEntry, service_id};
use crate::maintenance::{Overriding, Reason};
use crate::writing::records::{Holder, RecordState, Records, run_in};

/// Changes records of other processes at one agent.
#[derive(Debug)]
pub(crate) struct ConsulOperator {
    client: Arc<Client>,
}

impl ConsulOperator {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    /// The record of this run at the agent.
    async fn find(&self, records: &Records<'_>, record: &RecordId) -> Result<RecordState> {
        match records.holder(record).await? {
            Holder::Us(state) => Ok(state),
            _ => Err(self.where_else(records.op, record).await?),
        }
    }

    /// Why the agent cannot change a record that it does not have.
    async fn where_else(&self, op: &'static str, record: &RecordId) -> Result<Error> {
        let service = &record.service;
        let read = self.client.service_entries(op, service).await?;
        let has_id = |entry: &&HealthEntry| {
            let identity = entry.identity(service);
            identity.is_ok_and(|identity| identity.id == record.id)
        };
        let mut found: Vec<_> = read.entries.iter().filter(has_id).collect();
        // That of this run first.
        found.sort_by_key(|entry| {
            let run = run_in(&entry.service, service);
            run.is_none_or(|run| run.incarnation != record.incarnation)
        });
        let Some(entry) = found.first() else {
            return Ok(no_such_record(op, record));
        };
        let node = &entry.node;
        let Some(run) = run_in(&entry.service, service) else {
            return Ok(Error::new(ErrorKind::Unsupported, op).because(format!(
                "{:?} is not one of our records: at its node {:?}, use consul maint -service={id} or consul services deregister -id={id}",
                record.id,
                node.name,
                id = entry.service.id
            )));
        };
        if let Err(conflict) = check_run(op, record, run) {
            return Ok(conflict);
        }
        Ok(Error::new(ErrorKind::Unsupported, op).because(format!(
            "{:?} is kept by the agent of the node {:?}, and no other agent can change it: connect to that one, for example with \
             consul://{}:8500",
            record.id, node.name, node.address
        )))
    }
}

#[async_trait]
impl Operator for ConsulOperator {
    async fn set_override(&self, record: &RecordId, wanted: Option<Override>) -> Result<()> {
        const OP: &str = "consul: set override";
        if wanted.is_some_and(Override::is_ready) {
            return Err(Error::new(ErrorKind::Unsupported, OP).because(
                "Consul has no check that makes an instance ready: clear the override, or have the owner say that it is ready",
            ));
        }
        let client = &self.client;
        let records = Records { client, op: OP };
        let found = self.find(&records, record).await?;
        if records.is_over(&found) {
            return Err(no_such_record(OP, record));
        }
        let now = found.maintenance;
        let over_ready = match &now {
            None => true,
            Some(Reason::NotReady) => false,
            Some(Reason::Override(before)) => {
                before.incarnation != record.incarnation || before.over_ready
            }
            Some(Reason::Other(why)) => {
                return Err(Error::new(ErrorKind::Conflict, OP).because(format!(
                    "{:?} is in maintenance mode for a reason of another program ({why}): end that first, with consul maint -disable \
                     -service={}",
                    record.id,
                    service_id(&record.service, &record.id)
                )));
            }
        };
        let wanted = match wanted {
            Some(said) => Some(Reason::Override(Overriding {
                said,
                incarnation: record.incarnation,
                over_ready,
            })),
            None => (!over_ready).then_some(Reason::NotReady),
        };
        if now != wanted {
            let id = service_id(&record.service, &record.id);
            match &wanted {
                Some(reason) => client.replace_maintenance(OP, &id, reason).await?,
                None => client.set_maintenance(OP, &id, None).await?,
            }
        }
        records.until_maintained(record).await
    }

    async fn remove(&self, record: &RecordId) -> Result<()> {
        const OP: &str = "consul: remove record";
        let client = &self.client;
        let records = Records { client, op: OP };
        self.find(&records, record).await?;
        let id = service_id(&record.service, &record.id);
        client.remove_service(OP, &id).await?;
        records.until_gone(record).await
    }
}
