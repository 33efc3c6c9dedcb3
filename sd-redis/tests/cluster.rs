//! A Cluster of three primaries and their replicas: a slot moves, a node is lost. Everything is done by a user with the rights of the README.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::election::{
    Booth, LASTING, after, first, is_waiting, leads, name, ticket_for, told_at_last, waits,
};
use common::group::{
    ask, calls, cluster, cluster_behind_proxies, cluster_url, is_denied_nothing, registry, try_ask,
    until_replicated, until_role,
};
use common::rights::{LOGIN, USER};
use common::{LONG, TTL, event, eventually, instance, is_live_with, key, told, until};
use sd_core::ErrorKind;
use sd_redis::{DEFAULT_PREFIX, RedisConfig};
use sd_testing::{Fault, ServerGroup, TcpProxy, is_stale};
use server_programs::{LocalServer, Redis};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};

/// The shortest that there is: attempts to register with it are given up soonest.
const SHORT_TTL: Duration = Duration::from_secs(1);
/// No renewal comes while a test runs.
const LASTING_TTL: Duration = Duration::from_secs(600);

/// The primary that has the slot of a key: they share all slots in their order.
async fn owner_of(group: &ServerGroup<Redis>, key: &'static str) -> (u16, usize) {
    let node = group.members()[0].program().clone();
    let slot = spawn_blocking(move || node.slot_of(key)).await.unwrap();
    let slot = slot.unwrap();
    (slot, usize::from(slot) * 3 / 16_384)
}

/// A service at each of the three primaries, in their order.
async fn services_at(group: &ServerGroup<Redis>) -> [&'static str; 3] {
    let mut at = [None; 3];
    for service in ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"] {
        at[owner_of(group, service).await.1].get_or_insert(service);
    }
    at.map(|service| service.unwrap())
}

/// Moves a slot, and waits until all nodes know it: what a node that is lost at once was still to tell would be lost with it.
async fn move_slot(group: &ServerGroup<Redis>, slot: u16, from: usize, to: usize) {
    let [source, target] = [from, to].map(|member| group.members()[member].program().clone());
    let moved = spawn_blocking(move || source.move_slot(slot, &target)).await;
    moved.unwrap().unwrap();
    let target = group.members()[to].program();
    for member in group.members() {
        let knows_it = async || {
            let [asked, target] = [member.program(), target].map(Redis::clone);
            let asked = spawn_blocking(move || asked.knows_slot_at(slot, &target)).await;
            asked.unwrap().is_ok_and(|knows_it| knows_it)
        };
        eventually("known", LONG, knows_it).await;
    }
}

