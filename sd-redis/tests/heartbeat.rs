//! Records as heartbeats, which programs of another project read and write, over a running server.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{
    LONG, Operator, config, config_at, eventually, instance, is_live_with, own_server,
    own_server_with, server, until,
};
use redis::RedisError;
use sd_core::port::async_trait;
use sd_core::{
    Backend, Error, ErrorKind, Instance, Override, RecordId, Registry, Result, ServiceName,
};
use sd_redis::{Format, RedisBackend, RedisConfig};
use sd_testing::{Ability, Fixture, operating, reading, writing};
use server_programs::{LocalServer, Redis};

/// In whole seconds, as their time is.
const TTL: Duration = Duration::from_secs(3);

/// A service that no other test uses: where heartbeats lie, nothing else tells tests apart.
fn unused_service() -> String {
    format!("heartbeats-{:016x}", fastrand::u64(..))
}

fn heartbeats() -> RedisConfig {
    let config = config("unused").with_format(Format::Heartbeat);
    config.with_heartbeat_ttl(TTL)
}

fn registry() -> Registry {
    sd_redis::connect(heartbeats()).unwrap()
}

fn key(service: &str) -> String {
    format!("grpc:services:{service}")
}

/// What another program writes, so many seconds ago.
async fn beat(raw: &Operator, service: &str, id: &str, port: u16, ago: u64) {
    let now: (u64, u64) = raw.ask(&["TIME"]).await;
    let value = format!(
        r#"{{"ip":"10.0.0.1","port":{port},"lastUpdate":{}}}"#,
        now.0 - ago
    );
    raw.ask::<u64>(&["HSET", &key(service), id, &value]).await;
}

struct Heartbeats(Operator);

fn failed(error: RedisError) -> Error {
    Error::new(ErrorKind::Unavailable, "operator").with_source(error)
}

#[async_trait]
impl Fixture for Heartbeats {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(RedisBackend::new(heartbeats())?))
    }

    fn lacks(&self) -> Vec<Ability> {
        vec![
            Ability::Sessions,
            Ability::PermanentRecords,
            Ability::StrictElections,
            Ability::Metadata,
            Ability::RunOrder,
            Ability::Services,
            Ability::Withdrawals,
            Ability::Operators,
            Ability::ReadyOverrides,
        ]
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    /// As many as are written long before the first of them ends.
    fn big_set(&self) -> usize {
        200
    }

    async fn write_garbage(&self, service: &ServiceName) -> Result<()> {
        let words = ["HSET", &key(service.as_str()), "garbage", "{not json"];
        let written = self.0.try_ask::<u64>(&words).await;
        written.map(drop).map_err(failed)
    }

    async fn remove_record(&self, record: &RecordId) -> Result<()> {
        let words = ["HDEL", &key(record.service.as_str()), record.id.as_str()];
        let removed = self.0.try_ask::<u64>(&words).await;
        removed.map(drop).map_err(failed)
    }

    async fn expire(&self, record: &RecordId) -> Result<()> {
        beat(&self.0, record.service.as_str(), record.id.as_str(), 1, 100).await;
        Ok(())
    }
}

#[tokio::test]
#[ignore = "needs redis of any version: cargo xtask test --backend redis"]
async fn passes_all_cases_that_are_for_addresses() {
    let fixture = Heartbeats(Operator::at(&server()).await);
    reading::run_all(&fixture).await.expect_passed();
    writing::run_all(&fixture).await.expect_passed();
    operating::run_all(&fixture).await.expect_passed();
}

