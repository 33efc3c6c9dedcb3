//! A real server that changes, is killed and frozen: what readers see, and when.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::zone::{Zone, address, alias, many, own_server, srv};
use common::{
    BUSY, LONGEST, SHORTEST, addresses, connect, is_live_at, is_live_with, is_stale, until, why,
};
use hickory_resolver::proto::rr::Record;
use sd_core::Registry;
use sd_dns::{DnsConfig, Family, TARGET_KEY, Transport};
use sd_testing::free_port;
use server_programs::Knot;
use tokio::time::Instant;

const PORT: u16 = 50051;
const TTL: Duration = Duration::from_secs(2);

/// Reads soon after the time-to-live.
fn config(zone: &Zone) -> DnsConfig {
    DnsConfig::addresses(PORT)
        .with_resolvers([zone.server.to_string()])
        .with_domain(&zone.domain)
        .with_intervals(SHORTEST, LONGEST)
        .with_timeout(Duration::from_secs(1))
}

fn registry(zone: &Zone) -> Registry {
    connect(config(zone))
}

fn srv_registry(zone: &Zone) -> Registry {
    let config = DnsConfig::srv()
        .with_resolvers([zone.server.to_string()])
        .with_domain(&zone.domain)
        .with_name("_grpc._tcp.{service}")
        .with_intervals(SHORTEST, LONGEST);
    connect(config)
}

