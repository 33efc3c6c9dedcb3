//! Against a real Consul: what one `sdctl` registers, another sees; who leads, and who is next; a token from the environment.

use std::time::Duration;

use rustix::process::Signal;
use sd_core::Incarnation;
use sd_core::clock::{BootClock, Clock};
use sd_testing::{ServerProcess, required_env};
use serde_json::{Value, json};
use server_programs::{Consul, LocalServer};

use crate::beating::Beating;
use crate::electing::{ELECTION, elect, is, time};
use crate::operating::an_instance_is_drained_marked_cleared_and_removed;
use crate::registering::{
    is_seen_until_it_is_told_to_stop, runs_that_were_killed_are_not_seen_beside_the_next_one,
};
use crate::running::{command, failure, sdctl, sdctl_json};

/// The shortest time-to-live that Consul grants.
const TTL: Duration = Duration::from_secs(10);
/// Twice the time-to-live, the lock-delay of [`registry`], and slack for a busy machine.
const REPLACED_WITHIN: Duration = Duration::from_secs(2 * 10 + 1 + 6);

fn url(server: &str) -> String {
    server.replacen("http://", "consul://", 1)
}

/// The shared server, with elections of one's own.
fn registry() -> String {
    let server = url(&required_env("SD_TEST_CONSUL").unwrap());
    let corner = Incarnation::random();
    format!("{server}?election_prefix=sdctl-{corner}&lock_delay=1s")
}

/// A service that no other test uses.
fn service() -> String {
    format!("sdctl-{}", Incarnation::random())
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_registration_is_seen_by_others_until_it_is_told_to_stop() {
    let service = service();
    let [.., services] = is_seen_until_it_is_told_to_stop(&registry(), &service).await;
    let services = services["services"].as_array().unwrap();
    assert!(services.contains(&service.into()), "{services:?}");
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_operator_drains_marks_clears_and_removes_an_instance() {
    an_instance_is_drained_marked_cleared_and_removed(&registry(), &service(), false).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_token_comes_from_the_environment_when_the_url_says_so_and_not_otherwise() {
    const MANAGEMENT: &str = "11111111-2222-4333-8444-555555555555";
    let program = Consul::from_env().unwrap().with_acl(MANAGEMENT);
    let without = url(&program.url());
    let asking = format!("{without}?token_env=CONSUL_HTTP_TOKEN");
    let _server = ServerProcess::launch(program).await.unwrap();
    let list = ["services", "--json"];
    let run = async |registry: &str, token: &str| {
        let mut command = command(registry, &list);
        let output = command.env("CONSUL_HTTP_TOKEN", token).output();
        output.await.unwrap()
    };
    let shown = run(&asking, MANAGEMENT).await;
    assert!(shown.status.success(), "{shown:?}");
    let told: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(told, json!({"services": ["consul"], "unlisted": 0}));

    let denied = failure(&run(&without, MANAGEMENT).await);
    assert!(denied.contains("denied"), "{denied}");
    let unset = failure(&sdctl(&format!("{without}?token_env=SDCTL_NOT_SET"), &list).await);
    assert!(unset.contains("SDCTL_NOT_SET"), "{unset}");
    // Nor is one repeated that Consul does not know.
    let unknown = "99999999-0000-4000-8000-000000000000";
    let refused = failure(&run(&asking, unknown).await);
    assert!(
        refused.contains("denied") && !refused.contains(unknown),
        "{refused}"
    );
}

/// The time-to-live says nothing about how long that takes.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_candidate_with_an_unknown_token_is_told_at_once() {
    const MANAGEMENT: &str = "11111111-2222-4333-8444-555555555555";
    let program = Consul::from_env().unwrap().with_acl(MANAGEMENT);
    let registry = format!("{}?token_env=CONSUL_HTTP_TOKEN", url(&program.url()));
    let _server = ServerProcess::launch(program).await.unwrap();
    let mut command = command(&registry, &["elect", ELECTION, "--ttl", "60s"]);
    let unknown = "99999999-0000-4000-8000-000000000000";
    let since = BootClock.now();
    let elect = command.env("CONSUL_HTTP_TOKEN", unknown).output();
    let elect = elect.await.unwrap();
    let took = BootClock.now().since(since);
    let line = failure(&elect);
    assert!(line.contains("denied") && !line.contains(unknown), "{line}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn the_command_of_a_leader_has_neither_the_url_nor_the_token() {
    let url = format!("{}&token_env=SDCTL_TEST_TOKEN", registry());
    let script = r#"echo "command ${SDCTL_REGISTRY-none} ${SDCTL_TEST_TOKEN-none}""#;
    let mut elect = command(&url, &["elect", ELECTION, "--", "sh", "-c", script]);
    let output = elect
        .env("SDCTL_REGISTRY", &url)
        .env("SDCTL_TEST_TOKEN", "sesame");
    let output = output.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("command none none\n"),
        "{text} {:?}",
        output.stderr
    );
}

/// Consul has no shorter time-to-live and takes twice as long: all the more must the command be dead by then.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn the_command_of_a_leader_that_is_killed_is_dead_before_the_next_one_leads() {
    let registry = registry();
    let [first_beating, second_beating] = [Beating::stubborn(), Beating::docile()];
    let mut first = elect(&registry, "first", TTL, &first_beating);
    let first_elected = first.json_where(is("elected")).await;
    let mut second = elect(&registry, "second", TTL, &second_beating);
    second.json_where(is("waiting")).await;
    let run = first_beating.run(1).await;
    let leader = sdctl_json(&registry, &["leader", ELECTION, "--json"]).await;
    assert_eq!(leader["leader"]["value"], "first", "{leader}");

    let now = BootClock.now();
    first.signal(Signal::KILL);
    let elected = second.json_where(is("elected")).await;
    let took = time(&elected).since(now);
    assert!(took < REPLACED_WITHIN, "{took:?}");
    assert!(elected["token"].as_u64() > first_elected["token"].as_u64());
    assert!(first_beating.last_sign() < time(&elected), "{elected}");
    run.is_over().await;

    // And one that is asked to stop is replaced at once.
    let third_beating = Beating::docile();
    let mut third = elect(&registry, "third", TTL, &third_beating);
    third.json_where(is("waiting")).await;
    second_beating.run(1).await;
    let now = BootClock.now();
    second.signal(Signal::TERM);
    let elected = third.json_where(is("elected")).await;
    assert!(second_beating.last_sign() < time(&elected));
    assert!(
        time(&elected).since(now) < Duration::from_secs(5),
        "{elected}"
    );
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn three_runs_that_were_killed_are_not_seen_beside_the_next_one() {
    runs_that_were_killed_are_not_seen_beside_the_next_one(&registry(), &service()).await;
}
