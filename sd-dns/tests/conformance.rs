//! The cases that every reading backend must pass, over the zone of a real server. A registrar that only this test has writes the
//! records that the cases ask for: DNS itself has none.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::HashMap;
use std::future::pending;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::SHORTEST;
use common::zone::{Zone, srv};
use hickory_resolver::proto::rr::Record;
use sd_core::clock::BootClock;
use sd_core::port::{
    AnyElector, Attempt, Limits, Liveness, Registration, Renewed, ServicesWatcher, async_trait,
};
use sd_core::{
    Address, Backend, Error, Instance, Instancer, RecordId, Registrar, Result, ServiceName,
    Snapshot, Watcher,
};
use sd_dns::{DnsBackend, DnsConfig};
use sd_testing::{Ability, Fixture, reading};

/// Between reads, so that the cases need not wait for seconds. That a time-to-live is kept is shown in `faults.rs`.
const LONGEST: Duration = Duration::from_secs(2);
const TTL: u32 = 0;

/// A domain of its own in the zone, and which records were written for which record of ours.
#[derive(Debug)]
struct Records {
    zone: Zone,
    written: Mutex<HashMap<RecordId, Vec<Record>>>,
    limits: Limits,
}

impl Records {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            zone: Zone::shared(),
            written: Mutex::default(),
            limits: Limits::new(Duration::from_secs(1)..=Duration::from_secs(3600), 1 << 16),
        })
    }
}

/// What reads as DNS does, and writes as the zone's operator does.
#[derive(Debug)]
struct WithRegistrar {
    reader: DnsBackend,
    records: Arc<Records>,
}

#[async_trait]
impl Instancer for WithRegistrar {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.reader.services().await
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        self.reader.watch_services().await
    }

    fn tells_withdrawals(&self) -> bool {
        self.reader.tells_withdrawals()
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        self.reader.list(service).await
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        self.reader.watch(service, known).await
    }
}

#[async_trait]
impl Backend for WithRegistrar {
    fn name(&self) -> &'static str {
        self.reader.name()
    }

    async fn check(&self) -> Result<()> {
        self.reader.check().await
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        Some(Arc::new(ZoneRegistrar(Arc::clone(&self.records))))
    }

    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        None
    }

    async fn close(&self) -> Result<()> {
        self.reader.close().await
    }
}

#[derive(Debug)]
struct ZoneRegistrar(Arc<Records>);

#[async_trait]
impl Registrar for ZoneRegistrar {
    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    fn record_bytes(&self, _record: &Instance) -> Result<usize> {
        Ok(1)
    }

    async fn register(&self, record: &Instance, _: &Attempt) -> Result<Box<dyn Registration>> {
        let Address::Tcp { host, port } = record.endpoint().address() else {
            return Err(Error::invalid_input("register", "DNS knows no sockets"));
        };
        let zone = &self.0.zone;
        let address: IpAddr = host.parse().unwrap();
        let target = zone.name(&format!("h-{}", host.replace(['.', ':'], "-")));
        let data = srv(0, 1, port, &target);
        let service = record.service().as_str();
        let added = vec![
            Record::from_rdata(target, TTL, address.into()),
            Record::from_rdata(zone.name(service), TTL, data.clone()),
        ];
        zone.update(added).await?;
        let removal = vec![zone.removal(service, &data)];
        let mut written = self.0.written.lock().unwrap();
        written.insert(record.record_id(), removal);
        Ok(Box::new(Written))
    }

    async fn withdraw(&self, record: &RecordId) -> Result<()> {
        let removal = self.0.written.lock().unwrap().remove(record);
        self.0.zone.update(removal.unwrap_or_default()).await
    }
}

/// It stays until it is withdrawn.
#[derive(Debug)]
struct Written;

#[async_trait]
impl Registration for Written {
    fn liveness(&self) -> Liveness {
        Liveness::Permanent {
            verify_every: Duration::from_secs(3600),
        }
    }

    async fn renew(&self) -> Result<Renewed> {
        Ok(Renewed::new(self.liveness()))
    }

    async fn update(&self, _record: &Instance) -> Result<()> {
        Ok(())
    }

    async fn lost(&self) -> Error {
        pending().await
    }
}

struct Domain(Arc<Records>);

#[async_trait]
impl Fixture for Domain {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        let zone = &self.0.zone;
        let config = DnsConfig::srv()
            .with_resolvers([zone.server.to_string()])
            .with_domain(&zone.domain)
            .with_intervals(SHORTEST, LONGEST);
        Ok(Arc::new(WithRegistrar {
            reader: DnsBackend::with_clock(config, Arc::new(BootClock))?,
            records: Arc::clone(&self.0),
        }))
    }

    fn lacks(&self) -> Vec<Ability> {
        vec![
            Ability::Ids,
            Ability::Metadata,
            Ability::UniqueIds,
            Ability::UpdateInPlace,
            Ability::RunOrder,
            Ability::Services,
            Ability::Withdrawals,
            Ability::Removal,
            Ability::Release,
            Ability::Operators,
            Ability::ReadyOverrides,
            Ability::Expiry,
            Ability::Leases,
            Ability::Sessions,
            Ability::FairElections,
            Ability::StrictElections,
        ]
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn write_garbage(&self, service: &ServiceName) -> Result<()> {
        let zone = &self.0.zone;
        let nowhere = zone.name("nowhere");
        let record = Record::from_rdata(zone.name(service.as_str()), TTL, srv(0, 1, 80, &nowhere));
        zone.update(vec![record]).await
    }
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn passes_all_reading_cases() {
    let domain = Domain(Records::new());
    reading::run_all(&domain).await.expect_passed();
}
