//! One record at the agent: renewed, updated, proved to be ours.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sd_backend::Secret;
use sd_core::port::{Liveness, Registration, Renewed};
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Instance, RecordId, Result};
use tokio::time::{Instant as Moment, timeout};
use tracing::debug;

use crate::client::Client;
use crate::codec::{encode, service_id};
use crate::health_check::CheckDefinition;
use crate::maintenance::Reason;
use crate::write_queue::WriteQueue;
use crate::writing::records::{Holder, RecordState, Records};

/// How often a renewal looks whether the catalog lists the record.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// For how long. A look that takes longer proves nothing, and must not make a renewal late that has been done.
const LOOK_WITHIN: Duration = Duration::from_millis(250);

/// A record under one id.
#[derive(Debug)]
pub(crate) struct ConsulRegistration {
    pub(crate) client: Arc<Client>,
    pub(crate) writes: Arc<WriteQueue<RecordId>>,
    pub(crate) record: RecordId,
    pub(crate) ttl: Duration,
    pub(crate) written: Arc<Written>,
}

/// What was written last, and when the catalog was last seen to list it.
#[derive(Debug)]
pub(crate) struct Written {
    last: Mutex<(Instance, Option<Secret>)>,
    listed_at: Mutex<Moment>,
}

impl Written {
    /// With this token. The agent brings later changes of the record into the catalog with it, too.
    pub(crate) fn new(instance: Instance, token: Option<Secret>) -> Self {
        Self {
            last: Mutex::new((instance, token)),
            listed_at: Mutex::new(Moment::now()),
        }
    }

    fn set(&self, instance: Instance, token: Option<Secret>) {
        *lock(&self.last) = (instance, token);
    }

    fn get(&self) -> (Instance, Option<Secret>) {
        lock(&self.last).clone()
    }

    fn is_look_due(&self) -> bool {
        lock(&self.listed_at).elapsed() >= LOOK_EVERY
    }

    fn was_listed(&self) {
        *lock(&self.listed_at) = Moment::now();
    }
}

impl ConsulRegistration {
    fn records(&self, op: &'static str) -> Records<'_> {
        Records {
            client: &self.client,
            op,
        }
    }

    /// Looks whether readers can find the record, if that is due.
    ///
    /// # Errors
    /// `NotFound` if they cannot.
    async fn check_listed(&self, records: &Records<'_>, state: &RecordState) -> Result<()> {
        if !self.written.is_look_due() {
            return Ok(());
        }
        match timeout(LOOK_WITHIN, records.is_listed(&self.record, state)).await {
            Ok(Ok(true)) => self.written.was_listed(),
            Ok(Ok(false)) => {
                return Err(Error::new(ErrorKind::NotFound, records.op).because(format!(
                    "the agent has {}, but the catalog does not: it was removed there",
                    self.record.id
                )));
            }
            Ok(Err(error)) => debug!(error = %error.report(), "the catalog was not seen"),
            Err(_) => debug!("the catalog was not seen in time"),
        }
        Ok(())
    }

    /// Writes the record over ours.
    async fn put(&self, op: &'static str, instance: &Instance) -> Result<()> {
        let check = CheckDefinition::new(op, self.client.config(), instance, self.ttl)?;
        let definition = encode(op, instance, check)?;
        let (client, written) = (Arc::clone(&self.client), Arc::clone(&self.written));
        let instance = instance.clone();
        let writing = async move {
            let records = Records {
                client: &client,
                op,
            };
            // Before it is used: one that is replaced meanwhile is noticed then.
            let token = client.token(op).await?;
            let before = Holder::Us(records.ours(&instance.record_id()).await?);
            let is_dropped = records.write(&definition, &instance, &before).await?;
            written.set(instance.clone(), token);
            records.until_visible(&instance, is_dropped).await
        };
        self.writes.run(op, &self.record, writing).await
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

    /// The agent takes a pass for a record that was lost meanwhile as a rescue. So whether it is there comes first. It is written again
    /// if the token is another one now, or its maintenance mode is not what it should be: an operator may have ended it. Every
    /// [`LOOK_EVERY`], one more request proves that readers can find it.
    async fn renew(&self) -> Result<Renewed> {
        const OP: &str = "consul: renew";
        let records = self.records(OP);
        let state = records.ours(&self.record).await?;
        let now = state.maintenance.clone();
        let (instance, token) = self.written.get();
        let wanted = Reason::wanted(&instance, now.as_ref());
        if token != self.client.token(OP).await? || now != wanted {
            self.put(OP, &instance).await?;
        } else if records.is_kept_by_us() {
            let id = service_id(&self.record.service, &self.record.id);
            self.client.pass_check(OP, &id).await?;
        }
        self.check_listed(&records, &state).await?;
        let said = now.and_then(|now| now.override_of(self.record.incarnation));
        let said = said.map(|reason| reason.said);
        Ok(Renewed::new(self.liveness()).with_override(said))
    }

    async fn update(&self, record: &Instance) -> Result<()> {
        const OP: &str = "consul: update";
        self.put(OP, record).await
    }
}
