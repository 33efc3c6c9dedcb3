//! An agent of one's own for the faults that every backend must survive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_consul::ConsulBackend;
use sd_core::{Backend, ServiceName};
use sd_testing::ServerProcess;
use sd_testing::faults::FaultFixture;
use serde_json::Value;
use server_programs::{Consul, LocalServer};

use super::{BACK_WITHIN, Operator, config_at, own_server};

pub(crate) struct OwnAgent(ServerProcess<Consul>);

impl OwnAgent {
    pub(crate) async fn start() -> Self {
        Self(own_server().await)
    }

    fn operator(&self) -> Operator {
        Operator::at(&self.0.program().url())
    }
}

#[async_trait]
impl FaultFixture for OwnAgent {
    type Program = Consul;

    fn server(&mut self) -> &mut ServerProcess<Consul> {
        &mut self.0
    }

    fn address(&self) -> SocketAddr {
        self.0.program().address()
    }

    fn backend(&self, address: SocketAddr) -> Arc<dyn Backend> {
        let config = config_at(&format!("http://{address}"));
        Arc::new(ConsulBackend::new(config).unwrap())
    }

    async fn shown(&self, service: &ServiceName) -> usize {
        self.operator().passing(service).await.len()
    }

    async fn stored(&self, service: &ServiceName) -> Vec<String> {
        let mut written = Vec::new();
        for entry in self.operator().entries(service).await {
            let index = |value: &Value| value["ModifyIndex"].to_string();
            let checks = entry["Checks"].as_array().unwrap().iter();
            // The others are the node's.
            let checks = checks.filter(|check| check["ServiceID"] != "");
            written.push(index(&entry["Service"]));
            written.extend(checks.map(index));
        }
        written
    }

    fn back_within(&self) -> Duration {
        BACK_WITHIN
    }
}
