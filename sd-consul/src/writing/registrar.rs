//! Writing: one service of the agent for each record, with a check that ends it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::{Attempt, Limits, Registration};
use sd_core::{Error, ErrorKind, Instance, RecordId, Registrar, Result};

use tracing::debug;

use crate::client::Client;
use crate::codec::{check_service, encode, service_id};
use crate::health_check::CheckDefinition;
use crate::write_queue::WriteQueue;
use crate::writing::records::{Holder, Records};
use crate::writing::registration::{ConsulRegistration, Written};

/// An agent's answer on a busy machine takes a while, and three renewals should fit.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
/// Longer ones would not be leases.
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);
/// What fits into the metadata of a service, 64 times 640 bytes, and as much again in tags.
const MOST_RECORD_BYTES: usize = 80 * 1024;

/// Writes records to one agent.
#[derive(Debug)]
pub(crate) struct ConsulRegistrar {
    client: Arc<Client>,
    limits: Limits,
    writes: Arc<WriteQueue<RecordId>>,
}

impl ConsulRegistrar {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            limits: Limits::new(SHORTEST_TTL..=LONGEST_TTL, MOST_RECORD_BYTES),
            writes: Arc::default(),
        }
    }
}

#[async_trait]
impl Registrar for ConsulRegistrar {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn record_bytes(&self, record: &Instance) -> Result<usize> {
        const OP: &str = "consul: register";
        check_service(OP, record.service())?;
        // No other time-to-live is written longer.
        let check = CheckDefinition::new(OP, self.client.config(), record, LONGEST_TTL)?;
        let json = serde_json::to_vec(&encode(OP, record, check)?);
        Ok(json
            .map_err(|error| Error::invalid_input(OP, error.to_string()))?
            .len())
    }

    async fn register(
        &self,
        record: &Instance,
        attempt: &Attempt,
    ) -> Result<Box<dyn Registration>> {
        const OP: &str = "consul: register";
        self.client.signal.check_open(OP)?;
        let check = CheckDefinition::new(OP, self.client.config(), record, attempt.ttl)?;
        let definition = encode(OP, record, check)?;
        let (client, instance, id) = (Arc::clone(&self.client), record.clone(), record.record_id());
        let Attempt {
            ttl,
            id_is_new,
            was_confirmed,
            ..
        } = *attempt;
        // Before it is used: one that is replaced meanwhile is noticed then.
        let written = Written::new(record.clone(), client.token(OP).await?);
        let writing = async move {
            let records = Records {
                client: &client,
                op: OP,
            };
            let record = instance.record_id();
            let holder = if id_is_new {
                Holder::Free
            } else {
                let (checked, holder) =
                    tokio::join!(records.check_case(&record), records.holder(&record));
                let holder = holder?;
                if let Err(error) = checked {
                    // Both were written in the same moment. The catalog has a place for one, and would have each of them in turn.
                    let is_conflict = error.kind() == ErrorKind::Conflict;
                    if is_conflict && matches!(holder, Holder::Us(_)) {
                        client.remove_service(OP, &definition.id).await?;
                    }
                    return Err(error);
                }
                holder
            };
            let before = match holder {
                // What is left of it, its maintenance mode for instance, is not ours.
                Holder::Other(other) if other.has_ended() => {
                    records.check_elsewhere(&record, other.node()).await?;
                    client.remove_service(OP, &definition.id).await?;
                    Holder::Free
                }
                Holder::Other(other) => {
                    let mut succeeded = None;
                    // A run that was taken over does not take its record back.
                    if !was_confirmed {
                        succeeded = records.succeed(&other, &definition, &instance).await?;
                    }
                    succeeded.ok_or_else(|| other.conflict(OP, &record.id))?
                }
                Holder::Free if !id_is_new => {
                    records.check_elsewhere(&record, None).await?;
                    Holder::Free
                }
                Holder::Us(state) if !records.is_listed(&record, &state).await? => {
                    Holder::Unlisted(state)
                }
                free_or_ours => free_or_ours,
            };
            let is_dropped = records.write(&definition, &instance, &before).await?;
            let visible = records.until_visible(&instance, is_dropped).await;
            if let Err(error) = &visible
                && error.kind() == ErrorKind::Conflict
            {
                client.remove_service(OP, &definition.id).await?;
            }
            visible?;
            // Of runs at one address the first attempt of the newest one decides.
            if !was_confirmed
                && !records.is_kept_by_us()
                && let Err(error) = records.remove_remnants(&instance).await
            {
                debug!(error = %error.report(), "what earlier runs have left stays");
            }
            Ok(())
        };
        self.writes.run(OP, &id, writing).await?;
        Ok(Box::new(ConsulRegistration {
            client: Arc::clone(&self.client),
            writes: Arc::clone(&self.writes),
            record: id,
            ttl,
            written: Arc::new(written),
        }))
    }

    async fn withdraw(&self, record: &RecordId) -> Result<()> {
        const OP: &str = "consul: withdraw";
        self.client.signal.check_open(OP)?;
        let (client, id) = (Arc::clone(&self.client), record.clone());
        let removing = async move {
            let records = Records {
                client: &client,
                op: OP,
            };
            if let Holder::Us(_) = records.holder(&id).await? {
                let service = service_id(&id.service, &id.id);
                client.remove_service(OP, &service).await?;
            }
            records.until_gone(&id).await
        };
        self.writes.run(OP, record, removing).await
    }

    /// Waits for a write that the agent has been sent: it would come after those of the next client.
    async fn release(&self, record: &RecordId) -> Result<()> {
        let nothing = async { Ok(()) };
        self.writes.run("consul: release", record, nothing).await
    }
}
