//! Against a real etcd: two of them want to lead, and the command of one is dead before the other leads.

use std::time::Duration;

use rustix::process::Signal;
use sd_core::Incarnation;
use sd_core::clock::{BootClock, Clock, Moment};
use sd_testing::{ServerProcess, required_env};
use serde_json::{Value, json};
use server_programs::{Etcd, LocalServer};
use tokio::net::TcpListener;

use crate::beating::{Beating, signal};
use crate::electing::{ELECTION, elect, is, time};
use crate::gateway::ask;
use crate::running::{Running, sdctl, sdctl_json};

const TTL: Duration = Duration::from_secs(3);
/// What a server may take beyond the time-to-live, on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

/// A corner of the shared server for one test.
fn registry() -> String {
    let server = required_env("SD_TEST_ETCD").unwrap();
    let server = server.replacen("http://", "etcd://", 1);
    let corner = Incarnation::random();
    format!("{server}/sdctl-{corner}?election_prefix=/sdctl-elections-{corner}")
}

/// Two candidates with stubborn commands, of which the first leads.
struct Pair {
    first: Running,
    first_beating: Beating,
    first_elected: Value,
    second: Running,
    second_beating: Beating,
}

impl Pair {
    async fn start() -> Self {
        let registry = registry();
        let [first_beating, second_beating] = [Beating::stubborn(), Beating::stubborn()];
        let mut first = elect(&registry, "first", TTL, &first_beating);
        let first_elected = first.json_where(is("elected")).await;
        let mut second = elect(&registry, "second", TTL, &second_beating);
        let waiting = second.json_where(|_| true).await;
        assert_eq!(
            (&waiting["event"], &waiting["error"]),
            (&"waiting".into(), &Value::Null)
        );
        first_beating.run(1).await;
        Self {
            first,
            first_beating,
            first_elected,
            second,
            second_beating,
        }
    }

