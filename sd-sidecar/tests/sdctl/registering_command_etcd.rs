//! Against a real etcd: what others see of an instance that is checked, and of its command. etcd itself is checked by gRPC and HTTP.

use rustix::process::Signal;
use sd_testing::required_env;
use serde_json::Value;

use crate::beating::{Beating, is_alive};
use crate::electing::is;
use crate::etcd::registry;
use crate::registering::ids;
use crate::running::{Running, sdctl};

fn etcd() -> String {
    let server = required_env("SD_TEST_ETCD").unwrap();
    server
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned()
}

fn is_ready(state: &Value) -> Option<bool> {
    state["instances"][0]["ready"].as_bool()
}

/// With its time-to-live longer than the test, so that a record goes only by a withdrawal.
fn register(registry: &str, options: &[&str], beating: &Beating) -> Running {
    let first = [
        "register",
        "greeter",
        "10.0.0.7:50051",
        "--id",
        "g-1",
        "--ttl",
        "10m",
        "--json",
    ];
    let first: Vec<_> = first
        .iter()
        .chain(options)
        .chain(&["--"])
        .copied()
        .collect();
    Running::start(registry, &beating.after(&first))
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn readers_send_their_calls_elsewhere_before_the_command_stops_and_the_record_goes_last() {
    let registry = registry();
    let mut watch = Running::start(&registry, &["watch", "greeter", "--json"]);
    watch.json_where(|state| state["status"] == "live").await;
    let beating = Beating::docile();
    let options = [
        "--drain-for",
        "10s",
        "--check",
        &format!("grpc:@{}", etcd()),
    ];
    let register = register(&registry, &options, &beating);
    watch
        .json_where(|state| is_ready(state) == Some(true))
        .await;
    let run = beating.run(1).await;
    register.signal(Signal::TERM);
    watch
        .json_where(|state| is_ready(state) == Some(false))
        .await;
    assert!(is_alive(run.command) && is_alive(run.child));
    watch.json_where(|state| ids(state).is_empty()).await;
    assert!(!is_alive(run.command) && !is_alive(run.child));
    let (status, ..) = register.end().await;
    assert!(status.success());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_real_server_is_asked_by_grpc_and_http() {
    let registry = registry();
    let etcd = etcd();
    let grpc = format!("grpc:@{etcd},interval=100ms");
    let http = format!("http://{etcd}/health");
    let beating = Beating::docile();
    let options = ["--check", &grpc, "--check", &http];
    let mut well = register(&registry, &options, &beating);
    well.json_where(is("registered")).await;

    let unknown = format!("grpc:no.such.Service@{etcd},name=unknown");
    let missing = format!("http://{etcd}/no/such/page,name=missing");
    let options = ["--check", &unknown, "--check", &missing];
    let mut waits = register(&registry, &options, &beating);
    let output = |event: &Value, index: usize| {
        let output = event["checks"][index]["output"].as_str();
        output.unwrap().to_owned()
    };
    let waiting = waits.json_where(|event| {
        assert_eq!(event["event"], "waiting");
        (0..2).all(|index| output(event, index) != "no answer yet")
    });
    let waiting = waiting.await;
    assert_eq!(
        output(&waiting, 0),
        "the server knows no service \"no.such.Service\""
    );
    assert_eq!(output(&waiting, 1), "HTTP 404 Not Found");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_command_whose_id_is_taken_is_stopped_and_the_other_instance_stays() {
    let registry = registry();
    let other = [
        "register",
        "greeter",
        "10.0.0.8:50051",
        "--id",
        "g-1",
        "--json",
    ];
    let mut other = Running::start(&registry, &other);
    other.json_where(is("registered")).await;
    let beating = Beating::docile();
    let register = register(&registry, &["--drain-for", "1h"], &beating);
    let (status, _, stderr) = register.end().await;
    assert_eq!(status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("10.0.0.8:50051"), "{stderr}");
    let list = sdctl(&registry, &["list", "greeter"]).await;
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.contains("10.0.0.8:50051"), "{list}");
    assert_eq!(beating.runs().min(1), beating.runs());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_command_that_is_killed_is_gone_for_readers_at_once() {
    let registry = registry();
    let mut watch = Running::start(&registry, &["watch", "greeter", "--json"]);
    let beating = Beating::docile();
    let register = register(&registry, &["--drain-for", "1h"], &beating);
    watch.json_where(|state| ids(state) == ["g-1"]).await;
    let run = beating.run(1).await;
    crate::beating::signal(run.command, Signal::KILL);
    watch.json_where(|state| ids(state).is_empty()).await;
    let (status, ..) = register.end().await;
    assert_eq!(status.code(), Some(137));
}

/// One that is killed withdraws nothing: its record ends with its time-to-live, and its command at once.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn of_sdctl_that_is_killed_the_record_expires_and_the_command_ends() {
    let registry = registry();
    let mut watch = Running::start(&registry, &["watch", "greeter", "--json"]);
    let beating = Beating::docile();
    let arguments = ["register", "greeter", "10.0.0.7:50051", "--ttl", "3s", "--"];
    let register = Running::start(&registry, &beating.after(&arguments));
    watch
        .json_where(|state| is_ready(state) == Some(true))
        .await;
    let run = beating.run(1).await;
    register.signal(Signal::KILL);
    run.is_over().await;
    watch.json_where(|state| ids(state).is_empty()).await;
    let (status, ..) = register.end().await;
    assert!(!status.success());
}
