//! What operators say of records, as owners and readers see it through the whole stack.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use sd_core::combine::Static;
use sd_core::memory::Memory;
use sd_core::{
    ErrorKind, Instance, Override, RecordId, RegistrationEvent, RegistrationGuard,
    RegistrationPhase, Registry,
};
use sd_testing::{event, is_live_with, until};

const TTL: Duration = Duration::from_secs(3);

fn instance(port: u16) -> Instance {
    Instance::new("greeter", format!("10.0.0.1:{port}")).unwrap()
}

/// A registration that has begun, and an operator at another client.
async fn registered(memory: &Memory) -> (RegistrationGuard, Registry) {
    let register = memory.connect().register(instance(1)).ttl(TTL);
    let mut guard = register.await.unwrap();
    event(&mut guard, "registered").await;
    (guard, memory.connect())
}

async fn listed(registry: &Registry) -> Arc<Instance> {
    Arc::clone(&registry.list("greeter").await.unwrap().instances()[0])
}

#[tokio::test(start_paused = true)]
async fn the_owner_is_told_of_an_override_once_and_does_not_write_it_away() {
    let memory = Memory::new();
    let (mut guard, operator) = registered(&memory).await;
    let record = guard.record_id().clone();
    operator
        .set_override(&record, Override::Draining)
        .await
        .unwrap();
    assert_eq!(guard.overridden(), None);
    let events = event(&mut guard, "overridden").await;
    let [RegistrationEvent::Overridden(Override::Draining)] = events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(guard.overridden(), Some(Override::Draining));
    assert_eq!(guard.phase(), RegistrationPhase::Registered);

    guard.set_ready(false).await.unwrap();
    let ready = guard.update(|instance| instance.with_ready(true).with_weight(7));
    ready.await.unwrap();
    // Several renewals later it still is as the operator says.
    tokio::time::sleep(TTL * 3).await;
    let seen = listed(&operator).await;
    assert_eq!(
        (seen.overridden(), seen.is_ready(), seen.weight()),
        (Some(Override::Draining), false, 7)
    );
    assert!(guard.instance().is_ready());
    assert_eq!(guard.instance().overridden(), None);

    operator.clear_override(&record).await.unwrap();
    let events = event(&mut guard, "override_cleared").await;
    let names: Vec<_> = events.iter().map(RegistrationEvent::as_str).collect();
    assert_eq!(names, ["updated", "updated", "override_cleared"]);
    assert_eq!(guard.overridden(), None);
    assert!(listed(&operator).await.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_living_owner_brings_its_record_back_as_it_says_itself() {
    let memory = Memory::new();
    let (mut guard, operator) = registered(&memory).await;
    let record = guard.record_id().clone();
    let drain = operator.set_override(&record, Override::Draining);
    drain.await.unwrap();
    event(&mut guard, "overridden").await;
    operator.remove_record(&record).await.unwrap();
    let gone = operator.remove_record(&record).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{}", gone.report());
    event(&mut guard, "lost").await;
    assert_eq!(guard.overridden(), None);
    event(&mut guard, "registered").await;
    let back = listed(&operator).await;
    assert_eq!((back.overridden(), back.is_ready()), (None, true));
}

/// Unless it is drained as the operator asks: it finishes, and leaves by itself.
#[tokio::test(start_paused = true)]
async fn an_owner_that_heeds_a_drain_is_gone_for_good() {
    let memory = Memory::new();
    let (mut guard, operator) = registered(&memory).await;
    let drain = operator.set_override(guard.record_id(), Override::Draining);
    drain.await.unwrap();
    while let Some(told) = guard.next_event().await {
        if matches!(told, RegistrationEvent::Overridden(Override::Draining)) {
            break;
        }
    }
    guard.drain(Duration::from_secs(1)).await.unwrap();
    tokio::time::sleep(TTL * 3).await;
    assert!(operator.list("greeter").await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_drains_or_removes_is_never_held() {
    for drains in [true, false] {
        let memory = Memory::new();
        let owner = memory.connect();
        let mut guards = Vec::new();
        for port in 1..=4 {
            guards.push(owner.register(instance(port)).ttl(TTL).await.unwrap());
        }
        let operator = memory.connect();
        let mut seen = operator.subscribe("greeter").unwrap();
        until(&mut seen, "there", is_live_with(4)).await;
        let ids: Vec<RecordId> = guards[1..]
            .iter()
            .map(|guard| guard.record_id().clone())
            .collect();
        for id in &ids {
            if drains {
                operator.set_override(id, Override::Draining).await.unwrap();
            } else {
                operator.remove_record(id).await.unwrap();
            }
        }
        if drains {
            let drained = |state: &sd_core::State| {
                let all = state.snapshot().instances();
                all.iter().filter(|one| !one.is_ready()).count() == 3
            };
            until(&mut seen, "drained", drained).await;
            for id in &ids {
                assert!(memory.operator().remove(id));
            }
        }
        let state = until(&mut seen, "gone", is_live_with(1)).await;
        assert!(state.snapshot().held().is_empty(), "{state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_was_read_with_an_override_is_registered_without_it() {
    let memory = Memory::new();
    let (guard, operator) = registered(&memory).await;
    let drain = operator.set_override(guard.record_id(), Override::Draining);
    drain.await.unwrap();
    let read = listed(&operator).await.as_ref().clone();
    let mirror = Memory::new().connect();
    let mirrored = mirror.register(read.clone()).await.unwrap();
    let same = mirrored.update(move |_| read);
    same.await.unwrap();
    let there = listed(&mirror).await;
    assert_eq!((there.overridden(), there.is_ready()), (None, false));
}

#[tokio::test]
async fn a_registry_that_cannot_override_says_what_to_do_instead() {
    let record = instance(1).record_id();
    let file = Registry::reading(Arc::new(Static::new([]).unwrap()));
    let refused = [
        file.set_override(&record, Override::Draining).await,
        file.clear_override(&record).await,
        file.remove_record(&record).await,
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let report = error.report().to_string();
        assert!(report.contains("where it comes from"), "{report}");
    }
    let memory = Memory::new().connect();
    memory.close().await.unwrap();
    let closed = memory.clear_override(&record).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closed);
}
