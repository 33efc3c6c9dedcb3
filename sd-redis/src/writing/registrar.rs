//! Writing: one record in the hash of its service, and every write guarded by a comparison in a script.
//!
//! A record is ours if it says our incarnation. Whatever else lies under its id is another's and is never touched while it lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::{Attempt, Limits, Registration};
use sd_core::sync::lock;
use sd_core::{Instance, RecordId, Registrar, Result, ServiceName};

use crate::client::Client;
use crate::codec::names::Layout;
use crate::codec::value::encode;
use crate::records::{Records, Verdict};
use crate::writing::registration::RedisRegistration;
use crate::writing::renewals::Renewals;

pub(super) const SHORTEST_TTL: Duration = Duration::from_secs(1);
pub(super) const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);
/// Far below what Redis takes (512 MiB), and large enough for any sensible metadata.
const MOST_RECORD_BYTES: usize = 64 * 1024;

/// Writes records to one server.
#[derive(Debug)]
pub(crate) struct RedisRegistrar {
    client: Arc<Client>,
    records: Records,
    layout: Layout,
    limits: Limits,
    renewals: Mutex<HashMap<ServiceName, Weak<Renewals>>>,
}

impl RedisRegistrar {
    pub(crate) fn new(client: Arc<Client>, layout: Layout) -> Self {
        Self {
            records: Records::new(Arc::clone(&client), layout.clone()),
            client,
            layout,
            limits: Limits::new(SHORTEST_TTL..=LONGEST_TTL, MOST_RECORD_BYTES),
            renewals: Mutex::default(),
        }
    }

    /// The renewals of a service, which its records share.
    fn renewals(&self, service: &ServiceName) -> Arc<Renewals> {
        let mut all = lock(&self.renewals);
        if let Some(renewals) = all.get(service).and_then(Weak::upgrade) {
            return renewals;
        }
        all.retain(|_, renewals| renewals.strong_count() > 0);
        let client = Arc::clone(&self.client);
        let renewals = Arc::new(Renewals::new(client, &self.layout, service));
        all.insert(service.clone(), Arc::downgrade(&renewals));
        renewals
    }
}

#[async_trait]
impl Registrar for RedisRegistrar {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn record_bytes(&self, record: &Instance) -> Result<usize> {
        Ok(encode("redis: register", record)?.len())
    }

    async fn register(
        &self,
        record: &Instance,
        attempt: &Attempt,
    ) -> Result<Box<dyn Registration>> {
        const OP: &str = "redis: register";
        let id = record.record_id();
        let renewals = self.renewals(&id.service);
        // A service that is listed and has no record is not shown, so the order does not matter.
        let noted = renewals.listing.ask(attempt.ttl);
        if let Verdict::Held(owner) = self.records.put(OP, record, attempt.ttl, false).await? {
            owner.check_writable(OP, &self.records.place(&id))?;
        }
        noted.within_bounds().await;
        Ok(Box::new(RedisRegistration {
            records: self.records.clone(),
            renewals,
            record: id,
            ttl: attempt.ttl,
        }))
    }

    async fn withdraw(&self, record: &RecordId) -> Result<()> {
        self.records
            .withdraw("redis: withdraw", record)
            .await
            .map(drop)
    }
}
