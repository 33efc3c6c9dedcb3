//! A server of one's own for the faults that every backend must survive.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use sd_core::{Backend, ServiceName};
use sd_etcd::{DEFAULT_PREFIX, EtcdBackend};
use sd_testing::ServerProcess;
use sd_testing::faults::FaultFixture;
use server_programs::{Etcd, LocalServer};

use super::{config_at, entries, own_server, raw};

pub(crate) struct OwnServer(ServerProcess<Etcd>);

impl OwnServer {
    pub(crate) async fn start() -> Self {
        Self(own_server().await)
    }
}

#[async_trait]
impl FaultFixture for OwnServer {
    type Program = Etcd;

    fn server(&mut self) -> &mut ServerProcess<Etcd> {
        &mut self.0
    }

    fn address(&self) -> SocketAddr {
        self.0.program().address()
    }

    fn backend(&self, address: SocketAddr) -> Arc<dyn Backend> {
        let config = config_at(&format!("http://{address}"), DEFAULT_PREFIX);
        Arc::new(EtcdBackend::new(config).unwrap())
    }

    async fn shown(&self, service: &ServiceName) -> usize {
        let mut raw = raw(&self.0.program().url()).await;
        let folder = format!("{DEFAULT_PREFIX}/{service}");
        entries(&mut raw, &folder).await.len()
    }

    async fn stored(&self, service: &ServiceName) -> Vec<String> {
        let mut raw = raw(&self.0.program().url()).await;
        let folder = format!("{DEFAULT_PREFIX}/{service}");
        let written = entries(&mut raw, &folder).await;
        let mut stored: Vec<_> = raw
            .leases()
            .await
            .unwrap()
            .leases()
            .iter()
            .map(|lease| lease.id().to_string())
            .collect();
        stored.extend(written.iter().map(|kv| kv.mod_revision().to_string()));
        stored
    }
}
