//! How much there may be, and what it costs: many instances, many readers, and what cannot be written.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{
    LONG, Operator, TTL, config, config_at, eventually, instance, is_live_with, key, own_server,
    prefix, registry, until,
};
use futures_util::StreamExt;
use futures_util::stream::iter;
use sd_core::{ErrorKind, Instance, InstanceId, RegistrationGuard, Registry};
use sd_redis::DEFAULT_PREFIX;
use server_programs::LocalServer;

const MANY: u16 = 1_000;
const LONG_TTL: Duration = Duration::from_secs(9);

async fn register_many(registry: &Registry, count: u16) -> Vec<RegistrationGuard> {
    let registering = iter(1..=count).map(|port| async move {
        let registered = registry.register(instance(port)).ttl(LONG_TTL).await;
        registered.unwrap()
    });
    registering.buffer_unordered(100).collect().await
}

/// Each reader reads everything once. From then on it is told what changes, and renewals wake no reader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_change_among_many_costs_no_reader_a_full_read_and_renewals_share_requests() {
    const READERS: usize = 5;
    const CHANGES: u64 = 20;
    let server = own_server().await;
    let url = server.program().url();
    let raw = Operator::at(&url).await;
    // Asking now and then is not what shows a change here.
    let open = || {
        let config = config_at(&url, DEFAULT_PREFIX).with_poll_interval(TTL * 100);
        sd_redis::connect(config).unwrap()
    };
    let owner = open();
    let mut guards = register_many(&owner, MANY).await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let registry = open();
        let mut seen = registry.subscribe("greeter").unwrap();
        until(&mut seen, "all", is_live_with(MANY.into())).await;
        readers.push((registry, seen));
    }
    let full_reads = raw.calls("hgetall").await;
    let version = raw.version(DEFAULT_PREFIX, "greeter").await;

    for _ in 0..CHANGES / 2 {
        let guard = guards.pop().unwrap();
        guard
            .update(|instance| instance.with_weight(7))
            .await
            .unwrap();
        guard.deregister().await.unwrap();
    }
    let left = guards.len();
    for (_, seen) in &mut readers {
        until(seen, "changed", is_live_with(left)).await;
    }
    assert_eq!(
        raw.version(DEFAULT_PREFIX, "greeter").await,
        version + CHANGES
    );

    let (scripts, renewed) = (raw.calls("evalsha").await, raw.calls("zadd").await);
    let all_are_renewed = async || raw.calls("zadd").await - renewed >= left as u64;
    eventually("renewed", LONG, all_are_renewed).await;
    let requests = raw.calls("evalsha").await - scripts;
    let renewals = raw.calls("zadd").await - renewed;
    assert!(
        requests < renewals / 4,
        "{requests} requests for {renewals} renewals"
    );
    assert_eq!(
        raw.version(DEFAULT_PREFIX, "greeter").await,
        version + CHANGES
    );
    assert_eq!(raw.calls("hgetall").await, full_reads);
}

/// However many there are, they are one command.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn ten_thousand_instances_are_listed_at_once() {
    const FILL: &str = "
        local value, id = redis.call('HGET', KEYS[1], ARGV[1]), ARGV[1]
        local stops = redis.call('ZSCORE', KEYS[2], ARGV[1])
        for number = 2, tonumber(ARGV[2]) do
          local other = 'number ' .. number
          redis.call('HSET', KEYS[1], other, (string.gsub(value, '\"id\":\"[^\"]*\"', '\"id\":\"' .. other .. '\"')))
          redis.call('ZADD', KEYS[2], stops, other)
        end";
    let server = own_server().await;
    let url = server.program().url();
    let raw = Operator::at(&url).await;
    let patient = config_at(&url, DEFAULT_PREFIX).with_request_timeout(LONG);
    let registry = sd_redis::connect(patient).unwrap();
    let first = registry.register(instance(1)).ttl(LONG * 10).await.unwrap();
    let [records, ends] = ["records", "ends"].map(|part| key(DEFAULT_PREFIX, "greeter", part));
    let id = first.record_id().id.as_str();
    raw.ask::<()>(&["EVAL", FILL, "2", &records, &ends, id, "10000"])
        .await;
    // The server is told the scripts with the first of these.
    registry.list("other").await.unwrap();
    let before = raw.calls("hgetall").await;
    let listed = registry.list("greeter").await.unwrap();
    assert_eq!((listed.len(), listed.skipped().len()), (10_000, 0));
    assert_eq!(raw.calls("hgetall").await, before + 1);
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn what_cannot_be_written_is_refused_before_anything_is_sent() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let large = instance(1).with_metadata("k", "x".repeat(70_000));
    for (record, ttl, why) in [
        (large, TTL, "shorten"),
        (instance(1), Duration::from_millis(999), "ttl"),
        (instance(1), Duration::from_secs(24 * 3600 + 1), "ttl"),
    ] {
        let error = registry.register(record).ttl(ttl).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let report = error.report().to_string();
        assert!(report.contains(why), "{report}");
    }
    assert!(registry.services().await.unwrap().is_empty());
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn any_name_that_is_one_is_kept_and_found_again() {
    let registry = sd_redis::connect(config(&prefix())).unwrap();
    let names = ["a}b{c%", "users/v1", "größe", "two words", "{}", "*", "a:b"];
    let mut guards = Vec::new();
    for name in names {
        let odd = Instance::new(name, "10.0.0.1:1").unwrap();
        let odd = odd.with_id(InstanceId::new(format!("id of {name}")).unwrap());
        guards.push(registry.register(odd).await.unwrap());
        let read = registry.list(name).await.unwrap();
        assert_eq!(read.instances()[0].id().as_str(), format!("id of {name}"));
    }
    let mut listed = registry.services().await.unwrap();
    listed.sort();
    let mut expected: Vec<_> = names.map(str::to_owned).into();
    expected.sort();
    let listed: Vec<_> = listed.iter().map(|name| name.as_str().to_owned()).collect();
    assert_eq!(listed, expected);
}
