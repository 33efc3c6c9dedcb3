//! What a client has given up may still reach the server: it comes after all that was written meanwhile, and changes nothing.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{LONG, Operator, TTL, config_at, eventually, instance, key, own_server_behind_proxy};
use sd_core::port::Attempt;
use sd_core::{Backend, Registrar};
use sd_redis::{DEFAULT_PREFIX, RedisBackend};
use sd_testing::{Direction, Fault, ServerProcess, TcpProxy};
use server_programs::{LocalServer, Redis};

/// How much of a record's life is left over when a request was given up and another one done.
const LASTING: Duration = Duration::from_secs(60);

/// A writer whose requests go through a proxy. While that holds them back they are given up, and the next ones go straight to the server.
struct Held {
    _server: ServerProcess<Redis>,
    proxy: TcpProxy,
    raw: Operator,
    writer: Arc<dyn Registrar>,
}

impl Held {
    async fn start() -> Self {
        let (server, proxy, _) = own_server_behind_proxy().await;
        let raw = Operator::at(&server.program().url()).await;
        let both = format!("redis://{},{}", proxy.address(), server.program().address());
        let config =
            config_at(&both, DEFAULT_PREFIX).with_connect_timeout(Duration::from_millis(500));
        let backend = Arc::new(RedisBackend::new(config).unwrap());
        // The connection is there, and the scripts are known.
        let writer = Arc::clone(&backend).registrar().unwrap();
        let other = instance(9);
        let attempt = Attempt::new(LASTING);
        writer.register(&other, &attempt).await.unwrap();
        writer.withdraw(&other.record_id()).await.unwrap();
        Self {
            _server: server,
            proxy,
            raw,
            writer,
        }
    }

    fn hold(&self) {
        self.proxy.set(Fault::Hold(Direction::ToServer));
    }

    /// Lets through what was held back, and returns when the server has carried it out.
    async fn deliver(&self) {
        let before = self.raw.calls("evalsha").await;
        self.proxy.set(Fault::Pass);
        let is_done = async || self.raw.calls("evalsha").await > before;
        eventually("delivered", LONG, is_done).await;
    }

    async fn records(&self) -> Vec<String> {
        self.raw.records(DEFAULT_PREFIX, "greeter").await
    }
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_late_registration_does_not_bring_a_withdrawn_record_back() {
    let held = Held::start().await;
    let (record, attempt) = (instance(1), Attempt::new(LASTING));
    held.hold();
    // It is given up on the connection through the proxy, and core tries again.
    eventually("registered", LONG, async || {
        held.writer.register(&record, &attempt).await.is_ok()
    })
    .await;
    assert_eq!(held.records().await.len(), 1);
    held.writer.withdraw(&record.record_id()).await.unwrap();
    held.deliver().await;
    assert_eq!(held.records().await, Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_late_registration_that_was_never_seen_does_not_outlive_its_withdrawal() {
    let held = Held::start().await;
    let (record, attempt) = (instance(1), Attempt::new(LASTING));
    held.hold();
    let register = held.writer.register(&record, &attempt);
    tokio::time::timeout(TTL / 6, register).await.unwrap_err();
    eventually("withdrawn", LONG, async || {
        held.writer.withdraw(&record.record_id()).await.is_ok()
    })
    .await;
    assert_eq!(held.records().await, Vec::<String>::new());
    held.deliver().await;
    assert_eq!(held.records().await, Vec::<String>::new());
    // The same run may register again.
    held.writer.register(&record, &attempt).await.unwrap();
    assert_eq!(held.records().await.len(), 1);
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_late_update_does_not_replace_a_newer_one() {
    let held = Held::start().await;
    let (record, attempt) = (instance(1), Attempt::new(LASTING));
    let registered = held.writer.register(&record, &attempt).await.unwrap();
    held.hold();
    let [older, newer] = [1, 2].map(|weight| record.clone().with_weight(weight));
    let update = registered.update(&older);
    tokio::time::timeout(TTL / 6, update).await.unwrap_err();
    eventually("updated", LONG, async || {
        registered.update(&newer).await.is_ok()
    })
    .await;
    held.deliver().await;
    let records = held.records().await;
    assert!(records[0].contains(r#""weight":2"#), "{records:?}");
}

/// Another process of the same run has written last, as one does that is restarted with what it knew.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_process_that_begins_to_count_again_is_not_late() {
    let held = Held::start().await;
    let (record, attempt) = (instance(1), Attempt::new(LASTING));
    held.writer.register(&record, &attempt).await.unwrap();
    let records = key(DEFAULT_PREFIX, "greeter", "records");
    let id = record.id().as_str();
    let value: String = held.raw.ask(&["HGET", &records, id]).await;
    let run = record.incarnation().to_string();
    let (_, rest) = value.split_once(&format!("{run} ")).unwrap();
    let (_, rest) = rest.split_once(' ').unwrap();
    for number in ["123456", "99999999999999"] {
        let ahead = format!("live {run} {number} {rest}");
        held.raw.ask::<u64>(&["HSET", &records, id, &ahead]).await;
        held.writer.register(&record, &attempt).await.unwrap();
        let value: String = held.raw.ask(&["HGET", &records, id]).await;
        let next = number.parse::<u64>().unwrap() + 1;
        assert!(value.starts_with(&format!("live {run} {next} ")), "{value}");
    }
    held.writer.withdraw(&record.record_id()).await.unwrap();
}
