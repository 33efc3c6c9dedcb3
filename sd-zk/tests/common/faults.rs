//! A server of one's own for the faults that every backend must survive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::{Backend, ServiceName};
use sd_testing::ServerProcess;
use sd_testing::faults::FaultFixture;
use sd_zk::{DEFAULT_PREFIX, ZkBackend};
use server_programs::{LocalServer, ZooKeeper};
use zookeeper_client as zk;

use super::{TTL, close, config_at, own_server, raw};

pub(crate) struct OwnServer {
    server: ServerProcess<ZooKeeper>,
    session_timeout: Duration,
}

impl OwnServer {
    /// With sessions that end soon.
    pub(crate) async fn start() -> Self {
        Self {
            server: own_server().await,
            session_timeout: TTL,
        }
    }

    /// With sessions that outlast a restart of the server on a busy machine.
    pub(crate) async fn with_long_sessions() -> Self {
        Self::with_sessions(TTL * 5).await
    }

    /// With sessions of this time-out.
    pub(crate) async fn with_sessions(session_timeout: Duration) -> Self {
        Self {
            session_timeout,
            ..Self::start().await
        }
    }

    async fn nodes(&self, raw: &zk::Client, service: &ServiceName) -> Vec<zk::Stat> {
        let folder = format!("{DEFAULT_PREFIX}/{service}");
        let mut stats = Vec::new();
        for node in raw.list_children(&folder).await.unwrap_or_default() {
            let stat = raw.check_stat(&format!("{folder}/{node}")).await.unwrap();
            stats.extend(stat);
        }
        stats
    }
}

#[async_trait]
impl FaultFixture for OwnServer {
    type Program = ZooKeeper;

    fn server(&mut self) -> &mut ServerProcess<ZooKeeper> {
        &mut self.server
    }

    fn address(&self) -> SocketAddr {
        self.server.program().address()
    }

    fn backend(&self, address: SocketAddr) -> Arc<dyn Backend> {
        let config = config_at(&address.to_string(), DEFAULT_PREFIX)
            .with_session_timeout(self.session_timeout)
            .with_request_timeout(Duration::from_secs(2));
        Arc::new(ZkBackend::new(config).unwrap())
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    async fn shown(&self, service: &ServiceName) -> usize {
        let raw = raw(&self.server.program().url()).await;
        let nodes = self.nodes(&raw, service).await;
        close(raw).await;
        nodes.len()
    }

    /// The records, each with its session.
    async fn stored(&self, service: &ServiceName) -> Vec<String> {
        let raw = raw(&self.server.program().url()).await;
        let nodes = self.nodes(&raw, service).await;
        close(raw).await;
        let stored = nodes
            .iter()
            .map(|stat| format!("{} {:#x}", stat.mzxid, stat.ephemeral_owner));
        stored.collect()
    }
}
