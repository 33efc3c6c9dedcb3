//! How long a change takes to reach our client and isp-kit's, at our service, in one run.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sd_cluster::{ClusterConfig, Received, RemoteConfig, connect, module};
use sd_core::Instance;
use sd_testing::LONG;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::go_peer::GoPeer;
use crate::service;

const SAMPLES: usize = 200;

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// When an event of a peer happened: by the same clock, so that its pipe counts for nothing.
fn at(event: &Value) -> Duration {
    Duration::from_nanos(event["at"].as_u64().unwrap())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Prints both, and says whether ours is told at once. Which one is faster, a busy machine cannot tell.
#[expect(clippy::print_stdout, reason = "figures")]
fn compare(what: &str, ours: &mut [Duration], theirs: &mut [Duration]) -> bool {
    let (median_ours, median_theirs) = (median(ours), median(theirs));
    let worst = |times: &[Duration]| times.last().copied().unwrap_or_default();
    println!(
        "{what}: ours {median_ours:?} (worst {:?}), isp-kit {median_theirs:?} (worst {:?}), medians of {SAMPLES}",
        worst(ours),
        worst(theirs)
    );
    median_ours < Duration::from_secs(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn a_change_reaches_our_client_and_isp_kits_at_once() {
    let (service, address) = service().await;
    let (tell, mut told) = mpsc::channel(8);
    let remote = RemoteConfig::new("{}", move |received: Received<Value>| {
        let (at, tell) = (now(), tell.clone());
        async move { tell.send((at, received.config["n"].clone())).await }
    })
    .unwrap();
    let config = ClusterConfig::new([address.to_string()])
        .with_module("ours")
        .with_remote_config(remote);
    let reader = connect(config).unwrap();
    timeout(LONG, module(&reader).unwrap().ready())
        .await
        .unwrap()
        .unwrap();
    timeout(LONG, told.recv()).await.unwrap().unwrap();
    let everything = json!({"receive_config": true, "requires": ["A"]});
    let mut theirs = GoPeer::module(&[address], "theirs", "10.0.0.1", everything);
    theirs.established().await;
    theirs.config().await;
    theirs.hosts("A").await;

    let (mut of_ours, mut of_theirs) = (Vec::new(), Vec::new());
    for nth in 0..SAMPLES {
        let config = json!({"n": nth}).to_string();
        let begun = now();
        service.set_config("ours", &config, None).await.unwrap();
        let (at_ours, n) = timeout(LONG, told.recv()).await.unwrap().unwrap();
        assert_eq!(n, nth);
        of_ours.push(at_ours.saturating_sub(begun));
        let begun = now();
        service.set_config("theirs", &config, None).await.unwrap();
        let seen = theirs.next("config").await;
        assert_eq!(seen["data"], config);
        of_theirs.push(at(&seen).saturating_sub(begun));
    }
    let configs = compare("config change → receiver", &mut of_ours, &mut of_theirs);

    let mut subscription = reader.subscribe("A").unwrap();
    subscription.wait_until_known(LONG).await.unwrap();
    let writer = connect(ClusterConfig::new([address.to_string()]).with_module("A")).unwrap();
    let (mut of_ours, mut of_theirs) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        subscription.state_and_mark_seen();
        let begun = now();
        let instance = Instance::new("A", "10.0.0.2:9").unwrap();
        let seen = async {
            while subscription.changed().await.unwrap().snapshot().is_empty() {}
            now()
        };
        let (guard, at_ours, at_theirs) =
            tokio::join!(writer.register(instance), seen, theirs.next("hosts"));
        of_ours.push(at_ours.saturating_sub(begun));
        of_theirs.push(at(&at_theirs).saturating_sub(begun));
        guard.unwrap().deregister().await.unwrap();
        while !subscription.state().snapshot().is_empty() {
            subscription.changed().await.unwrap();
        }
        assert!(theirs.hosts("A").await.is_empty());
        // A subscription merges what follows within 10 ms: each sample is a first change after quiet.
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let hosts = compare("host change → subscriber", &mut of_ours, &mut of_theirs);
    assert!(configs && hosts, "ours is told late: see above");
}
