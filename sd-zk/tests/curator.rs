//! Side by side with Curator's service discovery: its instances and ours see each other.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{LONG, is_live_with, prefix, registry, server, until};
use sd_core::{Incarnation, Instance, InstanceId};
use sd_testing::Peer;
use serde_json::{Value, json};
use tokio::time::timeout;

/// One that a busy machine does not end.
const SESSION_MILLISECONDS: &str = "30000";

/// Curator at the server that all share, and one base path.
struct Curator {
    peer: Peer,
    base: String,
}

impl Curator {
    fn start(base: &str) -> Self {
        let arguments = [&*server(), SESSION_MILLISECONDS];
        Self {
            peer: Peer::start("SD_TEST_ZK_CURATOR", &arguments).unwrap(),
            base: base.to_owned(),
        }
    }

    /// Has it do something, and returns what it then says of this kind.
    async fn having(&mut self, does: &str, rest: &str, event: &str) -> Value {
        let line = format!("{does} {} {rest}", self.base);
        self.peer.say(line.trim_end()).await.unwrap();
        self.told(|told| told["event"] == event).await
    }

    /// The next thing it says that is as wanted.
    async fn told(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = timeout(LONG, self.peer.line()).await.unwrap().unwrap();
            let told: Value = serde_json::from_str(&line).unwrap();
            assert_ne!(told["event"], "failed", "{line}");
            if wanted(&told) {
                return told;
            }
        }
    }

    /// What its cache has, once there are so many and one of them is as wanted.
    async fn watched(&mut self, count: usize, one: impl Fn(&Value) -> bool) {
        let as_wanted = |told: &Value| {
            let instances = told["instances"].as_array();
            instances.is_some_and(|all| all.len() == count && (count == 0 || all.iter().any(&one)))
        };
        self.told(as_wanted).await;
    }
}

fn ours() -> Instance {
    Instance::new("greeter", "10.0.0.1:8080")
        .unwrap()
        .with_id(InstanceId::new("ours").unwrap())
        .with_zone("a")
        .with_weight(3)
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_curator_registers_updates_and_unregisters_is_followed_beside_our_own_records() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let _ours = registry.register(ours()).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "ours", is_live_with(1)).await;

    let mut curator = Curator::start(&prefix);
    let theirs = r#"greeter theirs 10.0.0.2 9090 {"rack":"r1"}"#;
    curator.having("register", theirs, "registered").await;
    let state = until(&mut seen, "both", is_live_with(2)).await;
    let id = InstanceId::new("theirs").unwrap();
    let first = state.snapshot().get(&id).unwrap().as_ref().clone();
    assert_eq!(first.endpoint().to_string(), "10.0.0.2:9090");
    assert_eq!(first.metadata().get("rack").map(String::as_str), Some("r1"));
    assert!(first.is_ready());
    assert_ne!(first.incarnation(), Incarnation::from_u64(0));

    let moved = r#"greeter theirs 10.0.0.2 9090 {"rack":"r2"}"#;
    curator.having("update", moved, "updated").await;
    until(&mut seen, "updated", |state| {
        let theirs = state.snapshot().get(&id);
        theirs.is_some_and(|one| one.metadata().get("rack").is_some_and(|rack| rack == "r2"))
    })
    .await;
    // The record says another time of registration, and is of the same process.
    let updated = seen.state().snapshot().get(&id).unwrap().incarnation();
    assert_eq!(updated, first.incarnation());

    curator
        .having("unregister", "greeter theirs", "unregistered")
        .await;
    until(&mut seen, "gone", is_live_with(1)).await;
    curator.peer.dismiss().await.unwrap();
    registry.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_we_register_update_and_withdraw_is_listed_and_followed_by_curator() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let guard = registry.register(ours()).await.unwrap();

    let mut curator = Curator::start(&prefix);
    let names = curator.having("names", "", "names").await;
    assert_eq!(names["names"], json!(["greeter"]));
    let list = curator.having("list", "greeter", "list").await;
    let [listed] = list["instances"].as_array().unwrap().as_slice() else {
        panic!("{list}")
    };
    assert_eq!(
        (&listed["id"], &listed["address"], &listed["port"]),
        (&json!("ours"), &json!("10.0.0.1"), &json!(8080))
    );
    assert_eq!(listed["payload"]["zone"], "a");
    assert_eq!(listed["payload"]["weight"], 3);

    curator.having("watch", "greeter", "watched").await;
    guard
        .update(|instance| instance.with_weight(7))
        .await
        .unwrap();
    curator
        .watched(1, |one| one["payload"]["weight"] == 7)
        .await;
    guard.deregister().await.unwrap();
    curator.watched(0, |_| true).await;
    curator.peer.dismiss().await.unwrap();
    registry.close().await.unwrap();
}
