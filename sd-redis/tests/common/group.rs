//! Several servers that are one to their clients: Sentinels with a primary and a replica, a Cluster.

use std::time::Duration;

use sd_core::{Registry, RegistryConfig};
use sd_redis::RedisConfig;
use sd_testing::{ServerGroup, TcpProxy, eventually};
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
/// How many nodes of a Cluster have slots.
const PRIMARIES: usize = 3;

/// The primary is the first, its replica the second. Each has a user with the rights that the README lists, and no more.
pub(crate) async fn sentinels() -> ServerGroup<Redis> {
    sentinels_with(|programs| programs).await
}

/// The same, started in another way.
pub(crate) async fn sentinels_with(
    change: impl FnOnce(Vec<Redis>) -> Vec<Redis>,
) -> ServerGroup<Redis> {
    let rights = Rights::listed();
    let (at_servers, at_sentinels) = (rights.of_a_server(), rights.sentinels.join(" "));
    let programs = change(Redis::sentinels_from_env(PRIMARY).unwrap());
    let programs = programs.into_iter().enumerate().map(|(member, program)| {
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
    cluster_with(|programs| programs).await
}

/// The same, started in another way.
pub(crate) async fn cluster_with(
    change: impl FnOnce(Vec<Redis>) -> Vec<Redis>,
) -> ServerGroup<Redis> {
    let user = format!("user {USER} {}", Rights::listed().of_a_server());
    let programs = change(Redis::cluster_from_env().unwrap()).into_iter();
    let programs = programs.map(|program| program.with_config(&user));
    ServerGroup::launch(programs).await.unwrap()
}

/// The same, and each primary announces a proxy before it in place of itself.
pub(crate) async fn cluster_behind_proxies() -> (ServerGroup<Redis>, Vec<TcpProxy>) {
    let mut programs = Redis::cluster_from_env().unwrap();
    let mut proxies = Vec::new();
    for program in &mut programs[..PRIMARIES] {
        let proxy = TcpProxy::start(program.address()).await.unwrap();
        let line = format!("cluster-announce-port {}", proxy.address().port());
        *program = program.clone().with_config(line);
        proxies.push(proxy);
    }
    let group = cluster_with(|_| programs).await;
    // They learn it from each other.
    for member in group.members() {
        let knows_all = async || {
            let said = try_ask(member.program(), &["CLUSTER", "NODES"]).await;
            let is_named =
                |said: &str, proxy: &TcpProxy| said.contains(&format!("{}@", proxy.address()));
            said.is_ok_and(|said| proxies.iter().all(|proxy| is_named(&said, proxy)))
        };
        eventually("known", LONG, knows_all).await;
    }
    for (replica, proxy) in group.members()[PRIMARIES..].iter().zip(&proxies) {
        let follows = async || {
            let said = try_ask(replica.program(), &["INFO", "replication"]).await;
            let port = format!("master_port:{}\r\n", proxy.address().port());
            said.is_ok_and(|said| said.contains(&port) && said.contains("master_link_status:up"))
        };
        eventually("followed", LONG, follows).await;
    }
    (group, proxies)
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

/// Waits until a replica has all that its primary has now.
pub(crate) async fn until_replicated(primary: &Redis, replica: &Redis) {
    let has_it = async || {
        let [primary, replica] = [primary, replica].map(Redis::clone);
        let asked = spawn_blocking(move || replica.has_all_of(&primary)).await;
        asked.unwrap().is_ok_and(|has_it| has_it)
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
    calls(server, "cmdstat_eval").await
}

/// How often a server has been asked what is counted in `INFO` under what begins so.
pub(crate) async fn calls(server: &Redis, begin: &str) -> u64 {
    let said = ask(server, &["INFO", "all"]).await;
    let calls = said.lines().filter_map(|line| {
        let rest = line.strip_prefix(begin)?;
        let (_, calls) = rest.split_once("calls=").or(rest.split_once("count="))?;
        calls.split(',').next()?.parse::<u64>().ok()
    });
    calls.sum()
}
