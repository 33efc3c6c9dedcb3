//! The place of one service in the list of services, which a task of its own keeps. In a Cluster the list is at another node than most
//! services: while that does not answer, registrations and renewals go on, and the list is behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_core::{Error, ErrorKind, Result};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::client::Client;
use crate::client::error::no_answer;
use crate::scripts::NOTE;

const OP: &str = "redis: note service";
/// How long a service is in the list after it was last noted there, at least.
const LISTED_FOR: Duration = Duration::from_secs(600);
/// How often it is noted.
const NOTED_EVERY: Duration = Duration::from_secs(30);
/// How soon that is tried again.
const TRIED_EVERY: Duration = Duration::from_secs(5);
/// How much longer a registration takes at most, so that the list has the service when it returns. And no more than this part of its
/// time-to-live: core gives up an attempt after less than a quarter.
const WAITED_FOR: Duration = Duration::from_millis(500);
const PART_OF_TTL: u32 = 20;

/// Dropping it ends the task. The service is in the list for some time after that.
#[derive(Debug)]
pub(crate) struct Listing {
    shared: Arc<Shared>,
    _keeping: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    client: Arc<Client>,
    list: String,
    listed_as: String,
    /// The longest time-to-live of a record, in ms.
    longest_ttl: AtomicU64,
    asked: Notify,
    /// How often it was noted.
    noted: watch::Sender<u64>,
}

/// What was asked for, and may be waited for.
pub(crate) struct Asked {
    noted: watch::Receiver<u64>,
    limit: Duration,
}

impl Listing {
    /// Does nothing until it is first asked. Needs a runtime.
    pub(crate) fn new(client: Arc<Client>, list: String, listed_as: String) -> Self {
        let shared = Arc::new(Shared {
            client,
            list,
            listed_as,
            longest_ttl: AtomicU64::new(0),
            asked: Notify::new(),
            noted: watch::Sender::new(0),
        });
        let keeping = tokio::spawn(keep(Arc::clone(&shared)));
        Self {
            shared,
            _keeping: AbortOnDropHandle::new(keeping),
        }
    }

    /// Asks for the service to be noted now, and from then on now and then.
    pub(crate) fn ask(&self, ttl: Duration) -> Asked {
        let limit = WAITED_FOR.min(ttl / PART_OF_TTL);
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.shared.longest_ttl.fetch_max(ttl, Ordering::Relaxed);
        let noted = self.shared.noted.subscribe();
        self.shared.asked.notify_one();
        Asked { noted, limit }
    }
}

impl Asked {
    /// Returns when the service is noted, or when that takes too long. Cancel-safe.
    pub(crate) async fn within_bounds(mut self) {
        // The task that notes it ends only with the client.
        let _ = timeout(self.limit, self.noted.changed()).await;
    }
}

async fn keep(shared: Arc<Shared>) {
    shared.asked.notified().await;
    loop {
        let pause = match shared.note().await {
            Ok(()) => {
                shared.noted.send_modify(|noted| *noted += 1);
                NOTED_EVERY
            }
            Err(error) if error.kind() == ErrorKind::Closed => return,
            Err(error) => {
                debug!(error = %error.report(), "a service was not noted in the list");
                TRIED_EVERY
            }
        };
        tokio::select! {
            () = shared.asked.notified() => {}
            () = sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())) => {}
        }
    }
}

impl Shared {
    async fn note(&self) -> Result<()> {
        let longest = Duration::from_millis(self.longest_ttl.load(Ordering::Relaxed));
        let listed_for = LISTED_FOR.max(longest * 3).as_millis().to_string();
        let args = [self.listed_as.as_bytes(), listed_for.as_bytes()];
        // Registrations may wait for the connection that this call makes.
        let keys = [self.list.as_str()];
        let noting = self.client.run(OP, &NOTE, &keys, &args);
        let done = timeout(TRIED_EVERY, noting).await;
        let done = done.unwrap_or_else(|_| Err(no_answer(OP, TRIED_EVERY)));
        if done
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::InvalidData)
        {
            return Err(Error::new(ErrorKind::InvalidData, OP).because(format!(
                "{} is not the list of services, which should be a sorted set: remove it",
                self.list
            )));
        }
        done.map(drop)
    }
}
