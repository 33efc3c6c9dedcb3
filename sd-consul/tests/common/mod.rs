//! What the test files share: the agent that was asked for, names of one's own, and an operator beside the library.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test file uses a part of this"
)]

pub(crate) mod election;
pub(crate) mod faults;
pub(crate) mod operator;

use std::time::Duration;

use sd_consul::ConsulConfig;
use sd_core::{Instance, Registry, ServiceName};
pub(crate) use sd_testing::{LONG, event, eventually, is_live_with, is_stale, until};
use sd_testing::{ServerProcess, TcpProxy, required_env};
use server_programs::{Consul, LocalServer};

pub(crate) use self::operator::Operator;

/// Short, but long enough for a busy machine.
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// How soon a registration must be back once the agent answers, by contract TTL/3 + 2 s, with two for a busy machine.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(5);

/// The agent that `cargo xtask test` started.
pub(crate) fn server() -> String {
    required_env("SD_TEST_CONSUL").unwrap()
}

/// An agent of one's own.
pub(crate) async fn own_server() -> ServerProcess<Consul> {
    own_server_with(|program| program).await
}

/// An agent of one's own with these settings.
pub(crate) async fn own_server_with(edit: impl FnOnce(Consul) -> Consul) -> ServerProcess<Consul> {
    let program = edit(Consul::from_env().unwrap());
    ServerProcess::launch(program).await.unwrap()
}

/// An agent of one's own behind a proxy, and the proxy's URL.
pub(crate) async fn own_server_behind_proxy() -> (ServerProcess<Consul>, TcpProxy, String) {
    let server = own_server().await;
    let proxy = TcpProxy::start(server.program().address()).await.unwrap();
    let url = format!("http://{}", proxy.address());
    (server, proxy, url)
}

/// Notices a dead agent soon.
pub(crate) fn config_at(url: &str) -> ConsulConfig {
    ConsulConfig::new([url])
        .with_wait(Duration::from_secs(3))
        .with_request_timeout(Duration::from_secs(2))
        .with_ttl(TTL)
}

pub(crate) fn registry_at(url: &str) -> Registry {
    sd_consul::connect(config_at(url)).unwrap()
}

/// The name of a service that no other test uses.
pub(crate) fn service() -> ServiceName {
    ServiceName::new(format!("sd-test-{:016x}", fastrand::u64(..))).unwrap()
}

pub(crate) fn instance(service: &ServiceName, port: u16) -> Instance {
    Instance::new(service, format!("10.0.0.1:{port}")).unwrap()
}