/// Waits until a replica has taken the place of its primary.
async fn until_taken_over(replica: &Redis) {
    until_role(replica, "master").await;
    let is_back = async || {
        let said = try_ask(replica, &["CLUSTER", "INFO"]).await;
        said.is_ok_and(|said| said.contains("cluster_state:ok"))
    };
    eventually("served again", LONG, is_back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_service_and_an_election_whose_slots_move_go_on() {
    let group = cluster().await;
    let url = cluster_url(&group);
    let (owner, reader) = (registry(&url), registry(&url));
    let _kept = owner.register(instance(1)).await.unwrap();
    let mut seen = reader.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let booth = Booth::alone(&url);
    let (one, two) = (booth.elector(), booth.elector());
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    let leader = one.join(&a).await.unwrap();
    let token = leads(&*leader).await;
    let next = two.join(&b).await.unwrap();
    let waiting = waits(&*next).await;

    for key in ["greeter", "reports/nightly"] {
        let (slot, from) = owner_of(&group, key).await;
        move_slot(&group, slot, from, (from + 1) % 3).await;
    }
    let _second = owner.register(instance(2)).await.unwrap();
    until(&mut seen, "two", is_live_with(2)).await;
    leader.confirm().await.unwrap();
    next.confirm().await.unwrap();
    assert_eq!(leads(&*leader).await, token);
    let told = after(&*next, &waiting);
    tokio::pin!(told);
    is_waiting(told.as_mut());
    one.leave(&a).await.unwrap();
    assert!(first(told.await).0 > token);
    is_denied_nothing(&group).await;
}

/// What a slot's new node has already is asked for there, command by command, and the rest where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn while_the_keys_of_a_slot_move_a_reader_that_begins_reads_and_an_owner_registers() {
    let group = cluster().await;
    let url = cluster_url(&group);
    let owner = registry(&url);
    let _kept = owner.register(instance(1)).await.unwrap();
    let (slot, from) = owner_of(&group, "greeter").await;
    let (source, target) = (&group.members()[from], &group.members()[(from + 1) % 3]);
    let (source, target) = (source.program(), target.program());
    let [source_id, target_id] = [
        ask(source, &["CLUSTER", "MYID"]).await,
        ask(target, &["CLUSTER", "MYID"]).await,
    ];
    let (number, stays) = (slot.to_string(), "another:{greeter}");
    let set_slot = ["CLUSTER", "SETSLOT", &number];
    ask(source, &["SET", stays, "of another program"]).await;
    ask(
        target,
        &[&set_slot[..], &["IMPORTING", &source_id]].concat(),
    )
    .await;
    ask(
        source,
        &[&set_slot[..], &["MIGRATING", &target_id]].concat(),
    )
    .await;
    let port = target.address().port().to_string();
    let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
    let keys = ["records", "ends", "state"].map(|part| key(DEFAULT_PREFIX, "greeter", part));
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    ask(source, &[&migrate, keys.as_slice()].concat()).await;

    let mut began = registry(&url).subscribe("greeter").unwrap();
    until(&mut began, "there", is_live_with(1)).await;
    let second = owner.register(instance(2)).await.unwrap();
    until(&mut began, "two", is_live_with(2)).await;
    second.deregister().await.unwrap();
    until(&mut began, "one", is_live_with(1)).await;

    // Each of them learns from an answer that the slot has moved.
    ask(source, &[&migrate[..], &[stays]].concat()).await;
    for node in [target, source] {
        ask(node, &[&set_slot[..], &["NODE", &target_id]].concat()).await;
    }
    let _third = owner.register(instance(3)).await.unwrap();
    until(&mut began, "two again", is_live_with(2)).await;
    assert_eq!(registry(&url).list("greeter").await.unwrap().len(), 2);
}

/// Each of several owners begins with any of the nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn while_a_node_swallows_everything_what_is_at_the_others_is_kept_and_registered() {
    const OWNERS: u16 = 5;
    let (group, proxies) = cluster_behind_proxies().await;
    let [lost, kept, new] = services_at(&group).await;
    // So that the node would be waited for throughout, if it were.
    let patient = RedisConfig::from_url(&cluster_url(&group))
        .unwrap()
        .with_connect_timeout(LONG)
        .with_request_timeout(LONG);
    let at = |service, owner: u16| {
        let endpoint = format!("10.0.0.1:{}", owner + 1);
        sd_core::Instance::new(service, endpoint).unwrap()
    };
    let (mut owners, mut there, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..OWNERS {
        let owner = sd_redis::connect(patient.clone()).unwrap();
        for (service, guards) in [(lost, &mut there), (kept, &mut elsewhere)] {
            let mut guard = owner.register(at(service, number)).ttl(TTL).await.unwrap();
            told(&mut guard);
            guards.push(guard);
        }
        owners.push(owner);
    }

    proxies[0].set(Fault::BlackHole);
    for guard in &mut there {
        event(guard, "at_risk").await;
    }
    // These wait for the node, and give it up only long after this.
    let mut reading = JoinSet::new();
    for owner in &owners {
        let owner = owner.clone();
        reading.spawn(async move { owner.list(lost).await });
    }
    let mut registered = Vec::new();
    for (number, owner) in (0..).zip(&owners) {
        let registering = owner.register(at(new, number)).ttl(TTL);
        registered.push(registering.confirm_within(LONG / 2).await.unwrap());
    }
    // What is held up by that node has ended by then.
    sleep(TTL * 2).await;
    let is_lost =
        |event: &sd_core::RegistrationEvent| matches!(event.as_str(), "lost" | "retrying");
    for guard in &mut elsewhere {
        let events = told(guard);
        assert!(!events.iter().any(is_lost), "{events:?}");
    }
    proxies[0].set(Fault::Pass);
    for guard in &mut there {
        event(guard, "registered").await;
    }
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn slots_that_have_moved_are_asked_for_over_connections_that_are_open() {
    let (group, proxies) = cluster_behind_proxies().await;
    let registry = registry(&cluster_url(&group));
    for service in services_at(&group).await {
        registry.list(service).await.unwrap();
    }
    let made = || proxies.iter().map(|proxy| proxy.counts().accepted);
    let before: Vec<usize> = made().collect();
    let asked = async || {
        let mut asked = 0;
        for member in group.members() {
            asked += calls(member.program(), "cmdstat_cluster|slots").await;
        }
        asked
    };
    let (slot, mut at) = owner_of(&group, "greeter").await;
    for _ in 0..3 {
        let asked_before = asked().await;
        let to = (at + 1) % 3;
        let [source, target] = [at, to].map(|node| group.members()[node].program().clone());
        let moved = spawn_blocking(move || source.move_slot(slot, &target)).await;
        moved.unwrap().unwrap();
        at = to;
        let is_asked = async || {
            registry.list("greeter").await.unwrap();
            asked().await > asked_before
        };
        eventually("asked for", LONG, is_asked).await;
    }
    assert_eq!(made().collect::<Vec<usize>>(), before);
}

/// As after a night in which nothing was asked of two nodes, whose connections a firewall has forgotten.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn slots_are_found_although_every_connection_that_was_open_has_ended() {
    let (mut group, proxies) = cluster_behind_proxies().await;
    let registry = registry(&format!("redis+cluster://{LOGIN}{}", proxies[0].address()));
    let services = services_at(&group).await;
    for service in services {
        registry.list(service).await.unwrap();
    }
    let replica = group.members()[3].program().clone();
    group.members_mut()[0].kill().unwrap();
    until_taken_over(&replica).await;
    for proxy in &proxies[1..] {
        proxy.cut_connections();
    }
    let is_found = async || registry.list(services[0]).await.is_ok();
    eventually("found", LONG, is_found).await;
}

/// As an operator does before the machine of a node is stopped.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_node_whose_slots_have_all_moved_is_left_and_asked_no_more() {
    let group = cluster().await;
    let registry = registry(&cluster_url(&group));
    let [former, replica] = [0, 3].map(|node| group.members()[node].program().clone());
    let is_connected = async || {
        let clients = ask(&former, &["CLIENT", "LIST"]).await;
        clients.contains(&format!("user={USER} "))
    };
    registry.list(services_at(&group).await[0]).await.unwrap();
    assert!(is_connected().await);
    ask(&replica, &["CLUSTER", "FAILOVER"]).await;
    until_role(&former, "slave").await;
    let moved = async || calls(&former, "errorstat_MOVED").await;
    let before = moved().await;
    let is_left = async || {
        registry.list(services_at(&group).await[0]).await.unwrap();
        !is_connected().await
    };
    eventually("left", LONG, is_left).await;
    let while_leaving = moved().await;
    assert!(while_leaving > before);
    for number in 0..100 {
        registry.list(&format!("s{number}")).await.unwrap();
    }
    assert_eq!(moved().await, while_leaving);
}

