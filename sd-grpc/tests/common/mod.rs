//! What the tests share: servers that can be told what to do, and a source of instances that is set by hand.

#![allow(
    clippy::unwrap_used,
    dead_code,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    unused_imports,
    reason = "a test fails by panicking; each test binary uses a part of this"
)]

pub mod echo;
pub mod raw;
pub mod scripted;
mod server;
mod source;

use std::future::Future;
use std::time::Duration;

use sd_grpc::{BalancedChannel, EndpointState};
use tokio::time::{sleep, timeout};

pub use self::server::{Seen, TestServer, instance_at};
pub use self::source::{Panicking, Set, Silent};

/// Longer than anything takes on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// Waits until `condition` holds; fails the test with `what` if that takes too long.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(SOON, waiting).await.is_ok(), "not in time: {what}");
}

/// Fails the test if `work` takes too long.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = timeout(SOON, work).await;
    done.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Waits until the channel has this many endpoints and all of them take calls.
pub async fn ready(channel: &BalancedChannel, count: usize) {
    eventually("all endpoints are ready", || {
        let endpoints = channel.dump().endpoints;
        endpoints.len() == count && endpoints.iter().all(|e| e.state == EndpointState::Ready)
    })
    .await;
}
