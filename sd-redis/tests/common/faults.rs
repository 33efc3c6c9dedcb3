//! A server of one's own for the faults that every backend must survive.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use sd_core::{Backend, ServiceName};
use sd_redis::{DEFAULT_PREFIX, RedisBackend};
use sd_testing::ServerProcess;
use sd_testing::faults::FaultFixture;
use server_programs::{LocalServer, Redis};

use super::{Operator, config_at, own_server_with};

pub(crate) struct OwnServer(ServerProcess<Redis>);

impl OwnServer {
    /// One that has every write on its disk before it confirms it.
    pub(crate) async fn start() -> Self {
        Self(own_server_with(|program| program.with_config("appendfsync always")).await)
    }
}

#[async_trait]
impl FaultFixture for OwnServer {
    type Program = Redis;

    fn server(&mut self) -> &mut ServerProcess<Redis> {
        &mut self.0
    }

    fn address(&self) -> SocketAddr {
        self.0.program().address()
    }

    fn backend(&self, address: SocketAddr) -> Arc<dyn Backend> {
        let config = config_at(&format!("redis://{address}"), DEFAULT_PREFIX);
        Arc::new(RedisBackend::new(config).unwrap())
    }

    async fn shown(&self, service: &ServiceName) -> usize {
        self.stored(service).await.len()
    }

    /// Each says when it was made. The mark of one that was withdrawn stays for some time, and is none of these.
    async fn stored(&self, service: &ServiceName) -> Vec<String> {
        let operator = Operator::at(&self.0.program().url()).await;
        operator.records(DEFAULT_PREFIX, service.as_str()).await
    }
}
