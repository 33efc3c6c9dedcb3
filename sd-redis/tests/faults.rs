//! What happens when the server dies, freezes, forgets or is cut off, through the whole stack and over a real server.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::faults::OwnServer;
use common::refusing::Refusing;
use common::{
    BACK_WITHIN, LONG, Operator, TTL, config_at, eventually, is_live_with, key, own_server,
    own_server_behind_proxy, own_server_with, registry_at, told, until,
};
use sd_core::{ErrorKind, Instance, RegistrationEvent, Registry, State};
use sd_redis::DEFAULT_PREFIX;
use sd_testing::faults::{self, Stage};
use sd_testing::{Fault, ServerProcess, free_port, is_stale};
use server_programs::{LocalServer, Redis};
use tokio::time::{Instant, sleep};

/// Another instance than that of the stage.
fn another(stage: &Stage, port: u16) -> Instance {
    Instance::new(&stage.service, format!("10.0.0.1:{port}")).unwrap()
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn killed_and_restarted_with_its_data_nothing_flaps() {
    faults::killed_and_restarted_with_its_data_nothing_flaps(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn restarted_without_its_data_everything_is_there_again() {
    let positions =
        faults::restarted_without_its_data_everything_is_there_again(OwnServer::start().await)
            .await;
    let [before, after] = positions.map(|position| position.domain().to_owned());
    assert_ne!(before, after);
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn frozen_for_longer_than_the_ttl_the_registration_is_back_soon() {
    faults::frozen_for_longer_than_the_ttl_the_registration_is_back_soon(OwnServer::start().await)
        .await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn cut_off_for_less_than_the_ttl_nothing_flaps() {
    faults::cut_off_for_less_than_the_ttl_nothing_flaps(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn in_a_black_hole_for_longer_than_the_ttl_the_registration_is_back_soon() {
    faults::in_a_black_hole_for_longer_than_the_ttl_the_registration_is_back_soon(
        OwnServer::start().await,
    )
    .await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_server_whose_answers_are_held_back_is_found_out() {
    faults::a_server_whose_answers_are_held_back_is_found_out(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn while_everything_is_refused_nothing_is_given_up() {
    let refusing = Refusing::everything().await;
    let server = OwnServer::start().await;
    faults::while_everything_is_refused_nothing_is_given_up(server, refusing.address()).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_registry_that_is_down_at_the_start_delays_no_caller() {
    faults::a_registry_that_is_down_at_the_start_delays_no_caller(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn dropping_everything_leaves_no_record_no_task_and_no_socket() {
    faults::dropping_everything_leaves_nothing(OwnServer::start().await).await;
}

/// A process that only registers is told of nothing, and its attempts are given up before they fail.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_server_that_swallows_everything_is_left_for_the_next_one() {
    let (server, proxy, url) = own_server_behind_proxy().await;
    proxy.set(Fault::BlackHole);
    let url = format!("{url},{}", server.program().address());
    let config = config_at(&url, DEFAULT_PREFIX).with_connect_timeout(LONG);
    let registry = sd_redis::connect(config.with_request_timeout(LONG)).unwrap();
    let greeter = Instance::new("greeter", "10.0.0.1:1").unwrap();
    registry.register(greeter).await.unwrap();
}

/// Two servers, of which the first is the primary; the registry that knows both, and the URL of the second.
async fn primary_and_other() -> ([ServerProcess<Redis>; 2], Registry) {
    let servers = [own_server().await, own_server().await];
    let [first, second] = servers.each_ref().map(|server| server.program().address());
    let registry = registry_at(&format!("redis://{first},{second}"), DEFAULT_PREFIX);
    (servers, registry)
}

/// A replica that has lost its primary refuses those who read as well.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_reader_leaves_a_replica_that_has_lost_its_primary() {
    let ([first, second], registry) = primary_and_other().await;
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "none", is_live_with(0)).await;
    let first = Operator::at(&first.program().url()).await;
    let settings = ["CONFIG", "SET", "replica-serve-stale-data", "no"];
    first.ask::<()>(&settings).await;
    let nowhere = free_port().unwrap().to_string();
    first.ask::<()>(&["REPLICAOF", "127.0.0.1", &nowhere]).await;
    let refused = first.try_ask::<u64>(&["EXISTS", "a"]).await;
    assert_eq!(refused.unwrap_err().code(), Some("MASTERDOWN"));
    let writer = registry_at(&second.program().url(), DEFAULT_PREFIX);
    let greeter = Instance::new("greeter", "10.0.0.1:1").unwrap();
    let _kept = writer.register(greeter).await.unwrap();
    until(&mut seen, "one", is_live_with(1)).await;
}

/// It answers those who only read, and what it has may be old.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_reader_leaves_a_server_that_has_become_a_replica() {
    let ([first, second], registry) = primary_and_other().await;
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "none", is_live_with(0)).await;
    let (host, port) = ("127.0.0.1", second.program().address().port().to_string());
    let first = Operator::at(&first.program().url()).await;
    first.ask::<()>(&["REPLICAOF", host, &port]).await;
    let second = Operator::at(&second.program().url()).await;
    let reads_there = async || second.calls("evalsha").await > 0;
    eventually("read at the primary", LONG, reads_there).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn flushed_by_an_operator_everything_is_there_again() {
    let server = own_server().await;
    let operator = Operator::at(&server.program().url()).await;
    let registry = registry_at(&server.program().url(), DEFAULT_PREFIX);
    let mut stage = Stage::open(registry, TTL).await;
    let before = stage.seen.state().snapshot().revision().clone();
    operator.ask::<()>(&["FLUSHALL"]).await;
    let since = Instant::now();
    stage.told("lost").await;
    stage.told("registered").await;
    assert!(since.elapsed() < BACK_WITHIN, "{:?}", since.elapsed());
    let is_of_another_history = |state: &State| {
        let set = state.snapshot();
        set.len() == 1 && set.revision().domain() != before.domain()
    };
    until(&mut stage.seen, "read again", is_of_another_history).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_server_that_forgets_its_scripts_is_told_them_again() {
    let server = own_server().await;
    let operator = Operator::at(&server.program().url()).await;
    let registry = registry_at(&server.program().url(), DEFAULT_PREFIX);
    let mut stage = Stage::open(registry.clone(), TTL).await;
    operator.ask::<()>(&["SCRIPT", "FLUSH"]).await;
    let second = registry.register(another(&stage, 2)).await.unwrap();
    until(&mut stage.seen, "both", is_live_with(2)).await;
    operator.ask::<()>(&["SCRIPT", "FLUSH"]).await;
    second.deregister().await.unwrap();
    until(&mut stage.seen, "one", is_live_with(1)).await;
    let renewed = operator.calls("evalsha").await;
    let again = || async { operator.calls("evalsha").await > renewed + 4 };
    eventually("renewed", LONG, again).await;
    let events = told(&mut stage.guard);
    assert!(events.is_empty(), "{events:?}");
}

/// What is alive stays, and can be withdrawn. What is new is refused, with what to do.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn without_memory_for_writes_what_is_alive_stays_and_can_be_withdrawn() {
    let server = own_server().await;
    let operator = Operator::at(&server.program().url()).await;
    let registry = registry_at(&server.program().url(), DEFAULT_PREFIX);
    let mut stage = Stage::open(registry.clone(), TTL).await;
    let leaving = registry.register(another(&stage, 2)).await.unwrap();
    until(&mut stage.seen, "both", is_live_with(2)).await;
    operator
        .ask::<()>(&["CONFIG", "SET", "maxmemory", "1mb"])
        .await;

    let refused = registry
        .register(another(&stage, 3))
        .confirm_within(TTL / 2)
        .await
        .unwrap_err();
    let report = refused.report().to_string();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{report}");
    assert!(
        report.contains("maxmemory") && report.contains("OOM"),
        "{report}"
    );
    sleep(TTL * 2).await;
    leaving.deregister().await.unwrap();
    until(&mut stage.seen, "withdrawn", is_live_with(1)).await;
    let read = registry.list(&stage.service).await.unwrap();
    assert_eq!(read.len(), 1);
    let events = told(&mut stage.guard);
    assert!(events.is_empty(), "{events:?}");

    operator
        .ask::<()>(&["CONFIG", "SET", "maxmemory", "0"])
        .await;
    registry.register(another(&stage, 3)).await.unwrap();
}

/// As an agent that is started again beside programs that go on.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn without_memory_a_record_that_is_alive_goes_on_with_the_next_process_of_its_run() {
    let server = own_server().await;
    let url = server.program().url();
    let raw = Operator::at(&url).await;
    let record = Instance::new("greeter", "10.0.0.1:1").unwrap();
    let before = registry_at(&url, DEFAULT_PREFIX);
    let guard = before.register(record.clone()).ttl(LONG).await.unwrap();
    guard
        .update(|instance| instance.with_weight(7))
        .await
        .unwrap();
    guard.release().await.unwrap();
    before.close().await.unwrap();
    raw.ask::<()>(&["CONFIG", "SET", "maxmemory", "1mb"]).await;

    let after = registry_at(&url, DEFAULT_PREFIX);
    let version = raw.version(DEFAULT_PREFIX, "greeter").await;
    let same = record.clone().with_weight(7);
    let mut guard = after.register(same).confirm_within(TTL).await.unwrap();
    // It lives no longer than that any more, and is renewed.
    let [ends, records] = ["ends", "records"].map(|part| key(DEFAULT_PREFIX, "greeter", part));
    let id = record.id().as_str();
    let end = async || raw.ask::<f64>(&["ZSCORE", &ends, id]).await;
    let first = end().await;
    eventually("renewed", LONG, async || end().await > first).await;
    assert_eq!(raw.version(DEFAULT_PREFIX, "greeter").await, version);
    let events = told(&mut guard);
    let is_lost = |event: &RegistrationEvent| matches!(event.as_str(), "lost" | "retrying");
    assert!(!events.iter().any(is_lost), "{events:?}");
    // What the process before it has sent and was not answered is late now.
    let stored: String = raw.ask(&["HGET", &records, id]).await;
    let number: u64 = stored.split(' ').nth(2).unwrap().parse().unwrap();
    assert!(number > 2, "{stored}");
    // What changes it takes memory.
    let refused = guard.update(|instance| instance.with_weight(8)).await;
    let report = refused.unwrap_err().report().to_string();
    assert!(report.contains("OOM"), "{report}");
}

/// While the user may not read the channel, changes are seen by asking. While it may nothing, the last set stays.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn without_rights_the_last_set_stays_and_with_them_all_is_right_again() {
    let server = own_server().await;
    let url = server.program().url();
    let operator = Operator::at(&url).await;
    let rights = async |rules: &[&str]| {
        let words = [&["ACL", "SETUSER", "app"], rules].concat();
        operator.ask::<()>(&words).await;
    };
    let all = [
        "reset",
        "on",
        ">sesame",
        "~services:*",
        "&services:*",
        "+@all",
        "-@admin",
        "-@dangerous",
    ];
    rights(&all).await;
    let as_app = url.replace("redis://", "redis://app:sesame@");
    let mut stage = Stage::open(registry_at(&as_app, DEFAULT_PREFIX), TTL * 5).await;
    let writer = registry_at(&url, DEFAULT_PREFIX);

    rights(&["resetchannels"]).await;
    let second = writer
        .register(another(&stage, 2))
        .ttl(TTL * 10)
        .await
        .unwrap();
    until(&mut stage.seen, "asked for", is_live_with(2)).await;

    rights(&["resetkeys"]).await;
    let kept = until(&mut stage.seen, "stale", is_stale).await;
    let error = kept.status().error().unwrap();
    let report = error.report().to_string();
    assert_eq!(error.kind(), ErrorKind::Denied, "{report}");
    assert!(
        report.contains("README") && !report.contains("sesame"),
        "{report}"
    );
    assert_eq!(kept.snapshot().len(), 2);
    second.deregister().await.unwrap();
    stage.told("at_risk").await;

    rights(&all).await;
    until(&mut stage.seen, "right again", is_live_with(1)).await;
    stage.told("recovered").await;
}

/// A server that starts answers, and says that it is not ready.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn while_a_server_reads_its_data_the_last_set_stays() {
    let slow = |program: Redis| {
        let program = program
            .with_config("appendonly no")
            .with_config("save \"\"");
        program.with_config("loading-process-events-interval-bytes 1024")
    };
    let mut server = own_server_with(slow).await;
    let url = server.program().url();
    let operator = Operator::at(&url).await;
    let mut stage = Stage::open(registry_at(&url, DEFAULT_PREFIX), TTL * 10).await;
    let text = "x".repeat(1024);
    for n in 0..300 {
        operator
            .ask::<()>(&["SET", &format!("filling:{n}"), &text])
            .await;
    }
    // In microseconds for each key.
    operator
        .ask::<()>(&["CONFIG", "SET", "key-load-delay", "10000"])
        .await;
    operator.ask::<()>(&["CONFIG", "REWRITE"]).await;
    operator.ask::<()>(&["SAVE"]).await;
    server.kill().unwrap();
    let says_loading = |state: &State| {
        let error = state.status().error();
        error.is_some_and(|error| error.report().to_string().contains("LOADING"))
    };
    let (restarted, seen) = tokio::join!(
        server.restart(),
        until(&mut stage.seen, "loading", says_loading)
    );
    restarted.unwrap();
    assert_eq!(seen.snapshot().len(), 1);
    stage.is_live().await;
    // A renewal may have been due meanwhile.
    let events = told(&mut stage.guard);
    assert!(
        events.iter().all(|event| event.as_str() != "lost"),
        "{events:?}"
    );
}

/// As after a former primary was restarted: what is told must come from the server to which commands go.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn of_two_servers_that_both_are_primaries_one_is_used_for_commands_and_for_what_is_told() {
    let (server, proxy, _) = own_server_behind_proxy().await;
    let other = own_server().await;
    let both = format!("redis://{},{}", proxy.address(), other.program().address());
    let registry = registry_at(&both, DEFAULT_PREFIX);
    let record = Instance::new("greeter", "10.0.0.1:1").unwrap();
    let _kept = registry.register(record).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "one", is_live_with(1)).await;
    let raw = Operator::at(&server.program().url()).await;
    let raw_other = Operator::at(&other.program().url()).await;
    let tells = async |server: &Operator| {
        let clients: String = server.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
        !clients.is_empty()
    };
    assert!(tells(&raw).await);

    // Only the connection that tells is lost, and cannot be made there again for a while.
    proxy.set(Fault::Refuse);
    raw.ask::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    // For a moment each time: the next command is followed back.
    let was_elsewhere = async || raw_other.calls("subscribe").await > 0;
    eventually("told by the other one", LONG, was_elsewhere).await;
    proxy.set(Fault::Pass);
    let is_back = async || tells(&raw).await && !tells(&raw_other).await;
    eventually("told by the first one", LONG, is_back).await;
    until(&mut seen, "live again", is_live_with(1)).await;
}