fn ttl() -> u32 {
    u32::try_from(TTL.as_secs()).unwrap()
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn a_change_is_seen_when_the_time_to_live_has_passed() {
    let zone = Zone::shared();
    zone.add("greeter", ttl(), &[address("10.0.0.1")]).await;
    let mut seen = registry(&zone).subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_at(["10.0.0.1:50051"])).await;
    for (index, new) in ["10.0.0.2", "10.0.0.3", "10.0.0.4"].into_iter().enumerate() {
        zone.add("greeter", ttl(), &[address(new)]).await;
        let changed = Instant::now();
        until(&mut seen, "more", is_live_with(index + 2)).await;
        let late = changed.elapsed();
        assert!(late < TTL + Duration::from_millis(500) + BUSY, "{late:?}");
    }
    zone.remove("greeter", &address("10.0.0.2")).await;
    let changed = Instant::now();
    until(&mut seen, "less", is_live_with(3)).await;
    let late = changed.elapsed();
    assert!(late < TTL + Duration::from_millis(500) + BUSY, "{late:?}");
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn a_change_is_seen_at_once_by_who_asks_for_it() {
    let zone = Zone::shared();
    zone.add("greeter", 3600, &[address("10.0.0.1")]).await;
    let mut seen = registry(&zone).subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    zone.add("greeter", 3600, &[address("10.0.0.2")]).await;
    let state = seen.refresh().await.unwrap();
    assert_eq!(addresses(&state), ["10.0.0.1:50051", "10.0.0.2:50051"]);
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn addresses_of_both_families_are_read_and_one_family_alone_if_asked() {
    let zone = Zone::shared();
    zone.add("both", 1, &[address("10.0.0.1")]).await;
    zone.add("both", 1, &[address("2001:db8::1")]).await;
    zone.add("six", 1, &[address("2001:db8::1")]).await;
    let registry = registry(&zone);
    let both = ["10.0.0.1:50051", "[2001:db8::1]:50051"];
    let mut seen = registry.subscribe("both").unwrap();
    until(&mut seen, "both", is_live_at(both)).await;
    let mut seen = registry.subscribe("six").unwrap();
    until(&mut seen, "IPv6 alone", is_live_at([both[1]])).await;
    let only = connect(config(&zone).with_family(Family::Ipv4));
    let mut seen = only.subscribe("both").unwrap();
    until(&mut seen, "IPv4 alone", is_live_at([both[0]])).await;
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn a_name_that_is_gone_is_believed_when_it_is_told_twice() {
    let zone = Zone::shared();
    zone.add("greeter", 1, &[address("10.0.0.1"), address("10.0.0.2")])
        .await;
    let mut seen = registry(&zone).subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(2)).await;
    zone.remove_name("greeter").await;
    let removed = Instant::now();
    let doubted = until(&mut seen, "doubted", is_stale).await;
    assert_eq!(doubted.snapshot().len(), 2);
    assert!(
        why(&doubted).contains("does not exist"),
        "{}",
        why(&doubted)
    );
    until(&mut seen, "gone", is_live_with(0)).await;
    // The time-to-live of the record, and twice that of its absence, each with what is added at random.
    let late = removed.elapsed();
    assert!(late < Duration::from_secs(4) + BUSY, "{late:?}");
    zone.add("greeter", 1, &[address("10.0.0.3")]).await;
    until(&mut seen, "back", is_live_at(["10.0.0.3:50051"])).await;
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn aliases_are_followed_and_may_change() {
    let zone = Zone::shared();
    zone.add("blue", 1, &[address("10.0.0.1")]).await;
    zone.add("green", 1, &[address("10.0.0.2")]).await;
    let (blue, green) = (alias(&zone.name("blue")), alias(&zone.name("green")));
    zone.add("stage", 1, std::slice::from_ref(&blue)).await;
    zone.add("greeter", 1, &[alias(&zone.name("stage"))]).await;
    let mut seen = registry(&zone).subscribe("greeter").unwrap();
    until(&mut seen, "blue", is_live_at(["10.0.0.1:50051"])).await;
    let change = vec![
        zone.removal("stage", &blue),
        Record::from_rdata(zone.name("stage"), 1, green),
    ];
    zone.update(change).await.unwrap();
    until(&mut seen, "green", is_live_at(["10.0.0.2:50051"])).await;
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn a_thousand_addresses_do_not_fit_into_a_datagram_and_are_read_whole() {
    let zone = Zone::shared();
    for part in many(1000).chunks(250) {
        zone.add("greeter", 1, part).await;
    }
    let mut seen = registry(&zone).subscribe("greeter").unwrap();
    until(&mut seen, "all", is_live_with(1000)).await;
    let tcp = connect(config(&zone).with_transport(Transport::Tcp));
    assert_eq!(tcp.list("greeter").await.unwrap().len(), 1000);
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn srv_records_name_port_priority_and_weight() {
    let zone = Zone::shared();
    let [one, two] = [zone.name("one"), zone.name("two")];
    zone.add("one", 1, &[address("10.0.0.1")]).await;
    zone.add("two", 1, &[address("10.0.0.2")]).await;
    zone.add("two", 1, &[address("2001:db8::2")]).await;
    let name = "_grpc._tcp.greeter";
    let nowhere = zone.name("nowhere");
    let records = [
        srv(0, 10, 81, &one),
        srv(0, 0, 82, &two),
        srv(7, 5, 83, &two),
        srv(0, 1, 84, &nowhere),
    ];
    zone.add(name, 1, &records).await;
    let registry = srv_registry(&zone);
    let mut seen = registry.subscribe("greeter").unwrap();
    let state = until(&mut seen, "all", is_live_with(5)).await;
    let ranks: Vec<_> = state
        .instances()
        .iter()
        .map(|one| {
            let endpoint = one.endpoint().to_string();
            (endpoint, one.priority(), one.weight())
        })
        .collect();
    let expected = [
        ("10.0.0.1:81", 0, 10),
        ("10.0.0.2:82", 0, 1),
        ("10.0.0.2:83", 7, 5),
        ("[2001:db8::2]:82", 0, 1),
        ("[2001:db8::2]:83", 7, 5),
    ];
    let expected =
        expected.map(|(endpoint, priority, weight)| (endpoint.to_owned(), priority, weight));
    assert_eq!(ranks, expected);
    let target = &state.instances()[0].metadata()[TARGET_KEY];
    assert_eq!(*target, one.to_ascii());
    let skipped = state.snapshot().skipped();
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    assert_eq!(skipped[0].key, nowhere.to_ascii());
    // A host that moves is another instance, and the others stay as they are.
    zone.add("one", 1, &[address("10.0.0.9")]).await;
    zone.remove("one", &address("10.0.0.1")).await;
    let moved = until(&mut seen, "moved", |state| {
        addresses(state).contains(&"10.0.0.9:81".to_owned()) && state.instances().len() == 5
    });
    let moved = moved.await;
    for instance in &state.instances()[1..] {
        assert_eq!(moved.snapshot().get(instance.id()), Some(instance));
    }
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn a_server_that_is_killed_takes_nothing_away_and_is_followed_again() {
    let mut server = own_server().await;
    let zone = Zone::of(&server);
    zone.add("greeter", 1, &[address("10.0.0.1")]).await;
    let mut seen = registry(&zone).subscribe("greeter").unwrap();
    let before = until(&mut seen, "there", is_live_with(1)).await;
    server.kill().unwrap();
    let stale = until(&mut seen, "stale", is_stale).await;
    assert!(
        why(&stale).contains(&zone.server.to_string()),
        "{}",
        why(&stale)
    );
    assert_eq!(stale.instances(), before.instances());
    server.restart().await.unwrap();
    let after = until(&mut seen, "back", is_live_with(1)).await;
    assert_eq!(after.instances(), before.instances());
    zone.add("greeter", 1, &[address("10.0.0.2")]).await;
    until(&mut seen, "followed", is_live_with(2)).await;
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn a_server_that_freezes_is_found_out_and_followed_again() {
    let server = own_server().await;
    let zone = Zone::of(&server);
    zone.add("greeter", 1, &[address("10.0.0.1")]).await;
    for transport in [Transport::Auto, Transport::Tcp] {
        let registry = connect(config(&zone).with_transport(transport));
        let mut seen = registry.subscribe("greeter").unwrap();
        until(&mut seen, "there", is_live_with(1)).await;
        server.freeze().unwrap();
        let stale = until(&mut seen, "stale", is_stale).await;
        assert!(why(&stale).contains("no answer in time"), "{}", why(&stale));
        assert_eq!(stale.instances().len(), 1);
        server.thaw().unwrap();
        until(&mut seen, "back", is_live_with(1)).await;
    }
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn trouble_of_one_resolver_is_answered_by_the_next() {
    let frozen = own_server().await;
    frozen.freeze().unwrap();
    let zone = Zone::shared();
    zone.add("greeter", 1, &[address("10.0.0.1")]).await;
    let down = format!("127.0.0.1:{}", free_port().unwrap());
    let frozen = Zone::of(&frozen).server.to_string();
    let resolvers = [down, frozen, zone.server.to_string()];
    let registry = connect(config(&zone).with_resolvers(resolvers));
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    zone.add("greeter", 1, &[address("10.0.0.2")]).await;
    until(&mut seen, "followed", is_live_with(2)).await;
}

/// It answers SERVFAIL.
#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn a_server_that_fails_is_told_and_nothing_is_taken_for_empty() {
    let zone = Zone::shared();
    let failing = connect(config(&zone).with_domain(Knot::UNLOADED_ZONE));
    let error = failing.list("greeter").await.unwrap_err();
    assert_eq!(error.kind(), sd_core::ErrorKind::Unavailable);
    let report = error.report().to_string();
    assert!(report.contains("greeter.unloaded.test."), "{report}");
    let mut seen = failing.subscribe("greeter").unwrap();
    let state = until(&mut seen, "told", |state| !why(state).is_empty()).await;
    assert!(
        why(&state).contains("could not find out"),
        "{}",
        why(&state)
    );
    // A name that is not known is not empty.
    assert!(!state.is_known());
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn aliases_in_a_circle_take_nothing_away() {
    let zone = Zone::shared();
    zone.add("greeter", 1, &[address("10.0.0.1")]).await;
    let mut seen = registry(&zone).subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let [greeter, other] = [zone.name("greeter"), zone.name("other")];
    zone.add("other", 1, &[alias(&greeter)]).await;
    let change = vec![
        zone.removal("greeter", &address("10.0.0.1")),
        Record::from_rdata(greeter, 1, alias(&other)),
    ];
    zone.update(change).await.unwrap();
    let stale = until(&mut seen, "stale", is_stale).await;
    assert!(why(&stale).contains("circle"), "{}", why(&stale));
    assert_eq!(addresses(&stale), ["10.0.0.1:50051"]);
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn a_time_to_live_of_0_or_a_year_is_kept_within_the_bounds() {
    let (min, max) = (Duration::from_millis(300), Duration::from_millis(900));
    let zone = Zone::shared();
    for (name, ttl, least) in [("zero", 0, min), ("year", 365 * 24 * 3600, max)] {
        zone.add(name, ttl, &[address("10.0.0.1")]).await;
        let config = config(&zone).with_intervals(min, max);
        let mut seen = connect(config).subscribe(name).unwrap();
        until(&mut seen, "there", is_live_with(1)).await;
        let start = Instant::now();
        zone.add(name, ttl, &[address("10.0.0.2")]).await;
        until(&mut seen, "both", is_live_with(2)).await;
        let late = start.elapsed();
        assert!(late < least + Duration::from_millis(500) + BUSY, "{late:?}");
    }
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn an_address_that_two_records_name_is_one_instance_of_the_better_rank() {
    let zone = Zone::shared();
    let [one, two] = [zone.name("one"), zone.name("two")];
    for host in ["one", "two"] {
        zone.add(host, 1, &[address("10.0.0.1")]).await;
    }
    let records = [srv(1, 9, 81, &one), srv(0, 3, 81, &two)];
    zone.add("_grpc._tcp.greeter", 1, &records).await;
    let mut seen = srv_registry(&zone).subscribe("greeter").unwrap();
    let state = until(&mut seen, "one", is_live_with(1)).await;
    let instance = &state.instances()[0];
    assert_eq!((instance.priority(), instance.weight()), (0, 3));
    assert_eq!(instance.metadata()[TARGET_KEY], two.to_ascii());
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn a_server_that_does_not_serve_the_name_refuses_and_says_so() {
    let zone = Zone::shared();
    let elsewhere = connect(config(&zone).with_domain("elsewhere.example."));
    let error = elsewhere.list("greeter").await.unwrap_err();
    assert_eq!(error.kind(), sd_core::ErrorKind::Denied);
    let report = error.report().to_string();
    assert!(report.contains("greeter.elsewhere.example."), "{report}");
    assert!(elsewhere.check().await.is_err());
    registry(&zone).check().await.unwrap();
}
