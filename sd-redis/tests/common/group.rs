//! Several servers that are one to their clients: Sentinels with a primary and a replica, a Cluster.

use std::time::Duration;

use sd_core::{Registry, RegistryConfig};
use sd_redis::RedisConfig;
use sd_testing::{ServerGroup, eventually};
use server_programs::{LocalServer, Redis};
use tokio::task::spawn_blocking;

use super::LONG;
use super::rights::{LOGIN, Rights, USER};

/// The name that Sentinels know the primary by.
pub(crate) const PRIMARY: &str = "main";
/// How soon is seen what no message has told.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(3);

/// How many servers have data. The Sentinels follow them.
const WITH_DATA: usize = 2;

/// The primary is the first, its replica the second. Each has a user with the rights that the README lists, and no more.
pub(crate) async fn sentinels() -> ServerGroup<Redis> {
    let rights = Rights::listed();
    let (at_servers, at_sentinels) = (rights.of_a_server(), rights.sentinels.join(" "));
    let programs = Redis::sentinels_from_env(PRIMARY).unwrap().into_iter();
    let programs = programs.enumerate().map(|(member, program)| {
        let rights = if member < WITH_DATA {
            &at_servers
        } else {
            &at_sentinels
        };
        program.with_config(format!("user {USER} {rights}"))
    });
    ServerGroup::launch(programs).await.unwrap()
}

/// Three primaries, and three replicas in their order. Each has a user with the rights that the README lists, and no more.
pub(crate) async fn cluster() -> ServerGroup<Redis> {
    let rights = Rights::listed().of_a_server();
    let programs = Redis::cluster_from_env().unwrap().into_iter();
    let programs = programs.map(|program| program.with_config(format!("user {USER} {rights}")));
    ServerGroup::launch(programs).await.unwrap()
}

/// `redis+sentinel://app:password@127.0.0.1:1,127.0.0.1:2/main`
pub(crate) fn sentinels_url(group: &ServerGroup<Redis>) -> String {
    let addresses = group.members().iter().skip(WITH_DATA);
    let addresses = addresses.map(|sentinel| sentinel.program().address().to_string());
    let addresses: Vec<String> = addresses.collect();
    let login = format!("sentinel_user={USER}&sentinel_password=password");
    let hosts = addresses.join(",");
    format!("redis+sentinel://{LOGIN}{hosts}/{PRIMARY}?{login}")
}

/// Of two of the six nodes, which know the others.
pub(crate) fn cluster_url(group: &ServerGroup<Redis>) -> String {
    let [first, .., last] = group.members() else {
        panic!("a cluster has several nodes")
    };
    let [first, last] = [first, last].map(|node| node.program().address());
    format!("redis+cluster://{LOGIN}{first},{last}")
}

/// No right was missing at any server.
pub(crate) async fn is_denied_nothing(group: &ServerGroup<Redis>) {
    for member in group
        .members()
        .iter()
        .filter(|member| member.id().is_some())
    {
        let denied = ask(member.program(), &["ACL", "LOG"]).await;
        assert_eq!(denied, "*0\r\n", "{}", member.program().address());
    }
}

/// A registry whose records outlast a failover.
pub(crate) fn registry(url: &str) -> Registry {
    registry_with(url, |config| config)
}

/// The same, with other settings.
pub(crate) fn registry_with(
    url: &str,
    change: impl FnOnce(RedisConfig) -> RedisConfig,
) -> Registry {
    let config = RedisConfig::from_url(url).unwrap();
    let config = config
        .with_poll_interval(POLL_INTERVAL)
        .with_request_timeout(Duration::from_secs(2));
    let mut settings = RegistryConfig::default();
    settings.registration.ttl = Duration::from_secs(60);
    sd_redis::connect_with(change(config), settings).unwrap()
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

/// Waits until a replica has all that its primary has now. `WAIT` would not tell: it is about the writes of its own connection.
pub(crate) async fn until_replicated(primary: &Redis, replica: &Redis) {
    let said = async |server, name| {
        let said = try_ask(server, &["INFO", "replication"]).await.ok()?;
        let value = said.lines().find_map(|line| line.strip_prefix(name));
        value?.strip_prefix(':')?.parse::<u64>().ok()
    };
    let written = said(primary, "master_repl_offset").await.unwrap();
    let has_it = async || {
        let read = said(replica, "slave_repl_offset").await;
        read.is_some_and(|read| read >= written)
    };
    eventually("replicated", LONG, has_it).await;
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
