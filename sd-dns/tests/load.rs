//! How soon a change is seen, and what it costs to follow a thousand names. Prints its figures.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::time::Duration;

use common::scripted::Scripted;
use common::zone::{Zone, address};
use common::{BUSY, LONGEST, SHORTEST, connect, is_live_with, until};
use sd_core::{Registry, Subscription};
use sd_dns::{DnsConfig, Transport};
use sd_testing::ServerProcess;
use server_programs::{Knot, LocalServer};
use tokio::time::{Instant, sleep};

const NAMES: usize = 1000;
const SAMPLES: usize = 20;

async fn subscribed_to_all(registry: &Registry) -> Vec<Subscription> {
    let names = 0..NAMES;
    let mut all: Vec<_> = names
        .map(|number| registry.subscribe(format!("s{number}")).unwrap())
        .collect();
    for seen in &mut all {
        until(seen, "there", is_live_with(1)).await;
    }
    all
}

/// What this process has in memory, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.unwrap().split_ascii_whitespace().nth(1).unwrap();
    kilobytes.parse::<usize>().unwrap() * 1024
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn a_change_is_seen_within_its_time_to_live() {
    let zone = Zone::shared();
    let ttl = Duration::from_secs(1);
    zone.add("greeter", 1, &[address("10.0.0.1")]).await;
    let config = DnsConfig::addresses(80)
        .with_resolvers([zone.server.to_string()])
        .with_domain(&zone.domain)
        .with_intervals(SHORTEST, LONGEST);
    let mut seen = connect(config).subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let mut took = Vec::new();
    for number in 0..SAMPLES {
        // At any moment between two reads.
        sleep(ttl.mul_f64(fastrand::f64())).await;
        let new = address(&format!("10.0.1.{number}"));
        zone.add("greeter", 1, &[new]).await;
        let changed = Instant::now();
        until(&mut seen, "more", is_live_with(number + 2)).await;
        took.push(changed.elapsed());
    }
    took.sort();
    let (median, most) = (took[SAMPLES / 2], took[SAMPLES - 1]);
    println!("change to seen with a time-to-live of {ttl:?}: median {median:?}, at most {most:?}");
    assert!(most < ttl + Duration::from_millis(500) + BUSY, "{most:?}");
}

#[tokio::test]
#[ignore = "needs dns: cargo xtask test --backend dns"]
async fn a_thousand_names_take_little_memory() {
    let mut program = Knot::from_env().unwrap();
    for number in 0..NAMES {
        program = program.with_record(format!("s{number} 3600 A 10.0.0.1"));
    }
    let server = ServerProcess::launch(program).await.unwrap();
    let config = DnsConfig::addresses(80)
        .with_resolvers([server.program().address().to_string()])
        .with_domain(Knot::ZONE);
    let registry = connect(config);
    registry.list("s0").await.unwrap();
    let (before, start) = (resident(), Instant::now());
    let all = subscribed_to_all(&registry).await;
    let (cost, took) = (resident().saturating_sub(before), start.elapsed());
    let each = cost / NAMES / 1024;
    println!(
        "{} names: {} KiB, {each} KiB each, all known after {took:?}",
        all.len(),
        cost / 1024
    );
    assert!(each < 100, "{cost} bytes");
}

#[tokio::test]
async fn a_thousand_names_cost_two_questions_each_for_each_time_to_live() {
    const TTL: u32 = 5;
    let server = Scripted::start(|asked| asked.records(TTL, &[address("10.0.0.1")])).await;
    let config = DnsConfig::addresses(80)
        .with_resolvers([server.address.to_string()])
        // Over TCP no question is sent again, however busy the machine is.
        .with_transport(Transport::Tcp)
        .with_timeout(Duration::from_secs(10))
        .with_domain("sd.test.");
    let registry = connect(config);
    let start = Instant::now();
    let all = subscribed_to_all(&registry).await;
    let first = server.asked().len();
    // On a busy machine all may take so long that the first names are read again.
    let rounds = usize::try_from(start.elapsed().as_secs() / u64::from(TTL)).unwrap() + 1;
    assert!(
        (2 * NAMES..=2 * NAMES * rounds).contains(&first),
        "{first} in {rounds}"
    );
    let start = Instant::now();
    sleep(Duration::from_secs(12)).await;
    let intervals = usize::try_from(start.elapsed().as_secs() / u64::from(TTL)).unwrap();
    let asked = server.asked().len() - first;
    println!(
        "{} names: {first} questions at first, {asked} in {intervals} times-to-live",
        all.len()
    );
    assert!(asked >= 2 * NAMES, "{asked}");
    assert!(asked <= 2 * NAMES * (intervals + 1), "{asked}");
}
