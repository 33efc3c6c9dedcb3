//! What becomes of a record whose withdrawal its owner has given up.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{
    LONG, config, config_at, event, eventually, is_live_with, prefix, raw, server, until,
};
use futures_util::future::join_all;
use sd_core::{ErrorKind, Instance, InstanceId, RegistrationGuard, Registry, Snapshot};
use sd_testing::{Fault, TcpProxy};
use sd_zk::Format;
use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use zookeeper_client as zk;

/// Longer than a test takes, so that no record goes with its session.
const SESSION: Duration = Duration::from_secs(120);
/// How long a withdrawal may take on a busy machine, once there is a connection.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(5);
/// How long a record is looked at that stays. A withdrawal that still went on would be tried again within a second.
const WHILE: Duration = Duration::from_secs(3);

/// A registry behind a proxy, and others that see what it does.
struct Scene {
    proxy: TcpProxy,
    registry: Registry,
    near: Registry,
    raw: zk::Client,
    folder: String,
}

impl Scene {
    async fn new(format: Format) -> Self {
        let prefix = prefix();
        let proxy = TcpProxy::start(server().parse().unwrap()).await.unwrap();
        let far = config_at(&proxy.address().to_string(), &prefix).with_session_timeout(SESSION);
        Self {
            registry: sd_zk::connect(far.with_format(format)).unwrap(),
            near: sd_zk::connect(config(&prefix).with_format(format)).unwrap(),
            raw: raw(&server()).await,
            folder: format!("{prefix}/greeter"),
            proxy,
        }
    }

    async fn nodes(&self) -> Vec<String> {
        self.raw.list_children(&self.folder).await.unwrap()
    }

    /// Deregisters over a line that is cut, until that is given up, and mends the line.
    async fn give_up(&self, guard: RegistrationGuard) {
        let before = self.nodes().await;
        self.proxy.set(Fault::Cut);
        let error = guard.deregister().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{}", error.report());
        assert_eq!(self.nodes().await, before);
        self.proxy.set(Fault::Pass);
    }

    /// The one instance, seen for a while.
    async fn stays(&self) -> Instance {
        let mut seen = self.near.subscribe("greeter").unwrap();
        let state = until(&mut seen, "there", is_live_with(1)).await;
        let gone = async { while seen.changed().await.unwrap().snapshot().len() == 1 {} };
        assert!(timeout(WHILE, gone).await.is_err());
        state.snapshot().instances()[0].as_ref().clone()
    }
}

fn named(id: &str, port: u16) -> Instance {
    common::instance(port).with_id(InstanceId::new(id).unwrap())
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_record_goes_when_the_line_is_back_although_its_withdrawal_was_given_up() {
    let scene = Scene::new(Format::Curator).await;
    // For which the session goes on.
    let _other = scene.registry.register(named("other", 1)).await.unwrap();
    let given_up = scene.registry.register(named("a", 2)).await.unwrap();
    let id = given_up.record_id().id.clone();
    let mut seen = scene.near.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(2)).await;
    scene.give_up(given_up).await;
    let back = scene.proxy.counted(|counts| counts.open > 0);
    timeout(LONG, back).await.unwrap();
    let is_gone = || async { scene.nodes().await == ["other"] };
    eventually("withdrawn", WITHDRAWN_WITHIN, is_gone).await;
    // On purpose, so that readers do not hold it.
    let withdrew = |set: &Snapshot| set.withdrawn().contains(&id);
    until(&mut seen, "told", |state| withdrew(state.snapshot())).await;
}

/// The session goes on, on the runtime that first used the registry.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_record_goes_with_the_runtime_of_its_registration_and_its_id_is_free() {
    let each = [Format::Curator, Format::Reception, Format::GoKit];
    join_all(each.map(|format| async move {
        let scene = Scene::new(format).await;
        let _other = scene.registry.register(named("other", 1)).await.unwrap();
        let registry = scene.registry.clone();
        let ending = spawn_blocking(move || {
            let runtime = Runtime::new().unwrap();
            let registered = runtime.block_on(registry.register(named("a", 2)).into_future());
            registered.unwrap()
        });
        let mut guard = ending.await.unwrap();
        event(&mut guard, "failed").await;
        let is_gone = || async { scene.nodes().await.len() == 1 };
        eventually("withdrawn", WITHDRAWN_WITHIN, is_gone).await;
        let _next = scene.registry.register(named("a", 3)).await.unwrap();
        assert_eq!(scene.nodes().await.len(), 2, "{format:?}");
    }))
    .await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn another_run_registers_under_an_id_whose_withdrawal_was_given_up() {
    let each = [Format::Curator, Format::Reception, Format::GoKit];
    join_all(each.map(|format| async move {
        let scene = Scene::new(format).await;
        let given_up = scene.registry.register(named("a", 1)).await.unwrap();
        scene.give_up(given_up).await;
        let next = scene.registry.register(named("a", 2)).confirm_within(LONG);
        let _next = next.await.unwrap();
        let stays = scene.stays().await;
        assert_eq!(stays.endpoint().port(), Some(2), "{format:?}");
        assert_eq!(scene.nodes().await.len(), 1, "{format:?}");
    }))
    .await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_run_registers_again_after_its_withdrawal_was_given_up() {
    let scene = Scene::new(Format::Curator).await;
    let instance = named("a", 1);
    let given_up = scene.registry.register(instance.clone()).await.unwrap();
    scene.give_up(given_up).await;
    let again = scene
        .registry
        .register(instance.clone())
        .confirm_within(LONG);
    let _again = again.await.unwrap();
    assert_eq!(scene.stays().await, instance);
}
