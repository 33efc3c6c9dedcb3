//! What the test files share: the agent that was asked for, names of one's own, and an operator beside the library.

#![allow(dead_code, reason = "each test file uses a part of this")]

pub(crate) mod election;
pub(crate) mod operator;

use std::future::Future;
use std::time::Duration;

use sd_consul::ConsulConfig;
use sd_core::testing::{ConsulProgram, ConsulServer, TcpProxy, required_env};
use sd_core::{
    Instance, RegisterOptions, RegistrationEvent, RegistrationGuard, Registry, ServiceName, State,
    Subscription,
};
use tokio::time::{Instant, timeout};

pub(crate) use self::operator::Operator;

/// Longer than anything takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// Short, but long enough for a busy machine.
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// How soon a registration must be back once the agent answers, by contract TTL/3 + 2 s, with two for a busy machine.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(5);

/// The agent that `cargo xtask test` started.
pub(crate) fn server() -> String {
    required_env("SD_TEST_CONSUL").unwrap()
}

/// An agent of one's own.
pub(crate) async fn own_server() -> ConsulServer {
    own_server_with(|program| program).await
}

/// An agent of one's own with these settings.
pub(crate) async fn own_server_with(
    edit: impl FnOnce(ConsulProgram) -> ConsulProgram,
) -> ConsulServer {
    let program = edit(ConsulProgram::from_env().unwrap());
    ConsulServer::launch(program).await.unwrap()
}

/// An agent of one's own behind a proxy, and the proxy's URL.
pub(crate) async fn own_server_behind_proxy() -> (ConsulServer, TcpProxy, String) {
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

pub(crate) fn ttl(ttl: Duration) -> RegisterOptions {
    RegisterOptions::default().with_ttl(ttl)
}

/// Waits until a subscription's state is as wanted.
pub(crate) async fn until(
    subscription: &mut Subscription,
    what: &str,
    wanted: impl Fn(&State) -> bool,
) -> State {
    let waiting = async {
        let mut state = subscription.state_and_mark_seen();
        while !wanted(&state) {
            state = subscription.changed().await.unwrap();
        }
        state
    };
    timeout(LONG, waiting)
        .await
        .unwrap_or_else(|_| panic!("not {what} within {LONG:?}: {:?}", subscription.state()))
}

pub(crate) fn is_live_with(count: usize) -> impl Fn(&State) -> bool {
    move |state| state.status().as_str() == "live" && state.snapshot().len() == count
}

pub(crate) fn is_stale(state: &State) -> bool {
    state.status().as_str() == "stale"
}

/// Waits for an event of this name, and returns all until then.
pub(crate) async fn event(guard: &mut RegistrationGuard, name: &str) -> Vec<RegistrationEvent> {
    let mut seen = Vec::new();
    let waiting = async {
        while let Some(event) = guard.next_event().await {
            let found = event.as_str() == name;
            seen.push(event);
            if found {
                return true;
            }
        }
        false
    };
    let found = timeout(LONG, waiting).await;
    assert_eq!(found, Ok(true), "no {name} event, but {seen:?}");
    seen
}

/// Asks again until it is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    limit: Duration,
    mut is_so: impl FnMut() -> F,
) -> Duration {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < limit, "not {what} within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}
