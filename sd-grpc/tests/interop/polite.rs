//! Servers that end connections by design, in the middle of calls: how many calls that costs us, beside a peer's client in the same run.

use std::net::SocketAddr;
use std::time::Duration;

use sd_grpc::{BalancedChannel, Idempotent, KeepAlive};
use sd_testing::Peer;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::Request;

use crate::common::{SOON, Set, instance_at, ready, within};
use crate::interop;
use crate::servers::{GRPC_GO, GRPC_JS, nginx, server_of, tonic_server};
use crate::service::{Empty, InteropClient};

/// How long a run takes at least.
const RUN: Duration = Duration::from_secs(5);

/// How clients call, besides one call after another from [`CALLERS`].
#[derive(Clone, Copy, Default)]
struct Load {
    /// Between the calls of one caller.
    pause: Duration,
    /// How many calls each caller makes at least.
    least: usize,
}

/// Of each kind of call.
const CALLERS: usize = 4;

/// What one client has seen.
#[derive(Debug, Default, Deserialize)]
struct Counts {
    calls: usize,
    failed: usize,
    /// The latest one.
    error: Option<String>,
}

/// Calls these servers for a while, with calls that may be executed twice and with others, and with this peer's client.
///
/// None of the first kind may fail, and of the others no more than of the peer's.
async fn compare(peer: &str, servers: &[SocketAddr], run: Load, keep_alive: Option<KeepAlive>) {
    let mut channel = Set::of(servers.iter().copied().map(instance_at)).channel();
    if let Some(keep_alive) = keep_alive {
        channel = channel.keep_alive(keep_alive);
    }
    let channel = channel.build().unwrap();
    ready(&channel, servers.len()).await;

    let theirs = load_of(peer, servers, CALLERS, run.pause);
    let (idempotent, others) = tokio::join!(load(&channel, true, run), load(&channel, false, run));
    let theirs = counted(theirs).await;
    eprintln!("idempotent: {idempotent:?}\nothers: {others:?}\n{peer}: {theirs:?}");
    assert_eq!(idempotent.failed, 0, "{idempotent:?}");
    assert!(others.failed <= theirs.failed, "{others:?}, {theirs:?}");
}

/// Starts a peer's client, which calls these servers in turn.
fn load_of(peer: &str, servers: &[SocketAddr], callers: usize, pause: Duration) -> Peer {
    let addresses: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
    let (addresses, callers) = (addresses.join(","), callers.to_string());
    let unit = if peer == GRPC_GO { "ms" } else { "" };
    let pause = format!("{}{unit}", pause.as_millis());
    let flags = [
        ["-addresses", &addresses],
        ["-callers", &callers],
        ["-pause", &pause],
    ];
    Peer::start(peer, &[&["load"], flags.as_flattened()].concat()).unwrap()
}

/// Ends it, and returns what it has seen.
async fn counted(client: Peer) -> Counts {
    let told = within("a peer's client ends", client.dismiss()).await;
    serde_json::from_str(&told.unwrap().concat()).unwrap()
}

async fn load(channel: &BalancedChannel, idempotent: bool, run: Load) -> Counts {
    let end = Instant::now() + RUN;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let client = InteropClient::new(channel.clone());
        callers.spawn(async move {
            let mut counts = Counts::default();
            while Instant::now() < end || counts.calls < run.least {
                let mut request = Request::new(Empty {});
                if idempotent {
                    request.extensions_mut().insert(Idempotent);
                }
                let answer = timeout(SOON, client.clone().empty(request)).await;
                counts.calls += 1;
                if let Err(status) = answer.expect("a call was lost") {
                    counts.failed += 1;
                    counts.error = Some(status.to_string());
                }
                if !run.pause.is_zero() {
                    sleep(run.pause).await;
                }
            }
            counts
        });
    }
    let of_all = callers.join_all().await.into_iter();
    of_all.fold(Counts::default(), |sum, one| Counts {
        calls: sum.calls + one.calls,
        failed: sum.failed + one.failed,
        error: one.error.or(sum.error),
    })
}

fn pausing(milliseconds: u64) -> Load {
    Load {
        pause: Duration::from_millis(milliseconds),
        ..Load::default()
    }
}

/// The same with two servers of grpc-go that have these flags.
async fn compare_at(flags: &[&str], run: Load, keep_alive: Option<KeepAlive>) {
    let (_one, first) = server_of(GRPC_GO, flags).await;
    let (_other, second) = server_of(GRPC_GO, flags).await;
    compare(GRPC_GO, &[first, second], run, keep_alive).await;
}

#[tokio::test]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn a_connection_that_may_last_one_second_costs_no_call() {
    let flags = [
        "-max-connection-age",
        "1s",
        "-max-connection-age-grace",
        "500ms",
    ];
    compare_at(&flags, Load::default(), None).await;
}

#[tokio::test]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn a_connection_that_may_last_three_seconds_costs_no_call() {
    let flags = ["-max-connection-age", "3s"];
    compare_at(&flags, Load::default(), None).await;
}

#[tokio::test]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn a_connection_that_is_closed_when_idle_costs_no_call() {
    let flags = ["-max-connection-idle", "1s"];
    compare_at(&flags, pausing(1_100), None).await;
}

#[tokio::test]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn pings_in_both_directions_cost_no_call() {
    let flags = ["-ping-interval", "1s", "-min-ping-interval", "500ms"];
    let keep_alive = KeepAlive::new(Duration::from_secs(1), SOON);
    compare_at(&flags, pausing(300), Some(keep_alive)).await;
}

/// nginx says goodbye to a connection after 1 000 requests unless it is told otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn nginx_costs_no_call_when_it_has_answered_a_thousand_on_a_connection() {
    let (_server, behind) = tonic_server(interop()).await;
    let (_one, _its_folder, first) = nginx(behind).await;
    let (_other, _other_folder, second) = nginx(behind).await;
    // Enough for six goodbyes of each.
    let run = Load {
        least: 12_000 / (2 * CALLERS),
        ..Load::default()
    };
    compare(GRPC_GO, &[first, second], run, None).await;
}

#[tokio::test]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn a_connection_of_grpc_js_that_may_last_one_second_costs_no_call() {
    let flags = [
        "-max-connection-age",
        "1000",
        "-max-connection-age-grace",
        "500",
    ];
    let (_one, first) = server_of(GRPC_JS, &flags).await;
    let (_other, second) = server_of(GRPC_JS, &flags).await;
    compare(GRPC_JS, &[first, second], pausing(1), None).await;
}

#[tokio::test]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn no_call_of_grpc_js_fails_while_one_of_our_servers_ends() {
    let (_stays, first) = tonic_server(interop()).await;
    let (ends, second) = tonic_server(interop()).await;
    let client = load_of(GRPC_JS, &[first, second], CALLERS, Duration::ZERO);
    sleep(RUN / 2).await;
    within("our server ends", ends.shutdown()).await.unwrap();
    sleep(RUN / 2).await;
    let counts = counted(client).await;
    eprintln!("{counts:?}");
    assert!(counts.calls > 100, "{counts:?}");
    assert_eq!(counts.failed, 0, "{counts:?}");
}