/// As a machine does that has lost its network. A process that only registers is told of nothing, and its attempts are given up before
/// they fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn nodes_that_swallow_everything_are_left_by_a_process_that_only_registers() {
    let group = cluster().await;
    let hole = TcpProxy::start(group.members()[0].program().address())
        .await
        .unwrap();
    hole.set(Fault::BlackHole);
    let hosts = format!("@{},", hole.address());
    let url = cluster_url(&group).replace('@', &hosts);
    let config = RedisConfig::from_url(&url).unwrap().with_ttl(TTL);
    let patient = config.with_connect_timeout(LONG).with_request_timeout(LONG);
    // Each begins with any of the nodes that are named.
    let mut owner = sd_redis::connect(patient.clone()).unwrap();
    let mut kept = vec![owner.register(instance(1)).await.unwrap()];
    for port in 101..200 {
        if hole.counts().accepted > 0 {
            break;
        }
        owner = sd_redis::connect(patient.clone()).unwrap();
        kept.push(owner.register(instance(port)).await.unwrap());
    }
    assert!(hole.counts().accepted > 0);

    let (_, lost) = owner_of(&group, "greeter").await;
    group.members()[lost].freeze().unwrap();
    until_taken_over(group.members()[lost + 3].program()).await;
    let second = owner.register(instance(2)).confirm_within(LONG).await;
    second.unwrap();
    group.members()[lost].thaw().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_service_and_an_election_outlive_the_node_that_has_them() {
    let mut group = cluster().await;
    let url = cluster_url(&group);
    let (owner, reader) = (registry(&url), registry(&url));
    let _kept = owner.register(instance(1)).await.unwrap();
    let mut seen = reader.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let booth = Booth::alone(&url);
    let (one, two) = (booth.elector(), booth.elector());
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    let leader = one.join(&a).await.unwrap();
    let token = leads(&*leader).await;
    let next = two.join(&b).await.unwrap();
    let waiting = waits(&*next).await;

    // Both at one node, which is then lost.
    let (_, lost) = owner_of(&group, "greeter").await;
    let (slot, from) = owner_of(&group, "reports/nightly").await;
    if from != lost {
        move_slot(&group, slot, from, lost).await;
    }
    leader.confirm().await.unwrap();
    let [primary, replica] = [lost, lost + 3].map(|node| group.members()[node].program().clone());
    until_replicated(&primary, &replica).await;
    group.members_mut()[lost].kill().unwrap();
    until_taken_over(&replica).await;

    for entry in [&leader, &next] {
        eventually("confirmed", LONG, async || entry.confirm().await.is_ok()).await;
    }
    assert_eq!(leads(&*leader).await, token);
    let is_registered = async || owner.list("greeter").await.is_ok();
    eventually("listed", LONG, is_registered).await;
    let _second = owner.register(instance(2)).await.unwrap();
    until(&mut seen, "two", is_live_with(2)).await;
    let leaving = async {
        eventually("left", LONG, async || one.leave(&a).await.is_ok()).await;
    };
    let (told, ()) = tokio::join!(told_at_last(&*next, &waiting), leaving);
    assert!(first(told).0 > token);
    // The node comes back as a replica with nothing, and is no one's primary.
    group.members_mut()[lost].restart_empty().await.unwrap();
    next.confirm().await.unwrap();
}

