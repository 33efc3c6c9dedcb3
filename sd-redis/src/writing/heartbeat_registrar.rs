//! Writing heartbeats: a renewal writes the record again, with the server's time.

use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::{Attempt, Limits, Liveness, Registration, Renewed};
use sd_core::{Error, ErrorKind, Instance, RecordId, Registrar, Result};
use tokio::sync::Mutex;

use crate::codec::heartbeat::{encode, key};
use crate::heartbeats::Heartbeats;
use crate::records::Verdict;
use crate::writing::registrar::{LONGEST_TTL, SHORTEST_TTL};

/// More than an address has.
const MOST_RECORD_BYTES: usize = 1024;

/// Writes heartbeats to one server.
#[derive(Debug)]
pub(crate) struct HeartbeatRegistrar {
    heartbeats: Heartbeats,
    limits: Limits,
}

/// A record that is written again and again.
#[derive(Debug)]
struct HeartbeatRegistration {
    heartbeats: Heartbeats,
    /// As it was written last.
    instance: Mutex<Instance>,
    ttl: Duration,
}

impl HeartbeatRegistrar {
    pub(crate) fn new(heartbeats: Heartbeats) -> Self {
        Self {
            heartbeats,
            limits: Limits::new(SHORTEST_TTL..=LONGEST_TTL, MOST_RECORD_BYTES),
        }
    }
}

fn place(record: &RecordId) -> String {
    format!("{:?} in {}", record.id, key(&record.service))
}

#[async_trait]
impl Registrar for HeartbeatRegistrar {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn record_bytes(&self, record: &Instance) -> Result<usize> {
        let parts = encode("redis: register", record)?;
        Ok(parts.iter().map(String::len).sum())
    }

    async fn register(
        &self,
        record: &Instance,
        _attempt: &Attempt,
    ) -> Result<Box<dyn Registration>> {
        const OP: &str = "redis: register";
        if let Verdict::Held(owner) = self.heartbeats.put(OP, record, false).await? {
            owner.check_writable(OP, &place(&record.record_id()))?;
        }
        Ok(Box::new(HeartbeatRegistration {
            heartbeats: self.heartbeats.clone(),
            instance: Mutex::new(record.clone()),
            ttl: self.heartbeats.client.config().heartbeat_ttl,
        }))
    }

    async fn withdraw(&self, record: &RecordId) -> Result<()> {
        self.heartbeats
            .end("redis: withdraw", record)
            .await
            .map(drop)
    }
}

impl HeartbeatRegistration {
    async fn write(&self, op: &'static str, instance: &Instance) -> Result<()> {
        match self.heartbeats.put(op, instance, true).await? {
            Verdict::Done => Ok(()),
            Verdict::Missing => {
                let why = format!("{} has ended or was removed", place(&instance.record_id()));
                Err(Error::new(ErrorKind::NotFound, op).because(why))
            }
            Verdict::Held(owner) => owner.check_writable(op, &place(&instance.record_id())),
        }
    }
}

#[async_trait]
impl Registration for HeartbeatRegistration {
    fn liveness(&self) -> Liveness {
        Liveness::Lease { ttl: self.ttl }
    }

    async fn renew(&self) -> Result<Renewed> {
        // Held meanwhile, so that no renewal writes what an update has replaced.
        let instance = self.instance.lock().await;
        self.write("redis: renew", &instance).await?;
        Ok(Renewed::new(self.liveness()))
    }

    async fn update(&self, record: &Instance) -> Result<()> {
        let mut instance = self.instance.lock().await;
        self.write("redis: update", record).await?;
        *instance = record.clone();
        Ok(())
    }
}