    /// Waits until the second leads, within `limit` from `since`. Nothing of the first one's command may have lived until then.
    async fn second_takes_over(&mut self, since: Moment, limit: Duration) {
        let elected = self.second.json_where(is("elected")).await;
        let took = time(&elected).since(since);
        assert!(took < limit, "{took:?}");
        assert!(elected["token"].as_u64() > self.first_elected["token"].as_u64());
        let run = self.second_beating.run(1).await;
        assert_eq!(run.token, elected["token"].as_u64());
        let last = self.first_beating.last_sign();
        assert!(last < time(&elected), "{last:?} {elected}");
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn the_command_of_a_leader_that_is_killed_is_dead_before_the_next_one_leads() {
    let mut pair = Pair::start().await;
    let run = pair.first_beating.run(1).await;
    let now = BootClock.now();
    pair.first.signal(Signal::KILL);
    pair.second_takes_over(now, TTL + SLACK).await;
    run.is_over().await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn the_command_of_a_leader_that_is_frozen_is_dead_before_the_next_one_leads() {
    let mut pair = Pair::start().await;
    let run = pair.first_beating.run(1).await;
    let now = BootClock.now();
    pair.first.signal(Signal::STOP);
    pair.second_takes_over(now, TTL + SLACK).await;
    run.is_over().await;

    pair.first.signal(Signal::CONT);
    let ended = pair.first.json_where(is("ended")).await;
    assert_eq!(ended["token"], pair.first_elected["token"]);
    assert_ne!(ended["reason"], "resigned");
    pair.first.json_where(is("waiting")).await;

    // And back, with the next term.
    pair.second.signal(Signal::TERM);
    let elected = pair.first.json_where(is("elected")).await;
    assert!(elected["token"].as_u64() > pair.first_elected["token"].as_u64());
    assert!(pair.second_beating.last_sign() < time(&elected));
    let run = pair.first_beating.run(2).await;
    assert_eq!(run.token, elected["token"].as_u64());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_leader_that_is_asked_to_stop_hands_over_without_waiting_for_the_time_to_live() {
    let registry = registry();
    let [docile, next] = [Beating::docile(), Beating::docile()];
    let elect = |beating: &Beating| {
        let arguments = beating.after(&["elect", ELECTION, "--ttl", "60s", "--json", "--"]);
        Running::start(&registry, &arguments)
    };
    let mut first = elect(&docile);
    first.json_where(is("elected")).await;
    let mut second = elect(&next);
    second.json_where(is("waiting")).await;
    let run = docile.run(1).await;
    let now = BootClock.now();
    first.signal(Signal::TERM);
    let elected = second.json_where(is("elected")).await;
    assert!(docile.last_sign() < time(&elected));
    assert!(time(&elected).since(now) < SLACK, "{elected}");
    run.is_over().await;
    let (status, lines, _) = first.end().await;
    assert!(status.success(), "{lines:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_leader_whose_watchdog_is_killed_hands_over() {
    let mut pair = Pair::start().await;
    let run = pair.first_beating.run(1).await;
    let now = BootClock.now();
    signal(run.watchdog, Signal::KILL);
    pair.second_takes_over(now, SLACK).await;
    run.is_over().await;
    let (status, _, stderr) = pair.first.end().await;
    assert_eq!(status.code(), Some(125));
    assert!(stderr.contains("the watchdog has died"), "{stderr}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_leader_is_seen_and_so_is_that_none_leads() {
    let registry = registry();
    let mut watch = Running::start(&registry, &["leader", ELECTION, "--watch", "--json"]);
    let no_leader = json!({
        "name": ELECTION, "leader": null, "status": "live", "since": null, "error": null, "lineage": 0,
    });
    let mut watched = watch.json_where(|_| true).await;
    assert!(watched.as_object_mut().unwrap().remove("time").is_some());
    assert_eq!(watched, no_leader);
    let asked = sdctl(&registry, &["leader", ELECTION, "--json"]).await;
    assert_eq!(asked.status.code(), Some(4));

    let elect = ["elect", ELECTION, "--value", "host-7", "--json"];
    let mut first = Running::start(&registry, &elect);
    let elected = first.json_where(is("elected")).await;
    let mut seen = watch.json_where(|_| true).await;
    assert!(seen.as_object_mut().unwrap().remove("time").is_some());
    let mut leader = elected.clone();
    leader
        .as_object_mut()
        .unwrap()
        .retain(|field, _| ["id", "token", "token_domain"].contains(&field.as_str()));
    leader["value"] = "host-7".into();
    assert_eq!(seen["leader"], leader);
    assert_eq!(
        sdctl_json(&registry, &["leader", ELECTION, "--json"]).await,
        seen
    );
    let text = sdctl(&registry, &["leader", ELECTION]).await;
    let text = String::from_utf8(text.stdout).unwrap();
    let expected = format!("{ELECTION} is led by host-7, token {}", elected["token"]);
    assert!(text.starts_with(&expected), "{text}");

    first.signal(Signal::INT);
    let mut watched = watch.json_where(|_| true).await;
    assert!(watched.as_object_mut().unwrap().remove("time").is_some());
    assert_eq!(watched, no_leader);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_leader_without_its_registry_is_at_risk_then_stops_its_command_and_later_leads_again() {
    let program = Etcd::from_env().unwrap();
    let registry = program.url().replacen("http://", "etcd://", 1) + "/services";
    let mut server = ServerProcess::launch(program).await.unwrap();
    let beating = Beating::stubborn();
    // Its command has a fifth of it to show that it lives on: long enough for a busy machine.
    let ttl = 3 * TTL;
    let mut first = elect(&registry, "first", ttl, &beating);
    let elected = first.json_where(is("elected")).await;
    let run = beating.run(1).await;
    let mut watch = Running::start(&registry, &["leader", ELECTION, "--watch", "--json"]);
    watch
        .json_where(|told| told["leader"]["token"] == elected["token"])
        .await;

    server.kill().unwrap();
    let killed = BootClock.now();
    let at_risk = first.json_where(is("at_risk")).await;
    assert!(at_risk["error"].is_string(), "{at_risk}");
    let stale = watch.json_where(|told| told["status"] == "stale").await;
    assert_eq!(stale["leader"]["token"], elected["token"]);
    let ended = first.json_where(is("ended")).await;
    assert_eq!(ended["reason"], "lease_expired");
    assert!(
        time(&ended) > time(&at_risk) && ended["error"].is_string(),
        "{ended}"
    );
    let waiting = first.json_where(is("waiting")).await;
    assert!(waiting["error"].is_string(), "{waiting}");
    run.is_over().await;
    // The server could have handed over a time-to-live after it was asked last, at the earliest.
    let last = beating.last_sign();
    assert!(last > time(&ended), "it took no notice of being asked");
    assert!(last < killed + ttl, "{last:?} {killed:?}");

    server.restart_empty().await.unwrap();
    let again = first.json_where(is("elected")).await;
    let run = beating.run(2).await;
    assert_eq!(run.token, again["token"].as_u64());
    watch
        .json_where(|told| told["leader"]["id"] == again["id"])
        .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_command_has_no_time_to_stop_once_another_may_lead() {
    let program = Etcd::from_env().unwrap();
    let server = program.address();
    let registry = program.url().replacen("http://", "etcd://", 1) + "/services";
    let _server = ServerProcess::launch(program).await.unwrap();
    for deleted in [true, false] {
        let beating = Beating::stubborn();
        // It would have 12 s.
        let elect = ["elect", ELECTION, "--once", "--ttl", "60s", "--json", "--"];
        let mut first = Running::start(&registry, &beating.after(&elect));
        let elected = first.json_where(is("elected")).await;
        let run = beating.run(1).await;
        if deleted {
            // All keys.
            let all = json!({ "key": "AA==", "range_end": "AA==" });
            ask(server, "kv/deleterange", &all).await;
        } else {
            let leases = ask(server, "lease/leases", &json!({})).await;
            for lease in leases["leases"].as_array().unwrap() {
                ask(server, "lease/revoke", lease).await;
            }
        }
        let ended = first.json_where(is("ended")).await;
        assert_eq!(ended["token"], elected["token"]);
        // A lease that is revoked takes its key along.
        let reason = ended["reason"].as_str().unwrap();
        assert!(["entry_gone", "session_lost"].contains(&reason), "{ended}");
        run.is_over().await;
        let took = beating.last_sign().since(time(&ended));
        assert!(took < SLACK, "{took:?}");
        let (status, _, stderr) = first.end().await;
        assert_eq!(status.code(), Some(125), "{stderr}");
    }
}

/// The time-to-live says nothing about how long that takes.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_wrong_password_is_told_at_once() {
    let program = Etcd::from_env().unwrap();
    let server = program.address();
    let registry = program.url().replacen("http://", "etcd://root:wrong@", 1) + "/services";
    let _server = ServerProcess::launch(program).await.unwrap();
    let root = json!({ "name": "root", "password": "right" });
    ask(server, "auth/user/add", &root).await;
    ask(server, "auth/role/add", &json!({ "name": "root" })).await;
    let granted = json!({ "user": "root", "role": "root" });
    ask(server, "auth/user/grant", &granted).await;
    ask(server, "auth/enable", &json!({})).await;
    let since = BootClock.now();
    let elect = sdctl(&registry, &["elect", ELECTION, "--ttl", "60s"]).await;
    let took = BootClock.now().since(since);
    let line = crate::running::failure(&elect);
    assert!(line.contains("denied") && !line.contains("wrong"), "{line}");
    assert!(took < 2 * SLACK, "{took:?}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn one_term_that_was_asked_for_tells_how_it_ended() {
    let program = Etcd::from_env().unwrap();
    let registry = program.url().replacen("http://", "etcd://", 1) + "/services";
    let mut server = ServerProcess::launch(program).await.unwrap();
    let once = ["elect", ELECTION, "--once", "--ttl", "3s", "--json"];
    let mut elect = Running::start(&registry, &once);
    elect.json_where(is("elected")).await;
    server.kill().unwrap();
    elect.json_where(is("ended")).await;
    let (status, _, stderr) = elect.end().await;
    assert_eq!(status.code(), Some(1));
    let line = stderr.lines().last().unwrap();
    assert!(
        line.contains("is over: not confirmed before its deadline"),
        "{stderr}"
    );
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_candidate_that_cannot_tell_the_registry_that_it_leaves_says_so() {
    let program = Etcd::from_env().unwrap();
    let registry = program.url().replacen("http://", "etcd://", 1) + "/services";
    let mut server = ServerProcess::launch(program).await.unwrap();
    let start = || Running::start(&registry, &["elect", ELECTION, "--ttl", "60s", "--json"]);
    let mut leader = start();
    leader.json_where(is("elected")).await;
    let mut waiting = start();
    waiting.json_where(is("waiting")).await;
    server.kill().unwrap();
    for (elect, what) in [(waiting, "cannot leave"), (leader, "cannot resign")] {
        let asked = BootClock.now();
        elect.signal(Signal::INT);
        let (status, _, stderr) = elect.end().await;
        let took = BootClock.now().since(asked);
        assert!(took < SLACK, "{took:?}");
        assert_eq!(status.code(), Some(3));
        let line = stderr.lines().last().unwrap();
        assert!(line.contains(what), "{stderr}");
    }
}

#[tokio::test]
async fn a_candidate_without_a_registry_says_why_it_waits_and_ends_when_it_is_told_to() {
    let port = sd_testing::free_port().unwrap();
    let registry = format!("etcd://u:sesame@127.0.0.1:{port}/services");
    let mut elect = Running::start(&registry, &["elect", ELECTION, "--json"]);
    let waiting = elect.json_where(|_| true).await;
    assert_eq!(waiting["event"], "waiting");
    let error = waiting["error"].as_str().unwrap();
    assert!(!error.contains("sesame"), "{error}");
    assert!(waiting["id"].is_null() && waiting["token"].is_null());
    elect.signal(Signal::INT);
    let (status, _, stderr) = elect.end().await;
    // The registry did not confirm that nothing is there.
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let asked = sdctl(&registry, &["leader", ELECTION, "--timeout", "1s"]).await;
    let line = crate::running::failure(&asked);
    assert!(
        line.contains("who leads") && line.contains("try: "),
        "{line}"
    );
}

/// Nothing was asked of it that could leave anything, but that is not known of every registry.
#[tokio::test]
async fn a_candidate_that_is_told_to_end_before_its_registry_answers_does_not_say_that_it_left() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = format!("etcd://{}/services", silent.local_addr().unwrap());
    let elect = Running::start(&registry, &["elect", ELECTION, "--json"]);
    let (_held, _) = silent.accept().await.unwrap();
    let asked = BootClock.now();
    elect.signal(Signal::INT);
    let (status, _, stderr) = elect.end().await;
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("cannot leave"), "{stderr}");
    let took = BootClock.now().since(asked);
    assert!(took < 2 * SLACK, "{took:?}");
}
