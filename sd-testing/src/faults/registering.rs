//! A registration and a reader while the server has trouble.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use sd_core::{ErrorKind, RegistrationEvent, Revision};
use tokio::time::{Instant, sleep, timeout};

use super::FaultFixture;
use super::stage::{Stage, instance, proxy, registry, unused_service};
use crate::{Direction, Fault, LONG, TcpProxy, event, eventually, is_live_with, until};

/// The short times-to-live that a registration lasts if it must not expire within a case.
const LASTING: u32 = 5;
/// On the way back: the attempt that is under way is given up, a connection, a request for each part of the record.
const STEPS: u32 = 8;

/// The outage is shorter than the time-to-live: nothing is written, and no reader sees the instance go.
pub async fn killed_and_restarted_with_its_data_nothing_flaps(mut fixture: impl FaultFixture) {
    let ttl = longer_than_an_outage(&mut fixture).await;
    let mut stage = Stage::open(direct(&fixture), ttl).await;
    let before = fixture.stored(&stage.service).await;
    fixture.server().kill().unwrap();
    stage.goes_stale().await;
    stage.told("at_risk").await;
    fixture.server().restart().await.unwrap();
    let events = stage.told("recovered").await;
    assert_eq!(events.len(), 1, "{events:?}");
    stage.is_live().await;
    assert_eq!(fixture.stored(&stage.service).await, before);
}

/// Returns the reader's positions from before and after.
pub async fn restarted_without_its_data_everything_is_there_again(
    mut fixture: impl FaultFixture,
) -> [Revision; 2] {
    let mut stage = Stage::open(direct(&fixture), fixture.ttl()).await;
    let before = stage.seen.state().snapshot().revision().clone();
    fixture.server().kill().unwrap();
    stage.goes_stale().await;
    fixture.server().restart_empty().await.unwrap();
    comes_back(&fixture, &mut stage).await;
    let after = stage.seen.state().snapshot().revision().clone();
    [before, after]
}

/// After the thaw the server may first accept a renewal and then still end the lease: the later state counts.
pub async fn frozen_for_longer_than_the_ttl_the_registration_is_back_soon(
    mut fixture: impl FaultFixture,
) {
    let mut stage = Stage::open(direct(&fixture), fixture.ttl()).await;
    fixture.server().freeze().unwrap();
    stage.goes_stale().await;
    sleep(fixture.ttl() * 2).await;
    fixture.server().thaw().unwrap();
    sleep(fixture.back_within()).await;
    assert_eq!(fixture.shown(&stage.service).await, 1);
    stage.is_live().await;
}

/// As when the server is killed, but on a connection that is cut and restored.
pub async fn cut_off_for_less_than_the_ttl_nothing_flaps(fixture: impl FaultFixture) {
    let (proxy, mut stage) = behind_proxy(&fixture, LASTING).await;
    let before = fixture.stored(&stage.service).await;
    proxy.set(Fault::Cut);
    stage.goes_stale().await;
    stage.told("at_risk").await;
    proxy.set(Fault::Pass);
    stage.told("recovered").await;
    stage.is_live().await;
    assert_eq!(fixture.stored(&stage.service).await, before);
}

/// Nothing arrives in either direction, and nothing is refused.
pub async fn in_a_black_hole_for_longer_than_the_ttl_the_registration_is_back_soon(
    fixture: impl FaultFixture,
) {
    let (proxy, mut stage) = behind_proxy(&fixture, 1).await;
    proxy.set(Fault::BlackHole);
    stage.goes_stale().await;
    let is_gone = || async { fixture.shown(&stage.service).await == 0 };
    eventually("expired", LONG, is_gone).await;
    proxy.set(Fault::Pass);
    comes_back(&fixture, &mut stage).await;
}

/// The kernel accepts what we send, and no answer comes.
pub async fn a_server_whose_answers_are_held_back_is_found_out(fixture: impl FaultFixture) {
    let (proxy, mut stage) = behind_proxy(&fixture, LASTING).await;
    proxy.set(Fault::Hold(Direction::ToClient));
    stage.goes_stale().await;
    proxy.set(Fault::Pass);
    stage.is_live().await;
}

