//! What readers see, and what it costs the server.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{
    LONG, close, config, eventually, make, own_server, prefix, raw, registry, server, until,
};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use sd_core::port::Feed;
use sd_core::{ErrorKind, Instance, Instancer, ServiceName, Snapshot, Watcher};
use sd_testing::{Fault, TcpProxy};
use sd_zk::{ZkBackend, ZkConfig};
use server_programs::{LocalServer, ZooKeeper};
use tokio::time::timeout;
use zookeeper_client as zk;

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

/// The time limit of a feed's news. Tens of thousands of reads take a while on a busy machine.
const TOLD_WITHIN: Duration = Duration::from_secs(300);

async fn next_set(watcher: &mut dyn Watcher) -> Snapshot {
    loop {
        if let Feed::Set(set) = timeout(TOLD_WITHIN, watcher.next()).await.unwrap().unwrap() {
            return set;
        }
    }
}

/// The set for which this holds.
async fn set_with(watcher: &mut dyn Watcher, holds: impl Fn(&Snapshot) -> bool) -> Snapshot {
    loop {
        let set = next_set(watcher).await;
        if holds(&set) {
            return set;
        }
    }
}

fn ephemeral() -> zk::CreateOptions<'static> {
    zk::CreateMode::Ephemeral.with_acls(zk::Acls::anyone_all())
}

/// How many requests each session has sent, by its id.
fn requests(server: &ZooKeeper, session: i64) -> u64 {
    let said = server.four_letter_word("cons").unwrap();
    let key = format!("sid={session:#x},");
    let line = said.lines().find(|line| line.contains(&key)).unwrap();
    let (_, rest) = line.split_once("recved=").unwrap();
    rest.split(',').next().unwrap().parse().unwrap()
}

