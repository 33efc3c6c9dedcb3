//! What becomes of an override when the server or the owner has trouble.

use std::time::Duration;

use sd_core::port::Attempt;
use sd_core::{ErrorKind, Incarnation, Override, State};

use super::FaultFixture;
use super::registering::{direct, longer_than_an_outage};
use super::stage::{Stage, instance, unused_service};
use crate::{LONG, eventually, until};

/// A stage whose instance is drained, as its reader sees and its owner was told.
async fn drained(fixture: &impl FaultFixture, ttl: Duration) -> Stage {
    let mut stage = Stage::open(direct(fixture), ttl).await;
    let record = stage.guard.record_id().clone();
    let drain = stage.registry.set_override(&record, Override::Draining);
    drain.await.unwrap();
    until(
        &mut stage.seen,
        "drained",
        is_said(Some(Override::Draining)),
    )
    .await;
    stage.told("overridden").await;
    stage
}

/// For [`until`]: the source is followed, and what an operator says of the one instance is this.
fn is_said(said: Option<Override>) -> impl Fn(&State) -> bool {
    move |state| {
        let all = state.snapshot().instances();
        state.status().as_str() == "live" && all.len() == 1 && all[0].overridden() == said
    }
}

/// The override stays where the record does, and the owner does not write it away when it recovers.
pub async fn killed_and_restarted_with_its_data_an_override_stays(mut fixture: impl FaultFixture) {
    let ttl = longer_than_an_outage(&mut fixture).await;
    let mut stage = drained(&fixture, ttl).await;
    fixture.server().kill().unwrap();
    stage.goes_stale().await;
    stage.told("at_risk").await;
    fixture.server().restart().await.unwrap();
    stage.told("recovered").await;
    until(
        &mut stage.seen,
        "drained",
        is_said(Some(Override::Draining)),
    )
    .await;
    assert_eq!(stage.guard.overridden(), Some(Override::Draining));
}

/// The record is another one, which is as its owner says.
pub async fn restarted_without_its_data_a_record_is_back_without_its_override(
    mut fixture: impl FaultFixture,
) {
    let mut stage = drained(&fixture, fixture.ttl()).await;
    fixture.server().kill().unwrap();
    stage.goes_stale().await;
    fixture.server().restart_empty().await.unwrap();
    stage.told("registered").await;
    until(&mut stage.seen, "as it was", is_said(None)).await;
    assert_eq!(stage.guard.overridden(), None);
    assert!(stage.guard.instance().is_ready());
}

/// The owner is gone without a goodbye. The override ends with its record, so that the next run under the id is not drained.
pub async fn an_owner_that_is_killed_leaves_no_override_behind(fixture: impl FaultFixture) {
    let registrar = fixture.backend(fixture.address()).registrar().unwrap();
    let service = unused_service();
    let crashed = instance(&service, 1);
    let attempt = Attempt::new(fixture.ttl());
    let held = registrar.register(&crashed, &attempt).await.unwrap();
    let (operator, record) = (direct(&fixture), crashed.record_id());
    let drain = operator.set_override(&record, Override::Draining);
    drain.await.unwrap();
    drop(held);
    let is_gone = || async {
        operator
            .list(&service)
            .await
            .is_ok_and(|set| set.is_empty())
    };
    eventually("expired", fixture.ttl() + LONG, is_gone).await;
    let gone = operator.set_override(&record, Override::Draining).await;
    let gone = gone.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{}", gone.report());
    let next = crashed.with_incarnation(Incarnation::random());
    let guard = operator.register(next.clone()).ttl(fixture.ttl());
    let guard = guard.await.unwrap();
    let set = operator.list(&service).await.unwrap();
    assert_eq!(*set.instances()[0], next);
    guard.deregister().await.unwrap();
}
