//! What operators say of records, and the removal of records, at the agent that keeps them.
//!
//! An agent compares nothing, so each write comes right after the read that says whose the record is. Another run may still take the id
//! in between. An override names its run, so it says nothing of that one. That its owner is not ready, the end of the maintenance mode
//! and the removal name no run: they hit the other run, whose next renewal mends them.

use std::sync::Arc;

use async_trait::async_trait;
use sd_core::port::{Operator, check_run, no_such_record};
use sd_core::{Endpoint, Error, ErrorKind, Override, RecordId, Result};

use crate::client::Client;
use crate::codec::{HealthEntry, service_id};
use crate::maintenance::{OverrideReason, Reason};
use crate::writing::agent::AgentNode;
use crate::writing::records::{Holder, RecordState, Records, run_in};

/// How often an override is written if its owner, which has just become ready, writes it away.
const MOST_WRITES: usize = 5;
/// Where agents listen unless told otherwise.
const PORT: u16 = 8500;

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
        let entries = read.all().await?;
        let mut found: Vec<_> = entries.iter().filter(has_id).collect();
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
                id = shell_word(&entry.service.id)
            )));
        };
        if let Err(conflict) = check_run(op, record, run) {
            return Ok(conflict);
        }
        // The catalog lags behind an agent that has just lost the record.
        let own = self.client.agent_node(op).await?;
        let is_own = |own: AgentNode| own.name == node.name && own.datacenter == node.datacenter;
        if own.is_some_and(is_own) {
            return Ok(no_such_record(op, record));
        }
        let example = Endpoint::tcp(&node.address, PORT)
            .map(|address| format!(", for example with consul://{address}"))
            .unwrap_or_default();
        Ok(Error::new(ErrorKind::Unsupported, op).because(format!(
            "{:?} is kept by the agent of the node {:?}, and no other agent can change it: connect to that one{example}",
            record.id, node.name
        )))
    }

    /// Writes an override, or its end, over what the agent has now.
    async fn write(
        &self,
        records: &Records<'_>,
        record: &RecordId,
        wanted: Option<Override>,
    ) -> Result<()> {
        let (client, op) = (&self.client, records.op);
        let found = self.find(records, record).await?;
        if records.is_over(&found) {
            return Err(no_such_record(op, record));
        }
        let id = service_id(&record.service, &record.id);
        let now = found.maintenance;
        let over_ready = match &now {
            None => true,
            Some(Reason::NotReady) => false,
            Some(Reason::Override(before)) => {
                before.incarnation != record.incarnation || before.over_ready
            }
            Some(Reason::Other(why)) => {
                return Err(Error::new(ErrorKind::Conflict, op).because(format!(
                    "{:?} is in maintenance mode for a reason of another program ({why}): end that first, with consul maint -disable \
                     -service={}",
                    record.id,
                    shell_word(&id)
                )));
            }
        };
        let wanted = match wanted {
            Some(said) => Some(Reason::Override(OverrideReason {
                said,
                incarnation: record.incarnation,
                over_ready,
            })),
            None => (!over_ready).then_some(Reason::NotReady),
        };
        match &wanted {
            _ if now == wanted => Ok(()),
            Some(reason) => client.replace_maintenance(op, &id, reason).await,
            None => client.set_maintenance(op, &id, None).await,
        }
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
        for _ in 0..MOST_WRITES {
            self.write(&records, record, wanted).await?;
            let now = records.until_maintained(record).await?;
            // That of another operator counts as well: the last one stays.
            let is_overridden =
                now.is_some_and(|now| now.override_of(record.incarnation).is_some());
            if is_overridden || wanted.is_none() {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Unavailable, OP).because(format!(
            "the override of {:?} was written {MOST_WRITES} times, and each time its owner or another program ended it: try again",
            record.id
        )))
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

/// As one word of a POSIX shell, whatever it holds.
fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_into_a_shell_is_one_word() {
        for (text, word) in [
            ("web", "'web'"),
            ("a b;$(c)`d`", "'a b;$(c)`d`'"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }
}
