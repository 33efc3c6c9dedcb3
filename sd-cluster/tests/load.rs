//! Time and memory: of a thousand modules that all follow one, and of peers that hold large messages up. Alone in its process, whose memory
//! is measured.

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
use sd_cluster::server::{ConfigService, Limits};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;
use tokio::time::Instant;

use raw::{FINAL, Raw, TEXT};
use services::{service, started, within};

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

/// Tests measure the memory of one process, one after another.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Connects `count` modules that follow `shared`. Returns the least time of one change until the last of them is told, and the memory that
/// they take, in KiB.
async fn changes(count: usize) -> (Duration, u64) {
    const CHANGES: usize = 6;

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
    let mut least = Duration::MAX;
    for _ in 0..CHANGES {
        let mut shared = Raw::connect(address, "shared").await;
        let begun = Instant::now();
        shared.ready("shared", "10.0.0.2").await;
        for raw in &mut modules {
            assert!(raw.message().await.contains("10.0.0.2"));
        }
        least = least.min(begun.elapsed());
        drop(shared);
        for raw in &mut modules {
            assert!(raw.message().await.ends_with("||[]"));
        }
    }
    service.stop().await;
    (least, grown)
}

#[tokio::test]
async fn a_thousand_modules_take_little_memory_and_a_change_reaches_them_in_linear_time() {
    let _alone = ALONE.lock().await;
    allow_files(8192);
    let (few, _) = changes(MODULES / 10).await;
    let (many, grown) = changes(MODULES).await;
    println!(
        "{MODULES} modules: {grown} KiB with both ends; one change told to all: {many:?}, to a tenth: {few:?}"
    );
    // Each has two sockets, a task and two buffers here.
    assert!(grown < 64 * 1024, "{grown} KiB");
    // Ten times as much if it is linear, and a hundred times if it is quadratic; the least of several is what the machine lets through.
    assert!(many < few * 60, "{many:?} for all, {few:?} for a tenth");
}

#[tokio::test]
async fn two_hundred_who_do_not_read_share_one_list_of_almost_four_mebibytes() {
    const READERS: usize = 200;

    let _alone = ALONE.lock().await;
    allow_files(8192);
    let (_service, address) = service().await;
    // The list is larger than what the sockets of both ends hold.
    let mut modules = Vec::new();
    for nth in 0..4 {
        let name = format!("large-{nth}");
        let mut raw = Raw::connect(address, &name).await;
        let path = "x".repeat(950 << 10);
        let declared = json!({
            "moduleName": name, "version": "1", "endpoints": [{"path": path}],
            "address": {"ip": "10.0.0.1", "port": "9"},
        });
        let (_, answer) = raw.ask("MODULE:READY", &declared.to_string()).await;
        assert_eq!(answer, "ok");
        modules.push(raw);
    }
    let before = resident();
    let mut readers = Vec::with_capacity(READERS);
    for _ in 0..READERS {
        let mut reader = Raw::connect(address, "reader").await;
        let wanted =
            r#"MODULE:SEND_REQUIREMENTS||1||{"requiredModules":null,"requireRoutes":true}"#;
        reader.text(wanted).await;
        readers.push(reader);
    }
    // The list is on its way to each.
    for reader in &readers {
        let begun = within("a list", reader.stream.peek(&mut [0])).await;
        assert_eq!(begun.unwrap(), 1);
    }
    let grown = resident().saturating_sub(before);
    println!("{READERS} readers that read nothing: {grown} KiB");
    assert!(grown < 48 * 1024, "{grown} KiB");
    // All of it is there for who reads after all.
    assert!(readers[0].message().await.len() > 3 << 20);
}

#[tokio::test]
async fn forty_half_messages_take_no_more_than_they_may_together() {
    const HALF: usize = 40;

    let _alone = ALONE.lock().await;
    let mut limits = Limits::default();
    limits.in_flight_bytes_per_peer = 32 << 20;
    let builder = ConfigService::builder().limits(limits);
    let (_service, address) = started(builder.ping_every(Duration::from_secs(60))).await;
    let before = resident();
    let mut all = Vec::with_capacity(HALF);
    for _ in 0..HALF {
        let mut raw = Raw::connect(address, "half").await;
        let mut begun = vec![FINAL | TEXT, 0x80 | 0x7f];
        begun.extend((4_u64 << 20).to_be_bytes());
        begun.extend([0; 4]);
        begun.resize(15 << 18, b'x');
        // Fails where the service has closed the connection meanwhile.
        let _ = raw.stream.write_all(&begun).await;
        all.push(raw);
    }
    let mut last = Raw::connect(address, "last").await;
    last.follow("nothing").await;
    let grown = resident().saturating_sub(before);
    println!("{HALF} half messages: {grown} KiB");
    // One of the client and what an allocator keeps are in it.
    assert!(grown < 80 * 1024, "{grown} KiB");
}
