//! Several servers that are one to their clients: Sentinels with a primary and a replica, a Cluster.

use std::time::Duration;

use sd_core::{Registry, RegistryConfig};
use sd_redis::RedisConfig;
use sd_testing::{ServerGroup, eventually};
use server_programs::{LocalServer, Redis};
use tokio::task::spawn_blocking;

use super::LONG;

/// The name that Sentinels know the primary by.
pub(crate) const PRIMARY: &str = "main";
/// How soon is seen what no message has told.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(3);

/// The primary is the first, its replica the second.
pub(crate) async fn sentinels() -> ServerGroup<Redis> {
    let programs = Redis::sentinels_from_env(PRIMARY).unwrap();
    ServerGroup::launch(programs).await.unwrap()
}

/// Three primaries, and three replicas in their order.
pub(crate) async fn cluster() -> ServerGroup<Redis> {
    let programs = Redis::cluster_from_env().unwrap();
    ServerGroup::launch(programs).await.unwrap()
}

/// `redis+sentinel://127.0.0.1:1,127.0.0.1:2/main`
pub(crate) fn sentinels_url(group: &ServerGroup<Redis>) -> String {
    let addresses = group.members().iter().skip(2);
    let addresses = addresses.map(|sentinel| sentinel.program().address().to_string());
    let addresses: Vec<String> = addresses.collect();
    format!("redis+sentinel://{}/{PRIMARY}", addresses.join(","))
}

/// Of two of the six nodes, which know the others.
pub(crate) fn cluster_url(group: &ServerGroup<Redis>) -> String {
    let [first, .., last] = group.members() else {
        panic!("a cluster has several nodes")
    };
    let [first, last] = [first, last].map(|node| node.program().address());
    format!("redis+cluster://{first},{last}")
}

/// A registry whose records outlast a failover.
pub(crate) fn registry(url: &str) -> Registry {
    let config = RedisConfig::from_url(url).unwrap();
    let config = config
        .with_poll_interval(POLL_INTERVAL)
        .with_request_timeout(Duration::from_secs(2));
    let mut settings = RegistryConfig::default();
    settings.registration.ttl = Duration::from_secs(60);
    sd_redis::connect_with(config, settings).unwrap()
}

/// What an operator asks one of the servers.
pub(crate) async fn ask(server: &Redis, words: &[&str]) -> String {
    try_ask(server, words).await.unwrap()
}

pub(crate) async fn try_ask(server: &Redis, words: &[&str]) -> std::io::Result<String> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let server = server.clone();
    let asked = spawn_blocking(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        server.ask(&words)
    });
    asked.await.unwrap()
}

/// Waits until the replica has taken the place of the primary, and all Sentinels say so.
pub(crate) async fn until_taken_over(group: &ServerGroup<Redis>) {
    let replica = group.members()[1].program();
    until_role(replica, "master").await;
    for sentinel in group.members().iter().skip(2) {
        let names_it = async || {
            let sentinel = sentinel.program().url();
            let named = spawn_blocking(move || Redis::primary_of(&sentinel, PRIMARY)).await;
            named.unwrap().is_ok_and(|named| named == replica.address())
        };
        eventually("named", LONG, names_it).await;
    }
}

/// Waits until a server says that it is this: `master` or `slave`.
pub(crate) async fn until_role(server: &Redis, role: &str) {
    let is_it = async || {
        let said = try_ask(server, &["ROLE"]).await;
        said.is_ok_and(|said| said.contains(&format!("\r\n{role}\r\n")))
    };
    eventually(role, LONG, is_it).await;
}

/// How often a server has run a script since its start.
pub(crate) async fn scripts_run(server: &Redis) -> u64 {
    let said = ask(server, &["INFO", "commandstats"]).await;
    let calls = said.lines().filter_map(|line| {
        let rest = line.strip_prefix("cmdstat_eval")?;
        let (_, calls) = rest.split_once("calls=")?;
        calls.split(',').next()?.parse::<u64>().ok()
    });
    calls.sum()
}