/// The new primary counts on from where its replica was, and soon has as many changes as the one before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_reader_sees_what_a_failover_has_lost_although_the_versions_are_the_same_again() {
    let group = cluster().await;
    let url = cluster_url(&group);
    let (owner, reader) = (registry(&url), registry(&url));
    let lasting = async |port| {
        let registering = owner.register(instance(port)).ttl(LASTING_TTL);
        registering.await.unwrap()
    };
    let _kept = lasting(1).await;
    let (_, at) = owner_of(&group, "greeter").await;
    let [primary, replica] = [at, at + 3].map(|node| group.members()[node].program().clone());
    until_replicated(&primary, &replica).await;
    // The replica cannot follow any more: the primary has no password.
    ask(&replica, &["CONFIG", "SET", "masterauth", "wrong"]).await;
    ask(&replica, &["CLIENT", "KILL", "TYPE", "master"]).await;
    let _lost = lasting(2).await;
    let mut seen = reader.subscribe("greeter").unwrap();
    let before = until(&mut seen, "both", is_live_with(2)).await;
    let has = |port: &str| {
        let port = port.to_owned();
        move |state: &sd_core::State| {
            let set = state.snapshot();
            let mut endpoints = set.instances().iter().map(|one| one.endpoint().to_string());
            endpoints.any(|endpoint| endpoint.ends_with(&port))
        }
    };

    ask(&replica, &["CLUSTER", "FAILOVER", "TAKEOVER"]).await;
    until_role(&replica, "master").await;
    until_role(&primary, "slave").await;
    let _new = lasting(3).await;
    let state = ask(&replica, &["HGET", "services:{greeter}:state", "version"]).await;
    let before = before.snapshot().revision().clone();
    assert_eq!(state, before.value().to_string());
    let is_true = |state: &sd_core::State| has(":3")(state) && !has(":2")(state);
    let after = until(&mut seen, "as it is", is_true).await;
    // The positions before and after it cannot be compared.
    let after = after.snapshot().revision().clone();
    assert_eq!(after.partial_cmp(&before), None, "{before:?} {after:?}");
    // And its changes are told again.
    let _next = lasting(4).await;
    until(&mut seen, "the next", has(":4")).await;
}

/// As above, and the connections to the node end with it: the feed that finds the loss is another one than that which was told what is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn what_a_killed_node_takes_with_it_is_missed_by_a_feed_that_is_opened_afterwards() {
    let mut group = cluster().await;
    let url = cluster_url(&group);
    let (owner, reader) = (registry(&url), registry(&url));
    let lasting = async |port| {
        let registering = owner.register(instance(port)).ttl(LASTING_TTL);
        registering.await.unwrap()
    };
    let _kept = lasting(1).await;
    let (_, at) = owner_of(&group, "greeter").await;
    let [primary, replica] = [at, at + 3].map(|node| group.members()[node].program().clone());
    until_replicated(&primary, &replica).await;
    for setting in [
        ["masterauth", "wrong"],
        // It takes over when the reader has lost its feed.
        ["cluster-replica-no-failover", "yes"],
    ] {
        ask(&replica, &[&["CONFIG", "SET"], &setting[..]].concat()).await;
    }
    ask(&replica, &["CLIENT", "KILL", "TYPE", "master"]).await;
    let _lost = lasting(2).await;
    let mut seen = reader.subscribe("greeter").unwrap();
    let before = until(&mut seen, "both", is_live_with(2)).await;
    let before = before.snapshot().revision().clone();
    group.members_mut()[at].kill().unwrap();
    until(&mut seen, "stale", is_stale).await;

    ask(&replica, &["CLUSTER", "FAILOVER", "TAKEOVER"]).await;
    until_taken_over(&replica).await;
    let after = until(&mut seen, "as it is", is_live_with(1)).await;
    let after = after.snapshot().revision().clone();
    assert_eq!(after.partial_cmp(&before), None, "{before:?} {after:?}");
    // It counts to the same number again, and that is another position. So it is for all that read now.
    let _new = lasting(3).await;
    let again = until(&mut seen, "both again", is_live_with(2)).await;
    let again = again.snapshot().revision().clone();
    assert_eq!(again.value(), before.value());
    assert_eq!(again.domain(), after.domain());
    let listed = reader.list("greeter").await.unwrap();
    assert_eq!(listed.revision(), &again);
}

