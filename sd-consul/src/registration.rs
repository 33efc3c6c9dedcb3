//! One record at the agent: renewed, updated, proved to be ours.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::{Error, Instance, Liveness, RecordId, Registration, Result};

use crate::client::Client;
use crate::codec::{encode, service_id};
use crate::health_check::CheckDefinition;
use crate::records::{Holder, Records};
use crate::serial::Serial;

/// A record under one id.
#[derive(Debug)]
pub(crate) struct ConsulRegistration {
    pub(crate) client: Arc<Client>,
    pub(crate) writes: Arc<Serial<RecordId>>,
    pub(crate) record: RecordId,
    pub(crate) ttl: Duration,
}

impl ConsulRegistration {
    fn records(&self, op: &'static str) -> Records<'_> {
        Records {
            client: &self.client,
            op,
        }
    }
}

#[async_trait]
impl Registration for ConsulRegistration {
    fn liveness(&self) -> Liveness {
        let ttl = self.ttl;
        if self.records("consul: liveness").is_kept_by_us() {
            Liveness::Lease { ttl }
        } else {
            Liveness::Permanent { verify_every: ttl }
        }
    }

    /// The agent takes a pass for a record that was lost meanwhile as a rescue. So whether it is there comes first.
    async fn renew(&self) -> Result<Liveness> {
        const OP: &str = "consul: renew";
        let records = self.records(OP);
        records.ours(&self.record).await?;
        if records.is_kept_by_us() {
            let id = service_id(&self.record.service, &self.record.id);
            self.client.pass_check(OP, &id).await?;
        }
        Ok(self.liveness())
    }

    async fn update(&self, record: &Instance) -> Result<()> {
        const OP: &str = "consul: update";
        if record.record_id() != self.record {
            return Err(Error::invalid_input(
                OP,
                "service, id and incarnation cannot change: register another instance",
            ));
        }
        let check = CheckDefinition::new(OP, self.client.config(), record, self.ttl)?;
        let definition = encode(OP, record, check)?;
        let (client, instance) = (Arc::clone(&self.client), record.clone());
        let writing = async move {
            let records = Records {
                client: &client,
                op: OP,
            };
            let before = Holder::Us(records.ours(&instance.record_id()).await?);
            records.write(&definition, &instance, &before).await?;
            records.until_visible(&instance).await
        };
        self.writes.run(OP, &self.record, writing).await
    }

    /// Consul tells nobody that an agent forgot something. The next renewal does.
    async fn lost(&self) -> Error {
        std::future::pending().await
    }
}