#[tokio::test]
#[ignore = "needs redis of any version: cargo xtask test --backend redis"]
async fn other_programs_and_ours_see_each_other() {
    let raw = Operator::at(&server()).await;
    let service = unused_service();
    let registry = registry();
    beat(&raw, &service, "01J0000000000000000000000A", 1, 0).await;
    beat(&raw, &service, "01J0000000000000000000000B", 2, 100).await;
    let mut seen = registry.subscribe(&service).unwrap();
    let state = until(&mut seen, "theirs", is_live_with(1)).await;
    assert_eq!(
        state.snapshot().instances()[0].endpoint().to_string(),
        "10.0.0.1:1"
    );
    let is_swept = || async {
        let ids: Vec<String> = raw.ask(&["HKEYS", &key(&service)]).await;
        ids.len() == 1
    };
    eventually("swept", TTL, is_swept).await;

    let ours = Instance::new(&service, "10.0.0.1:3").unwrap();
    let guard = registry.register(ours.clone()).await.unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
    let value: String = raw.ask(&["HGET", &key(&service), ours.id().as_str()]).await;
    assert!(
        value.starts_with(r#"{"ip":"10.0.0.1","port":3,"lastUpdate":"#),
        "{value}"
    );

    // Other programs remove an instance that they cannot reach. One that lives is back.
    raw.ask::<u64>(&["HDEL", &key(&service), ours.id().as_str()])
        .await;
    let is_back = || async {
        let ids: Vec<String> = raw.ask(&["HKEYS", &key(&service)]).await;
        ids.iter().any(|id| id == ours.id().as_str())
    };
    eventually("back", TTL * 2, is_back).await;
    guard.deregister().await.unwrap();
    let ids: Vec<String> = raw.ask(&["HKEYS", &key(&service)]).await;
    assert!(!ids.iter().any(|id| id == ours.id().as_str()));
}

/// The keys and channels of heartbeats alone, with the commands of the README.
#[tokio::test]
#[ignore = "needs redis of any version: cargo xtask test --backend redis"]
async fn a_user_that_may_use_only_heartbeats_does_everything() {
    let server = own_server().await;
    let url = server.program().url();
    let raw = Operator::at(&url).await;
    let commands = "+@connection +@scripting +subscribe +unsubscribe +publish +time +hget +hset +hdel +hgetall +hlen";
    let begin = ["ACL", "SETUSER", "app", "on", ">password", "-@all"];
    let places = ["~grpc:services:*", "&grpc:services:*"];
    let words = begin.into_iter().chain(places);
    let words: Vec<&str> = words.chain(commands.split(' ')).collect();
    raw.ask::<()>(&words).await;
    let config = config_at(&url.replace("redis://", "redis://app:password@"), "unused");
    let config = config
        .with_format(Format::Heartbeat)
        .with_heartbeat_ttl(TTL);
    let registry = sd_redis::connect(config).unwrap();
    registry.check().await.unwrap();
    let guard = registry.register(instance(1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    guard.deregister().await.unwrap();
    until(&mut seen, "gone", is_live_with(0)).await;
}

/// As where one host name leads to the primary, and another one to its replicas.
#[tokio::test]
#[ignore = "needs redis of any version: cargo xtask test --backend redis"]
async fn with_endpoints_for_reading_a_replica_is_read_and_the_primary_written() {
    let mut primary = own_server().await;
    let port = primary.program().address().port();
    let follows = |program: Redis| program.with_config(format!("replicaof 127.0.0.1 {port}"));
    let replica = own_server_with(follows).await;
    let [raw, raw_replica] = [&primary, &replica].map(|server| server.program().url());
    let (raw, raw_replica) = (Operator::at(&raw).await, Operator::at(&raw_replica).await);
    let config = config_at(&primary.program().url(), "unused")
        .with_format(Format::Heartbeat)
        .with_heartbeat_ttl(TTL * 10)
        .with_read_endpoints([replica.program().address().to_string()])
        // What is seen was told.
        .with_poll_interval(Duration::from_secs(3600));
    let registry = sd_redis::connect(config).unwrap();
    registry.check().await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "none", is_live_with(0)).await;
    let _kept = registry.register(instance(1)).await.unwrap();
    until(&mut seen, "one", is_live_with(1)).await;
    let second = registry.register(instance(2)).await.unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
    second.deregister().await.unwrap();
    until(&mut seen, "one again", is_live_with(1)).await;
    assert_eq!(raw.calls("hgetall").await, 0);
    assert!(raw_replica.calls("hgetall").await > 0);

    // Reading needs no primary.
    primary.kill().unwrap();
    assert_eq!(registry.list("greeter").await.unwrap().len(), 1);
}

/// The set is told first. One that may not remove what has ended asks for that no more.
#[tokio::test]
#[ignore = "needs redis of any version: cargo xtask test --backend redis"]
async fn a_reader_that_may_not_remove_what_has_ended_leaves_it_out_and_tries_once() {
    let server = own_server().await;
    let url = server.program().url();
    let raw = Operator::at(&url).await;
    let user = ["ACL", "SETUSER", "app", "on", ">password", "+@all", "-hdel"];
    let words = [&user[..], &["~grpc:services:*", "&grpc:services:*"]].concat();
    raw.ask::<()>(&words).await;
    beat(&raw, "greeter", "alive", 1, 0).await;
    beat(&raw, "greeter", "ended", 2, 100).await;
    let config = config_at(&url.replace("redis://", "redis://app:password@"), "unused")
        .with_format(Format::Heartbeat)
        .with_heartbeat_ttl(TTL * 10);
    let registry = sd_redis::connect(config).unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "one", is_live_with(1)).await;
    let read = raw.calls("hgetall").await;
    let is_read_again = async || raw.calls("hgetall").await > read + 3;
    eventually("read again", LONG, is_read_again).await;
    assert_eq!(raw.denied().await.len(), 1);
    assert_eq!(raw.ask::<u64>(&["HLEN", &key("greeter")]).await, 2);
}

#[tokio::test]
#[ignore = "needs redis of any version: cargo xtask test --backend redis"]
async fn a_heartbeat_from_far_ahead_is_named_and_not_shown() {
    let raw = Operator::at(&server()).await;
    let service = unused_service();
    let now: (u64, u64) = raw.ask(&["TIME"]).await;
    let value = format!(
        r#"{{"ip":"10.0.0.1","port":1,"lastUpdate":{}}}"#,
        now.0 + 3600
    );
    raw.ask::<u64>(&["HSET", &key(&service), "ahead", &value])
        .await;
    let read = registry().list(&service).await.unwrap();
    assert!(read.is_empty());
    let reason = &read.skipped()[0].reason;
    assert!(reason.contains("ahead"), "{reason}");
}

#[tokio::test]
#[ignore = "needs redis of any version: cargo xtask test --backend redis"]
async fn what_a_heartbeat_has_no_room_for_is_unsupported() {
    let registry = registry();
    let socket = Instance::new("greeter", "unix:/run/greeter").unwrap();
    let error = registry.register(socket).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let record = instance(1).record_id();
    let overridden = registry.set_override(&record, Override::Draining).await;
    assert_eq!(overridden.unwrap_err().kind(), ErrorKind::Unsupported);
    let listed = registry.services().await.unwrap_err();
    assert_eq!(listed.kind(), ErrorKind::Unsupported);
}
