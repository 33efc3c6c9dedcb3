//! What happens when the server dies, freezes, forgets or is cut off, through the whole stack and over a real etcd.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::faults::OwnServer;
use common::refusing::Refusing;
use common::{
    LONG, TTL, event, eventually, instance, is_live_with, keys, own_server_behind_proxy, raw,
    registry_at, revision, until,
};
use etcd_client::{Client, PutOptions};
use sd_core::{ErrorKind, Instance, Override, RegistrationEvent, RegistrationPhase};
use sd_etcd::DEFAULT_PREFIX;
use sd_testing::faults::{self, Stage};
use sd_testing::{Fault, ServerProcess};
use server_programs::{Etcd, LocalServer};

/// What the smallest database of a test may grow to, in bytes.
const QUOTA: usize = 16 << 20;

/// For records that nothing renews until the next client comes.
const LEFT_TTL: Duration = Duration::from_secs(5);

/// Another instance than that of the stage.
fn another(stage: &Stage, port: u16) -> Instance {
    Instance::new(&stage.service, format!("10.0.0.1:{port}")).unwrap()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn killed_and_restarted_with_its_data_nothing_flaps() {
    faults::killed_and_restarted_with_its_data_nothing_flaps(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn restarted_without_its_data_everything_is_there_again() {
    faults::restarted_without_its_data_everything_is_there_again(OwnServer::start().await).await;
}

/// The cluster id does not tell an emptied server from the one before. Nor does the revision, once the new one is as far.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_server_that_lost_its_data_and_was_written_to_since_is_read_again() {
    let (mut server, proxy, url) = own_server_behind_proxy().await;
    let mut stage = Stage::open(registry_at(&url, DEFAULT_PREFIX), TTL).await;
    let known = stage.seen.state().snapshot().revision().clone();
    proxy.set(Fault::Cut);
    stage.goes_stale().await;

    server.restart_empty().await.unwrap();
    let mut operator = raw(&server.program().url()).await;
    let mut now = 0;
    while now <= known.value().cast_signed() {
        let put = operator.put("/elsewhere", "x", None).await.unwrap();
        now = put.header().unwrap().revision();
    }
    let other = another(&stage, 2);
    let key = format!("{DEFAULT_PREFIX}/{}/{}", stage.service, other.id());
    let value = serde_json::to_vec(&other).unwrap();
    operator.put(key, value, None).await.unwrap();

    proxy.set(Fault::Pass);
    let read = until(&mut stage.seen, "read again", is_live_with(2)).await;
    assert!(read.snapshot().get(other.id()).is_some());
    assert_eq!(read.snapshot().revision().domain(), known.domain());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn frozen_for_longer_than_the_lease_the_registration_is_back_soon() {
    faults::frozen_for_longer_than_the_ttl_the_registration_is_back_soon(OwnServer::start().await)
        .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn cut_off_for_less_than_the_lease_nothing_flaps() {
    faults::cut_off_for_less_than_the_ttl_nothing_flaps(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn in_a_black_hole_for_longer_than_the_lease_the_registration_is_back_soon() {
    faults::in_a_black_hole_for_longer_than_the_ttl_the_registration_is_back_soon(
        OwnServer::start().await,
    )
    .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_server_whose_answers_are_held_back_is_found_out() {
    faults::a_server_whose_answers_are_held_back_is_found_out(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn while_everything_is_refused_nothing_is_given_up() {
    let refusing = Refusing::everything().await;
    let server = OwnServer::start().await;
    faults::while_everything_is_refused_nothing_is_given_up(server, refusing.address()).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn compacted_while_we_were_away_the_difference_is_published() {
    let (server, proxy, url) = own_server_behind_proxy().await;
    let mut stage = Stage::open(registry_at(&url, DEFAULT_PREFIX), TTL * 5).await;
    proxy.set(Fault::Cut);
    stage.goes_stale().await;

    let mut operator = raw(&server.program().url()).await;
    let there = registry_at(&server.program().url(), DEFAULT_PREFIX);
    let gone = there.register(another(&stage, 2)).await.unwrap();
    let stays = there.register(another(&stage, 3)).await.unwrap();
    gone.deregister().await.unwrap();
    let now = revision(&mut operator).await;
    operator.compact(now, None).await.unwrap();

    proxy.set(Fault::Pass);
    let read = until(&mut stage.seen, "right again", is_live_with(2)).await;
    assert!(read.snapshot().get(&stays.record_id().id).is_some());
}

/// A server that takes no value any more, and a client beside ours.
async fn full_server(
    prepare: impl AsyncFnOnce(&str, &mut Client),
) -> (ServerProcess<Etcd>, Client) {
    let etcd = Etcd::from_env().unwrap();
    let quota = format!("--quota-backend-bytes={QUOTA}");
    let server = ServerProcess::launch(etcd.with_args([quota]))
        .await
        .unwrap();
    let url = server.program().url();
    let mut raw = raw(&url).await;
    prepare(&url, &mut raw).await;
    let value = vec![0; QUOTA / 32];
    for n in 0..64 {
        let put = raw.put(format!("/filling/{n}"), value.clone(), None).await;
        if let Err(error) = put {
            assert!(error.to_string().contains("space exceeded"), "{error}");
            return (server, raw);
        }
    }
    panic!("the server takes more than its quota");
}

/// A lease can be revoked although no value can be written.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn with_a_full_database_a_record_is_withdrawn_and_removed_all_the_same() {
    let mut guards = Vec::new();
    let mut shared = 0;
    let prepared = async |url: &str, raw: &mut Client| {
        let registry = registry_at(url, DEFAULT_PREFIX);
        for port in 1..=3 {
            let guard = registry.register(instance(port)).ttl(TTL * 100).await;
            guards.push(guard.unwrap());
        }
        for guard in &guards {
            let record = guard.record_id();
            let set = registry.set_override(record, Override::Draining).await;
            set.unwrap();
        }
        // go-kit's records of one process may have one lease.
        shared = raw.lease_grant(300, None).await.unwrap().id();
        for id in ["a", "b"] {
            let on_shared = PutOptions::new().with_lease(shared);
            let key = format!("{DEFAULT_PREFIX}/shared/{id}");
            raw.put(key, "http://10.0.0.1:1", Some(on_shared))
                .await
                .unwrap();
        }
    };
    let (server, mut raw) = full_server(prepared).await;
    let registry = registry_at(&server.program().url(), DEFAULT_PREFIX);
    let of_service = format!("{DEFAULT_PREFIX}/greeter");
    assert_eq!(keys(&mut raw, &of_service).await.len(), 6);

    let refused = registry.set_override(guards[0].record_id(), Override::Unready);
    let unwritten = registry
        .register(instance(9))
        .confirm_within(TTL / 2)
        .await
        .unwrap_err();
    for error in [refused.await.unwrap_err(), unwritten] {
        let report = error.report().to_string();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{report}");
        assert!(
            report.contains("etcdctl alarm disarm") && report.contains("space exceeded"),
            "{report}"
        );
    }

    guards.pop().unwrap().deregister().await.unwrap();
    assert_eq!(keys(&mut raw, &of_service).await.len(), 4);
    // By another client than the one that wrote it.
    let record = guards.pop().unwrap().release().await.unwrap();
    registry.remove_record(&record).await.unwrap();
    assert_eq!(keys(&mut raw, &of_service).await.len(), 2);

    // Some versions refuse this, but none may end what the lease keeps besides.
    let listed = registry.list("shared").await.unwrap();
    let record = listed.instances()[0].record_id();
    let removed = registry.remove_record(&record).await;
    let left = keys(&mut raw, &format!("{DEFAULT_PREFIX}/shared")).await;
    match removed {
        Ok(()) => assert_eq!(left.len(), 1),
        Err(error) => {
            let report = error.report().to_string();
            assert!(
                report.contains("other keys") && report.contains("space exceeded"),
                "{report}"
            );
            assert_eq!(left.len(), 2);
        }
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_registry_that_is_down_at_the_start_delays_no_caller() {
    faults::a_registry_that_is_down_at_the_start_delays_no_caller(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn dropping_everything_leaves_no_key_no_lease_and_no_socket() {
    faults::dropping_everything_leaves_nothing(OwnServer::start().await).await;
}

/// As an agent that was killed is followed by the next one.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn with_a_full_database_a_record_that_an_earlier_client_has_left_is_gone_on_with() {
    let [same, changed, unready, moved] = [1, 2, 3, 4].map(instance);
    let mut left = Vec::new();
    let prepared = async |url: &str, _: &mut Client| {
        let earlier = registry_at(url, DEFAULT_PREFIX);
        for instance in [&same, &changed, &unready, &moved] {
            let registering = earlier.register(instance.clone()).ttl(LEFT_TTL);
            left.push(registering.await.unwrap());
        }
    };
    let (server, mut raw) = full_server(prepared).await;
    for guard in left {
        guard.release().await.unwrap();
    }
    let url = server.program().url();
    let registry = registry_at(&url, DEFAULT_PREFIX);
    let register = |instance: Instance| registry.register(instance).ttl(LEFT_TTL).in_background();
    let mut guard = register(same).unwrap();
    // What it should say cannot be written, and yet it stays.
    let changed = register(changed.with_weight(7)).unwrap();
    // But none that readers should not call.
    let _unready = register(unready.with_ready(false)).unwrap();
    let _moved = register(moved.with_endpoint("10.0.0.2:1".parse().unwrap())).unwrap();
    event(&mut guard, "registered").await;
    let mut none = register(instance(5)).unwrap();
    let told = event(&mut none, "retrying").await;
    let why = told.last().and_then(RegistrationEvent::error).unwrap();
    assert!(why.report().to_string().contains("space exceeded"));
    let of_service = format!("{DEFAULT_PREFIX}/greeter");
    let two_are_left = async || keys(&mut raw.clone(), &of_service).await.len() == 2;
    eventually("two are left", LONG, two_are_left).await;
    tokio::time::sleep(LEFT_TTL + TTL).await;
    assert_eq!(keys(&mut raw, &of_service).await.len(), 2);
    assert_eq!(guard.phase(), RegistrationPhase::Registered);
    assert_ne!(changed.phase(), RegistrationPhase::Registered);

    guard.deregister().await.unwrap();
    changed.deregister().await.unwrap();
    assert_eq!(keys(&mut raw, &of_service).await, [] as [String; 0]);
}
