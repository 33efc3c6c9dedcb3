//! The cases that every backend must pass, over the config service of this crate.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Cluster, config_at};
use sd_cluster::{ClusterBackend, ClusterConfig};
use sd_core::port::{AnyElector, Attempt, Limits, Registration, ServicesWatcher, async_trait};
use sd_core::sync::lock;
use sd_core::{
    Backend, Instance, Instancer, RecordId, Registrar, Result, ServiceList, ServiceName, Snapshot,
    Watcher,
};
use sd_testing::{Ability, Fixture, TcpProxy, reading, writing};

/// In the cases of reading, nothing keeps a record whose connection a busy machine takes for silent.
const LONG: Duration = Duration::from_secs(5);
/// Cases of writing wait for the end of a time-to-live.
const SHORT: Duration = Duration::from_secs(1);

/// A cluster of its own, and its clients, each of which can be cut off.
struct Stage {
    cluster: Cluster,
    ping: Duration,
    routes: bool,
    clients: Mutex<Vec<Arc<Client>>>,
}

impl Stage {
    async fn new(ping: Duration, routes: bool) -> Self {
        Self {
            cluster: Cluster::with_ping(ping).await,
            ping,
            routes,
            clients: Mutex::default(),
        }
    }
}

/// A client that remembers what it has registered: the service does not know whose a connection is.
#[derive(Debug)]
struct Client {
    backend: Arc<ClusterBackend>,
    proxy: TcpProxy,
    records: Mutex<HashSet<RecordId>>,
}

#[async_trait]
impl Instancer for Client {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.backend.services().await
    }

    async fn list_services(&self) -> Result<ServiceList> {
        self.backend.list_services().await
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        self.backend.watch_services().await
    }

    fn tells_withdrawals(&self) -> bool {
        self.backend.tells_withdrawals()
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        self.backend.list(service).await
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        self.backend.watch(service, known).await
    }
}

#[async_trait]
impl Backend for Client {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        let inner = Arc::clone(&self.backend).registrar()?;
        Some(Arc::new(Remembering {
            inner,
            client: self,
        }))
    }

    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        Arc::clone(&self.backend).elector()
    }

    async fn close(&self) -> Result<()> {
        self.backend.close().await
    }
}

#[derive(Debug)]
struct Remembering {
    inner: Arc<dyn Registrar>,
    client: Arc<Client>,
}

#[async_trait]
impl Registrar for Remembering {
    fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    fn record_bytes(&self, record: &Instance) -> Result<usize> {
        self.inner.record_bytes(record)
    }

    async fn register(
        &self,
        record: &Instance,
        attempt: &Attempt,
    ) -> Result<Box<dyn Registration>> {
        lock(&self.client.records).insert(record.record_id());
        self.inner.register(record, attempt).await
    }

    async fn withdraw(&self, record: &RecordId) -> Result<()> {
        self.inner.withdraw(record).await
    }

    fn abandoned(&self, record: &RecordId) {
        self.inner.abandoned(record);
    }

    async fn release(&self, record: &RecordId) -> Result<()> {
        self.inner.release(record).await
    }
}

#[async_trait]
impl Fixture for Stage {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        let proxy = TcpProxy::start(self.cluster.address).await?;
        let config: ClusterConfig = config_at(proxy.address())
            .with_ping_interval(self.ping)
            .with_allow_ipv6(true)
            .with_routes(self.routes);
        let client = Arc::new(Client {
            backend: Arc::new(ClusterBackend::new(config)?),
            proxy,
            records: Mutex::default(),
        });
        lock(&self.clients).push(Arc::clone(&client));
        Ok(client)
    }

    fn lacks(&self) -> Vec<Ability> {
        let mut lacks = vec![
            Ability::Ids,
            Ability::Metadata,
            Ability::UniqueIds,
            Ability::RunOrder,
            Ability::Withdrawals,
            Ability::UnreadableEntries,
            Ability::Removal,
            Ability::Release,
            Ability::Operators,
            Ability::ReadyOverrides,
            Ability::Leases,
            Ability::PermanentRecords,
        ];
        if !self.routes {
            lacks.push(Ability::Services);
        }
        lacks
    }

    fn ttl(&self) -> Duration {
        self.ping * 3
    }

    /// A change is told when it is made, and read by the next one who is asked.
    fn visible_within(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Each is a connection.
    fn big_set(&self) -> usize {
        100
    }

    async fn expire(&self, record: &RecordId) -> Result<()> {
        for client in lock(&self.clients).iter() {
            if lock(&client.records).contains(record) {
                client.proxy.cut_connections();
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_all_reading_cases() {
    reading::run_all(&Stage::new(LONG, false).await)
        .await
        .expect_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_all_reading_cases_with_routes() {
    reading::run_all(&Stage::new(LONG, true).await)
        .await
        .expect_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_all_writing_cases() {
    writing::run_all(&Stage::new(SHORT, false).await)
        .await
        .expect_passed();
}
