//! Reading: the services, one service once, and the feed of one service.

use async_trait::async_trait;
use sd_core::port::ServicesWatcher;
use sd_core::{Error, ErrorKind, Instancer, Result, ServiceList, ServiceName, Snapshot, Watcher};
use tokio::time::timeout;

use crate::backend::ClusterBackend;
use crate::client::SharedSession;
use crate::client::newest::{Told, Topic};
use crate::codec::names::check_module;
use crate::reading::service_set::{set, topic};
use crate::reading::services_watcher::{ClusterServicesWatcher, services_of};
use crate::reading::watcher::ClusterWatcher;

impl ClusterBackend {
    /// What the service says of a topic when it is asked now. From then on it tells each change in this session.
    async fn ask(&self, op: &'static str, topic: &Topic) -> Result<(SharedSession, Told)> {
        let session = self.client.session(op).await?;
        let limit = self.client.config().handshake_timeout;
        let asking = async {
            let mut newest = session.newest.follow(topic.clone());
            let before = session.require(op, topic).await?;
            session.wait_for(op, &mut newest, before).await
        };
        let asked = self.client.signal.unless_closed(op, async {
            match timeout(limit, asking).await {
                Ok(told) => told,
                Err(_) => Err(not_told(op, limit)),
            }
        });
        let told = asked.await?;
        Ok((session, told))
    }

    fn check_lists(&self, op: &'static str) -> Result<()> {
        self.client.signal.check_open(op)?;
        if self.client.config().routes {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unsupported, op).because(
            "a config service lists modules in the routes alone: set routes, or name the service",
        ))
    }
}

/// The error of a service that does not tell what it was asked for.
pub(crate) fn not_told(op: &'static str, limit: std::time::Duration) -> Error {
    Error::new(ErrorKind::Timeout, op).because(format!(
        "the service took the question, and told nothing within {limit:?}"
    ))
}

#[async_trait]
impl Instancer for ClusterBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(self.list_services().await?.services)
    }

    async fn list_services(&self) -> Result<ServiceList> {
        const OP: &str = "cluster: list services";
        self.check_lists(OP)?;
        self.keep();
        let (session, told) = self.ask(OP, &Topic::Routes).await?;
        Ok(services_of(&session.routes(OP, &told).await?))
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        const OP: &str = "cluster: watch services";
        self.check_lists(OP)?;
        self.keep();
        let watcher = ClusterServicesWatcher::open(OP, &self.client).await?;
        Ok(Some(Box::new(watcher)))
    }

    /// A module that leaves just goes, as one that crashes.
    fn tells_withdrawals(&self) -> bool {
        false
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        const OP: &str = "cluster: list service";
        check_module(OP, service)?;
        self.keep();
        let topic = topic(self.client.config(), service);
        let (session, told) = self.ask(OP, &topic).await?;
        set(OP, &session, &topic, service, &told).await
    }

    async fn watch(
        &self,
        service: &ServiceName,
        _known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        const OP: &str = "cluster: watch service";
        check_module(OP, service)?;
        self.keep();
        let topic = topic(self.client.config(), service);
        let watcher = ClusterWatcher::open(OP, &self.client, service, topic).await?;
        Ok(Box::new(watcher))
    }
}
