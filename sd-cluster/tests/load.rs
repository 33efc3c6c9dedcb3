//! A thousand modules, each with an instance, that all follow one. Alone in its process, whose memory it measures.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "server/raw.rs"]
#[allow(dead_code, reason = "not every test file uses everything")]
mod raw;
#[path = "server/services.rs"]
#[allow(dead_code, reason = "not every test file uses everything")]
mod services;

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::time::Instant;

use raw::Raw;
use services::{service, until, within};

const MODULES: usize = 1000;

/// Both ends are in this process.
fn allow_files(wanted: u64) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = Some(maximum.map_or(wanted, |most| most.min(wanted)));
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// In KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

/// Connects `count` modules that follow `shared`. Returns the time of one change until the last of them is told.
async fn one_change(count: usize) -> (Vec<Raw>, Duration, u64) {
    let (service, address) = service().await;
    let before = resident();
    let mut modules = Vec::with_capacity(count);
    for nth in 0..count {
        let name = format!("module-{nth}");
        let mut raw = Raw::connect(address, &name).await;
        let config = json!({"version": "1", "schema": {}, "config": {"nth": nth}}).to_string();
        raw.ask("MODULE:SEND_CONFIG_SCHEMA", &config).await;
        raw.follow("shared").await;
        raw.ready(&name, "10.0.0.1").await;
        modules.push(raw);
    }
    let grown = resident().saturating_sub(before);
    let mut shared = Raw::connect(address, "shared").await;
    // The second one is measured: the first makes room for what is sent.
    let mut took = Duration::ZERO;
    for _ in 0..2 {
        let begun = Instant::now();
        shared.ready("shared", "10.0.0.2").await;
        for raw in &mut modules {
            assert!(raw.message().await.contains("10.0.0.2"));
        }
        took = begun.elapsed();
        drop(shared);
        for raw in &mut modules {
            assert!(raw.message().await.ends_with("||[]"));
        }
        shared = Raw::connect(address, "shared").await;
    }
    until(&service, "shared", |known| known.connections == 1).await;
    modules.push(shared);
    service.stop().await;
    (modules, took, grown)
}

#[tokio::test]
async fn a_thousand_modules_take_little_memory_and_a_change_reaches_them_in_linear_time() {
    allow_files(8192);
    let (_few, few, _) = one_change(MODULES / 10).await;
    let (_many, many, grown) = one_change(MODULES).await;
    println!(
        "{MODULES} modules: {grown} KiB with both ends; one change told to all: {many:?}, to a tenth: {few:?}"
    );
    // Each has two sockets, a task and two buffers here.
    assert!(grown < 64 * 1024, "{grown} KiB");
    assert!(many < Duration::from_secs(2), "{many:?}");
}
