//! What a client has given up may still reach the server: it comes after all that was written meanwhile, and changes nothing.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{LONG, Operator, TTL, config_at, eventually, instance, key, own_server_behind_proxy};
use sd_core::port::Attempt;
use sd_core::{Backend, Instance, Registrar};
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

    /// Lets through what was held back, and returns when the server has carried out a write of a record.
    async fn deliver(&self) {
        let before = self.writes().await;
        self.proxy.set(Fault::Pass);
        let is_done = async || self.writes().await > before;
        eventually("delivered", LONG, is_done).await;
    }

    /// Grows with each script that writes a record, also if it refuses. Those that note a service look up nothing.
    async fn writes(&self) -> u64 {
        self.raw.calls("hget").await
    }

    /// Stores a record of another state or number, and returns the number that the value had.
    async fn store(&self, record: &Instance, kind: &str, number: Option<u64>) -> u64 {
        let records = key(DEFAULT_PREFIX, "greeter", "records");
        let id = record.id().as_str();
        let value: String = self.raw.ask(&["HGET", &records, id]).await;
        let mut words = value.splitn(4, ' ').skip(1);
        let [run, before, rest] = [(); 3].map(|()| words.next().unwrap());
        let before = before.parse().unwrap();
        let number = number.unwrap_or(before);
        let value = format!("{kind} {run} {number} {rest}");
        self.raw.ask::<u64>(&["HSET", &records, id, &value]).await;
        before
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
    for number in [123_456, 99_999_999_999_999] {
        held.store(&record, "live", Some(number)).await;
        held.writer.register(&record, &attempt).await.unwrap();
        let written = held.store(&record, "live", None).await;
        assert_eq!(written, number + 1);
    }
    held.writer.withdraw(&record.record_id()).await.unwrap();
}

/// As above, and the first write that was numbered higher is the one that comes late.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn two_writes_that_find_a_higher_number_do_not_take_the_same_one() {
    let held = Held::start().await;
    let (record, attempt) = (instance(1), Attempt::new(LASTING));
    held.writer.register(&record, &attempt).await.unwrap();
    held.store(&record, "live", Some(123_456)).await;
    // It is told the number, and what it then sends is held.
    held.proxy.set(Fault::Hold(Direction::ToClient));
    let before = held.writes().await;
    let told = async {
        let is_answered = async || held.writes().await > before;
        eventually("answered", LONG, is_answered).await;
        held.hold();
    };
    let (registered, ()) = tokio::join!(held.writer.register(&record, &attempt), told);
    registered.map(drop).unwrap_err();
    eventually("withdrawn", LONG, async || {
        held.writer.withdraw(&record.record_id()).await.is_ok()
    })
    .await;
    assert_eq!(held.records().await, Vec::<String>::new());
    held.deliver().await;
    assert_eq!(held.records().await, Vec::<String>::new());
}

/// An operator has removed the record before, and its mark would end too soon.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_withdrawal_of_a_record_that_was_removed_is_marked_for_as_long_as_any() {
    let held = Held::start().await;
    let (record, attempt) = (instance(1), Attempt::new(LASTING));
    held.writer.register(&record, &attempt).await.unwrap();
    held.store(&record, "gone", None).await;
    let (ends, id) = (key(DEFAULT_PREFIX, "greeter", "ends"), record.id().as_str());
    let now: (u64, u64) = held.raw.ask(&["TIME"]).await;
    let soon = now.0 * 1000 + 5000;
    let score = soon.to_string();
    held.raw.ask::<u64>(&["ZADD", &ends, &score, id]).await;
    held.writer.withdraw(&record.record_id()).await.unwrap();
    let end: u64 = held.raw.ask(&["ZSCORE", &ends, id]).await;
    assert!(end >= soon + 20_000, "{soon} {end}");
}