/// The list of all services is at one node, whatever node the services are at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn while_the_node_with_the_list_is_frozen_services_on_others_are_registered_and_renewed() {
    let group = cluster().await;
    let url = cluster_url(&group);
    // The others serve what they have, whatever is missing.
    for node in group.members() {
        let words = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
        assert_eq!(ask(node.program(), &words).await, "OK");
    }
    // Long enough for the frozen node to be waited for, if it were.
    let patient = RedisConfig::from_url(&url)
        .unwrap()
        .with_request_timeout(LONG)
        .with_connect_timeout(LONG);
    let owner = sd_redis::connect(patient).unwrap();
    let (_, list_at) = owner_of(&group, "services:list").await;
    let mut elsewhere = Vec::new();
    for service in ["s1", "s2", "s3", "s4", "s5", "s6"] {
        if owner_of(&group, service).await.1 != list_at {
            elsewhere.push(service);
        }
    }
    let [one, two, ..] = elsewhere[..] else {
        panic!("all slots are at one node")
    };
    let at = |service| sd_core::Instance::new(service, "10.0.0.1:1").unwrap();
    let mut before = owner.register(at(one)).ttl(TTL).await.unwrap();
    told(&mut before);

    group.members()[list_at].freeze().unwrap();
    let since = Instant::now();
    let mut during = owner.register(at(two)).ttl(TTL).await.unwrap();
    let short = sd_core::Instance::new(two, "10.0.0.1:2").unwrap();
    let _short = owner.register(short).ttl(SHORT_TTL).await.unwrap();
    assert!(since.elapsed() < LONG, "{:?}", since.elapsed());
    sleep(TTL * 2).await;
    for guard in [&mut before, &mut during] {
        let events = told(guard);
        let is_well = |event: &sd_core::RegistrationEvent| event.as_str() == "registered";
        assert!(events.iter().all(is_well), "{events:?}");
    }
    group.members()[list_at].thaw().unwrap();
    // By now the list is at the node that has taken over, and is noted there.
    let other = registry(&url);
    let are_listed = async || {
        let listed = other.services().await.unwrap_or_default();
        [one, two]
            .iter()
            .all(|name| listed.iter().any(|listed| listed.as_str() == *name))
    };
    eventually("listed", LONG, are_listed).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_guarded_write_takes_keys_in_the_slot_of_its_election_and_refuses_others() {
    let group = cluster().await;
    let booth = Booth::alone(&cluster_url(&group));
    let elector = booth.elector();
    let ticket = ticket_for("a", LASTING);
    let token = leads(&*elector.join(&ticket).await.unwrap()).await;
    let registry = booth.registry();
    let guard = sd_redis::leads(&registry, &name(), ticket.id, &token)
        .await
        .unwrap();
    let refused = guard.keys(["report"]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let target = format!("report:{{{}}}", name());
    let keys = guard.keys([target.as_str()]).unwrap();
    let args: Vec<String> = guard
        .args(["1"])
        .into_iter()
        .map(|arg| String::from_utf8(arg).unwrap())
        .collect();
    let script = guard.script("return redis.call('SET', KEYS[1], ARGV[1])");
    let count = keys.len().to_string();
    let words = ["EVAL", &script, &count].into_iter();
    let words: Vec<&str> = words
        .chain(keys.iter().chain(&args).map(String::as_str))
        .collect();
    let (_, owner) = owner_of(&group, "reports/nightly").await;
    let owner = group.members()[owner].program();
    assert_eq!(ask(owner, &words).await, "OK");
    elector.leave(&ticket).await.unwrap();
    let error = try_ask(owner, &words).await.unwrap_err().to_string();
    assert!(error.contains(sd_redis::TERM_OVER), "{error}");
}