/// Something else answers at the server's address for a while, a proxy for instance, and refuses every request as it stands. `refusing`
/// does that in the server's protocol.
pub async fn while_everything_is_refused_nothing_is_given_up(
    fixture: impl FaultFixture,
    refusing: SocketAddr,
) {
    let (proxy, mut stage) = behind_proxy(&fixture, 1).await;
    proxy.set_target(refusing);
    proxy.cut_connections();
    until(&mut stage.seen, "refused", |state| {
        let error = state.status().error();
        error.is_some_and(|error| error.kind() == ErrorKind::Rejected)
    })
    .await;
    assert_eq!(stage.seen.state().snapshot().len(), 1);
    stage.told("at_risk").await;
    let (service, ttl) = (stage.service.clone(), fixture.ttl());
    let refused = stage.registry.list(&service).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected, "{}", refused.report());
    let other = instance(&service, 2);
    let mut other = stage
        .registry
        .register(other)
        .ttl(ttl)
        .in_background()
        .unwrap();
    let events = event(&mut other, "retrying").await;
    assert!(
        matches!(events.last(), Some(RegistrationEvent::Retrying { error, .. }) if error.kind() == ErrorKind::Rejected),
        "{events:?}"
    );
    let refused = stage
        .registry
        .register(instance(&service, 3))
        .ttl(ttl)
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected, "{}", refused.report());
    let is_gone = || async { fixture.shown(&service).await == 0 };
    eventually("expired", LONG, is_gone).await;

    proxy.set_target(fixture.address());
    proxy.cut_connections();
    event(&mut other, "registered").await;
    until(&mut stage.seen, "followed again", is_live_with(2)).await;
}

/// Neither a subscription nor a registration in the background waits for a server.
pub async fn a_registry_that_is_down_at_the_start_delays_no_caller(mut fixture: impl FaultFixture) {
    fixture.server().kill().unwrap();
    let since = Instant::now();
    let service = unused_service();
    let registry = direct(&fixture);
    let mut seen = registry.subscribe(&service).unwrap();
    let ttl = fixture.ttl();
    let mut guard = registry
        .register(instance(&service, 1))
        .ttl(ttl)
        .in_background()
        .unwrap();
    assert!(since.elapsed() < Duration::from_secs(1));
    let state = until(&mut seen, "explained", |state| {
        state.status().error().is_some()
    })
    .await;
    assert_eq!(state.status().as_str(), "initializing");

    fixture.server().restart().await.unwrap();
    let since = Instant::now();
    event(&mut guard, "registered").await;
    let took = since.elapsed();
    assert!(took < fixture.back_within(), "registered after {took:?}");
    until(&mut seen, "there", is_live_with(1)).await;
}

/// Without a goodbye: no record, lease, task or socket is left, even after trouble that made us reconnect.
pub async fn dropping_everything_leaves_nothing(fixture: impl FaultFixture) {
    let tasks = || {
        let runtime = tokio::runtime::Handle::current();
        runtime.metrics().num_alive_tasks()
    };
    let proxy = proxy(&fixture).await;
    let before = tasks();
    let nothing = fixture.stored(&unused_service()).await;
    let mut stage = Stage::open(registry(&fixture, proxy.address()), fixture.ttl() * 10).await;
    let service = stage.service.clone();
    let something = fixture.stored(&service).await;
    assert_ne!(something, nothing);
    proxy.cut_connections();
    stage.goes_stale().await;
    stage.is_live().await;
    assert_eq!(fixture.stored(&service).await, something);
    drop(stage);
    let limit = Duration::from_secs(2);
    let closed = timeout(limit, proxy.counted(|counts| counts.open == 0)).await;
    closed.expect("a socket is left");
    assert_eq!(fixture.stored(&service).await, nothing);
    eventually("all tasks ended", limit, || async { tasks() == before }).await;
}

pub(super) fn direct(fixture: &impl FaultFixture) -> sd_core::Registry {
    registry(fixture, fixture.address())
}

/// A stage behind a proxy, with a registration that lasts this many short times-to-live.
async fn behind_proxy(fixture: &impl FaultFixture, ttls: u32) -> (TcpProxy, Stage) {
    let proxy = proxy(fixture).await;
    let stage = Stage::open(registry(fixture, proxy.address()), fixture.ttl() * ttls).await;
    (proxy, stage)
}

/// A time-to-live that outlasts a restart of the server: several times what a restart takes on this machine now, however busy it is.
pub(super) async fn longer_than_an_outage(fixture: &mut impl FaultFixture) -> Duration {
    let since = Instant::now();
    fixture.server().restart().await.unwrap();
    // A third of it passes until a renewal is due and fails.
    (fixture.ttl() * LASTING).max(since.elapsed() * 6)
}

/// From now on, the instance is soon shown to others again, and the reader recovers by itself. Each step on the way back may take as long
/// as the slowest question whether it is back, which is next to nothing on an idle machine.
async fn comes_back(fixture: &impl FaultFixture, stage: &mut Stage) {
    let service = &stage.service;
    let slowest = Cell::new(Duration::ZERO);
    let is_back = || async {
        let asked = Instant::now();
        let shown = fixture.shown(service).await;
        slowest.set(slowest.get().max(asked.elapsed()));
        shown == 1
    };
    let took = eventually("registered again", LONG, is_back).await;
    let (promised, slowest) = (fixture.back_within(), slowest.get());
    assert!(
        took < promised + slowest * STEPS,
        "registered again after {took:?}, where {promised:?} are promised and a question takes {slowest:?}"
    );
    stage.is_live().await;
}
