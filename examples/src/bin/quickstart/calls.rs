//! The client: calls through one balanced channel, several at a time, and a count of how they ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use examples::greeter::{GreeterClient, HelloRequest};
use sd_core::Registry;
use sd_core::sync::lock;
use sd_grpc::{AnsweredBy, AttemptInfo, BalancedChannel, Idempotent};
use tokio::task::JoinSet;
use tonic::{Request, Status};

use crate::{Result, chain};

/// How many calls are in flight.
pub(crate) const AT_A_TIME: usize = 8;

/// For a call as a whole, whichever endpoints it goes to.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3);

/// How long an endpoint may take to answer before the call moves on to another: short enough for a second and a third try, and long
/// enough for a busy machine.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);

/// After a failed call: an immediate retry makes trouble worse.
const PAUSE: Duration = Duration::from_millis(100);

/// How many failures are kept to be shown.
const SHOWN: usize = 3;

/// A channel to all instances of `service`.
pub(crate) fn channel(registry: &Registry, service: &str) -> Result<BalancedChannel> {
    let channel = BalancedChannel::builder(registry, service).attempt_timeout(ATTEMPT_TIMEOUT);
    Ok(channel.build()?)
}

/// Calls that go on from `begin` until `stop`.
#[derive(Default)]
pub(crate) struct Calls {
    shared: Arc<Shared>,
    callers: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    calls: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<Vec<String>>,
    /// When each endpoint answered for the first time, by address.
    first_answers: Mutex<BTreeMap<String, SystemTime>>,
}

impl Calls {
    pub(crate) fn begin(&mut self, channel: &BalancedChannel) {
        for _ in 0..AT_A_TIME {
            let client = GreeterClient::new(channel.clone());
            let shared = Arc::clone(&self.shared);
            self.callers.spawn(call_until_stopped(client, shared));
        }
    }

    /// How many calls have ended, well or not.
    pub(crate) fn count(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// The first few failures.
    pub(crate) fn failures(&self) -> Vec<String> {
        lock(&self.shared.failures).clone()
    }

    /// When the endpoint at `address` answered for the first time.
    pub(crate) fn first_answer(&self, address: &str) -> Option<SystemTime> {
        lock(&self.shared.first_answers).get(address).copied()
    }

    /// Waits for the calls in flight and begins no more.
    pub(crate) async fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.callers.join_next().await.is_some() {}
    }
}

async fn call_until_stopped(mut client: GreeterClient<BalancedChannel>, shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let name = "world".to_owned();
        let mut request = Request::new(HelloRequest { name });
        request.set_timeout(DEADLINE);
        // A greeting may be asked for twice. Without this mark, a call that was sent is never sent again.
        request.extensions_mut().insert(Idempotent);
        // Also when a server is frozen between its message and its status.
        request.extensions_mut().insert(AnsweredBy::End);
        match client.say_hello(request).await {
            Ok(reply) => {
                if let Some(attempt) = reply.extensions().get::<AttemptInfo>() {
                    shared.answered(attempt.endpoint());
                }
            }
            Err(status) => {
                shared.failed(&status);
                tokio::time::sleep(PAUSE).await;
            }
        }
        shared.calls.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn failed(&self, status: &Status) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = lock(&self.failures);
        if failures.len() < SHOWN {
            failures.push(chain(status));
        }
    }

    fn answered(&self, address: &str) {
        let mut first = lock(&self.first_answers);
        if !first.contains_key(address) {
            first.insert(address.to_owned(), SystemTime::now());
        }
    }
}