/// The session that a set was read in.
fn session_of(set: &Snapshot) -> i64 {
    let session = set.revision().domain().trim_start_matches("0x");
    i64::from_str_radix(session, 16).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn one_change_of_a_record_costs_one_read() {
    const CHANGES: u64 = 50;
    let server = own_server().await;
    let address = server.program().url();
    let operator = raw(&address).await;
    make(&operator, "/services/s").await;
    for n in 0..200 {
        let path = format!("/services/s/{n}");
        operator.create(&path, b"h:1", &ephemeral()).await.unwrap();
    }
    let config = ZkConfig::new([&address]).with_session_timeout(Duration::from_secs(60));
    let backend = ZkBackend::new(config).unwrap();
    let mut watcher = backend.watch(&service("s"), None).await.unwrap();
    let first = next_set(&mut *watcher).await;
    assert_eq!(first.len(), 200);
    let session = session_of(&first);
    let program = server.program().clone();
    let before = requests(&program, session);
    for n in 0..CHANGES {
        let data = format!("h:{}", n + 2);
        operator
            .set_data("/services/s/7", data.as_bytes(), None)
            .await
            .unwrap();
        let port = u16::try_from(n + 2).unwrap();
        set_with(&mut *watcher, |set| {
            set.instances()
                .iter()
                .any(|one| one.endpoint().port() == Some(port))
        })
        .await;
    }
    let spent = requests(&program, session) - before;
    // Besides the reads there are pings, and a look at the folder every 10 s, which is two requests.
    assert!((CHANGES..CHANGES * 2).contains(&spent), "{spent}");
    close(operator).await;
}

/// The client crate would keep it all, and send it as soon as it can.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_is_given_up_while_there_is_no_connection_is_never_sent() {
    const GIVEN_UP: usize = 1000;
    let server = own_server().await;
    let proxy = TcpProxy::start(server.program().address()).await.unwrap();
    let config = ZkConfig::new([proxy.address().to_string()])
        .with_session_timeout(Duration::from_secs(60))
        .with_request_timeout(LONG);
    let backend = ZkBackend::new(config).unwrap();
    let service = service("s");
    let mut watcher = backend.watch(&service, None).await.unwrap();
    let session = session_of(&next_set(&mut *watcher).await);
    proxy.set(Fault::Cut);
    let told = timeout(LONG, watcher.next()).await.unwrap().unwrap();
    assert!(matches!(told, Feed::Degraded(_)), "{told:?}");
    for _ in 0..GIVEN_UP {
        assert!(backend.list(&service).now_or_never().is_none());
    }
    let waiting = backend.list(&service);
    proxy.set(Fault::Pass);
    waiting.await.unwrap();
    let sent = requests(&server.program().clone(), session);
    assert!(sent < 100, "{sent}");
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_service_is_followed_from_before_its_folder_is_made_until_it_is_deleted_and_made_again() {
    let prefix = prefix();
    let operator = raw(&server()).await;
    let backend = ZkBackend::new(config(&prefix)).unwrap();
    let mut watcher = backend.watch(&service("s"), None).await.unwrap();
    assert!(next_set(&mut *watcher).await.is_empty());
    let folder = format!("{prefix}/s");
    let path = format!("{folder}/a");
    for _ in 0..3 {
        make(&operator, &folder).await;
        operator.create(&path, b"h:1", &ephemeral()).await.unwrap();
        set_with(&mut *watcher, |set| set.len() == 1).await;
        operator.delete(&path, None).await.unwrap();
        operator.delete(&folder, None).await.unwrap();
        set_with(&mut *watcher, Snapshot::is_empty).await;
    }
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_is_withdrawn_is_told_apart_from_what_vanishes_also_to_a_slow_reader() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let operator = raw(&server()).await;
    let mut guards = Vec::new();
    for port in 1..=4 {
        let instance = Instance::new("s", format!("10.0.0.1:{port}")).unwrap();
        guards.push(registry.register(instance).await.unwrap());
    }
    let backend = ZkBackend::new(config(&prefix)).unwrap();
    let mut watcher = backend.watch(&service("s"), None).await.unwrap();
    assert_eq!(next_set(&mut *watcher).await.len(), 4);
    // Nothing is read meanwhile.
    let mut withdrawn: Vec<_> = guards[..2]
        .iter()
        .map(|guard| guard.record_id().id.clone())
        .collect();
    withdrawn.sort();
    let vanished = guards[2].record_id().id.clone();
    let gone = guards.drain(..2).collect::<Vec<_>>();
    for guard in gone {
        guard.deregister().await.unwrap();
    }
    operator
        .delete(&format!("{prefix}/s/{vanished}"), None)
        .await
        .unwrap();
    let mut told = Vec::new();
    loop {
        let set = next_set(&mut *watcher).await;
        told.extend(set.withdrawn().to_vec());
        // It may be registered again already.
        if told.len() >= 2 {
            break;
        }
    }
    told.sort();
    assert_eq!(told, withdrawn);
    registry.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_node_that_is_made_again_in_one_transaction_is_not_seen_as_gone() {
    let prefix = prefix();
    let operator = raw(&server()).await;
    let (folder, path) = (format!("{prefix}/s"), format!("{prefix}/s/a"));
    make(&operator, &folder).await;
    operator.create(&path, b"h:1", &ephemeral()).await.unwrap();
    let backend = ZkBackend::new(config(&prefix)).unwrap();
    let mut watcher = backend.watch(&service("s"), None).await.unwrap();
    assert_eq!(next_set(&mut *watcher).await.len(), 1);
    let mut writer = operator.new_multi_writer();
    writer.add_delete(&path, None).unwrap();
    writer.add_create(&path, b"h:2", &ephemeral()).unwrap();
    writer.commit().await.unwrap();
    let set = next_set(&mut *watcher).await;
    assert_eq!(set.len(), 1);
    assert_eq!(set.instances()[0].endpoint().port(), Some(2));
    assert!(set.withdrawn().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn fifty_thousand_records_are_listed_and_followed() {
    const RECORDS: usize = 50_000;
    let prefix = prefix();
    let operator = Arc::new(raw(&server()).await);
    make(&operator, &format!("{prefix}/s")).await;
    let mut made = FuturesUnordered::new();
    for n in 0..RECORDS {
        let (operator, path) = (Arc::clone(&operator), format!("{prefix}/s/{n}"));
        made.push(async move {
            operator.create(&path, b"h:1", &ephemeral()).await.unwrap();
        });
        if made.len() == 500 {
            made.next().await;
        }
    }
    while made.next().await.is_some() {}
    let config = config(&prefix).with_session_timeout(Duration::from_secs(60));
    let backend = ZkBackend::new(config).unwrap();
    let listed = backend.list(&service("s")).await.unwrap();
    assert_eq!(listed.len(), RECORDS);
    let mut watcher = backend.watch(&service("s"), Some(&listed)).await.unwrap();
    assert_eq!(next_set(&mut *watcher).await.len(), RECORDS);
    operator
        .set_data(&format!("{prefix}/s/77"), b"h:2", None)
        .await
        .unwrap();
    set_with(&mut *watcher, |set| {
        set.instances()
            .iter()
            .any(|one| one.endpoint().port() == Some(2))
    })
    .await;
    operator
        .delete(&format!("{prefix}/s/78"), None)
        .await
        .unwrap();
    set_with(&mut *watcher, |set| set.len() == RECORDS - 1).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_lies_among_the_services_and_is_none_is_counted() {
    let prefix = prefix();
    let operator = raw(&server()).await;
    // No name is encoded like this.
    let folder = format!("{prefix}/a%2fb");
    make(&operator, &folder).await;
    let backend = ZkBackend::new(config(&prefix)).unwrap();
    let listed = backend.list_services().await.unwrap();
    assert_eq!((listed.services.len(), listed.unlisted), (0, 1));
    let mut watcher = backend.watch_services().await.unwrap().unwrap();
    watcher.next().await.unwrap();
    assert_eq!(watcher.unlisted(), 1);
    operator.delete(&folder, None).await.unwrap();
    let told = async {
        while watcher.unlisted() > 0 {
            watcher.next().await.unwrap();
        }
    };
    timeout(LONG, told).await.unwrap();
}

/// If all were asked for at once, the last answers would come too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn thirty_thousand_services_are_followed() {
    const SERVICES: usize = 30_000;
    let prefix = prefix();
    let operator = Arc::new(raw(&server()).await);
    make(&operator, &prefix).await;
    let mut made = FuturesUnordered::new();
    for n in 0..SERVICES {
        let (operator, folder) = (Arc::clone(&operator), format!("{prefix}/{n}"));
        made.push(async move {
            make(&operator, &folder).await;
            let path = format!("{folder}/a");
            operator.create(&path, b"h:1", &ephemeral()).await.unwrap();
        });
        if made.len() == 500 {
            made.next().await;
        }
    }
    while made.next().await.is_some() {}
    let config = config(&prefix).with_session_timeout(Duration::from_secs(60));
    let backend = ZkBackend::new(config).unwrap();
    let mut watcher = backend.watch_services().await.unwrap().unwrap();
    let listed = timeout(TOLD_WITHIN, watcher.next()).await.unwrap();
    assert_eq!(listed.unwrap().len(), SERVICES);
    let path = format!("{prefix}/77/a");
    operator.delete(&path, None).await.unwrap();
    let told = async { while watcher.next().await.unwrap().len() == SERVICES {} };
    timeout(TOLD_WITHIN, told).await.unwrap();
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn records_that_may_not_be_read_are_an_error_and_not_an_empty_set() {
    let prefix = prefix();
    let connector = zk::Client::connector().with_auth("digest", b"u:p");
    let owner = connector.connect(&server()).await.unwrap();
    make(&owner, &format!("{prefix}/s")).await;
    let private = zk::CreateMode::Ephemeral.with_acls(zk::Acls::creator_all());
    owner
        .create(&format!("{prefix}/s/a"), b"h:1", &private)
        .await
        .unwrap();
    let backend = ZkBackend::new(config(&prefix)).unwrap();
    let denied = backend.list(&service("s")).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "{}", denied.report());
    let mut watcher = backend.watch(&service("s"), None).await.unwrap();
    let denied = watcher.next().await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "{}", denied.report());
    let with_login = ZkBackend::new(config(&prefix).with_user("u", "p")).unwrap();
    assert_eq!(with_login.list(&service("s")).await.unwrap().len(), 1);
    // One that may be read is not hidden by those that may not.
    owner
        .create(&format!("{prefix}/s/b"), b"h:2", &ephemeral())
        .await
        .unwrap();
    let partly = backend.list(&service("s")).await.unwrap();
    assert_eq!((partly.len(), partly.skipped().len()), (1, 1));
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_registry_outlives_the_runtime_that_it_was_first_used_on() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let first = registry.clone();
    let of_first = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            first.list("s").await.unwrap();
        });
    });
    tokio::task::spawn_blocking(|| of_first.join().unwrap())
        .await
        .unwrap();
    assert!(registry.list("s").await.unwrap().is_empty());
    let guard = registry
        .register(Instance::new("s", "10.0.0.1:1").unwrap())
        .await
        .unwrap();
    let seen = registry.subscribe("s").unwrap();
    let mut seen = seen;
    until(&mut seen, "seen", common::is_live_with(1)).await;
    guard.deregister().await.unwrap();
    let is_gone = || async { registry.list("s").await.is_ok_and(|set| set.is_empty()) };
    eventually("gone", LONG, is_gone).await;
}
