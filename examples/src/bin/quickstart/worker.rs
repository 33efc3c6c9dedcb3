//! A worker: what your process does where only one of many may work at a time.
//!
//! Each worker has a thread and a runtime of its own. Everything of the worker lives there, its registry client too. Blocking
//! that thread freezes all of it, as SIGSTOP freezes a process.

use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use sd_core::port::AnyElector;
use sd_core::{FencingToken, Registry};
use sd_election::{Candidate, Fenced, Refused};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::fleet::Fleet;

/// How long a worker leads after the registry last heard from it, if the registry grants leases this short.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(50);

/// What only one worker may write: here the names of the writers. It keeps the greatest token that it has seen, and refuses
/// lower ones.
pub(crate) type Ledger = Fenced<Vec<String>>;

/// How far a worker has come.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    Waits,
    /// Leads, and has written.
    Works {
        token: FencingToken,
        since: Instant,
    },
    Frozen,
    /// Could not write, and then asked once more whether it leads.
    Refused {
        why: Refused,
        leads: bool,
    },
}

/// Works while it leads, until it is told to stop.
async fn work(
    registry: &Registry,
    (election, lease): (&str, Duration),
    name: &str,
    ledger: &Ledger,
    progress: &watch::Sender<Progress>,
    orders: &blocking::Receiver<Freeze>,
) -> Result<()> {
    let candidate = match registry.elector()? {
        AnyElector::Strict(_) => Candidate::builder(registry, election),
        // Two may lead at once. The ledger refuses the one with the smaller token.
        AnyElector::BestEffort(_) => Candidate::best_effort(registry, election),
    };
    let candidate = candidate
        .value(name)
        .ttl(lease)
        // By default a thread that the worker cannot block keeps the term. This term must freeze with the worker.
        .on_runtime(Handle::current())
        .build()?;
    let leadership = candidate.campaign().await?;
    let since = Instant::now();
    while leadership.is_leader() {
        // A process can stop here for any time. When it goes on, it knows only that it led before.
        if is_told_to_stop(orders, progress) {
            break;
        }
        let token = leadership.token();
        progress.send_replace(
            match ledger.write(token, |names| names.push(name.to_owned())) {
                Ok(()) => Progress::Works {
                    token: token.clone(),
                    since,
                },
                Err(why) => Progress::Refused {
                    why,
                    leads: leadership.is_leader(),
                },
            },
        );
        sleep(PAUSE).await;
    }
    leadership.resign().await?;
    Ok(())
}

/// Freeze until the other end of this is dropped.
type Freeze = blocking::Receiver<()>;

fn is_told_to_stop(
    orders: &blocking::Receiver<Freeze>,
    progress: &watch::Sender<Progress>,
) -> bool {
    match orders.try_recv() {
        Ok(until_dropped) => {
            progress.send_replace(Progress::Frozen);
            // Blocks this runtime on purpose.
            let _ = until_dropped.recv();
            false
        }
        Err(blocking::TryRecvError::Empty) => false,
        Err(blocking::TryRecvError::Disconnected) => true,
    }
}

/// A worker in its thread.
pub(crate) struct Worker {
    progress: watch::Receiver<Progress>,
    orders: blocking::SyncSender<Freeze>,
    ended: oneshot::Receiver<Result<()>>,
    /// Dropping it lets a frozen worker go on.
    frozen: Option<blocking::Sender<()>>,
}

impl Worker {
    pub(crate) fn start(
        fleet: &Fleet,
        (election, lease): (&str, Duration),
        name: &str,
        ledger: &Arc<Ledger>,
    ) -> Result<Self> {
        let (fleet, ledger) = (fleet.clone(), Arc::clone(ledger));
        let (election, name) = (election.to_owned(), name.to_owned());
        let (orders, ordered) = blocking::sync_channel(1);
        let (progress, progress_seen) = watch::channel(Progress::Waits);
        let (end, ended) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let done = runtime.block_on(async {
                    let registry = fleet.registry().await?;
                    let election = (&*election, lease);
                    work(&registry, election, &name, &ledger, &progress, &ordered).await?;
                    Ok(registry.close().await?)
                });
                // The story may have ended.
                let _ = end.send(done);
            })?;
        Ok(Self {
            progress: progress_seen,
            orders,
            ended,
            frozen: None,
        })
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Freezes the worker the next time that it has seen that it leads and is about to write.
    pub(crate) fn freeze(&mut self) -> Result<()> {
        let (thaw, thawed) = blocking::channel();
        self.frozen = Some(thaw);
        let sent = self.orders.try_send(thawed);
        sent.map_err(|_| "the worker has ended".into())
    }

    /// Lets it go on.
    pub(crate) fn thaw(&mut self) {
        self.frozen = None;
    }

    /// Tells the worker to end, resigning if it leads, and waits for that.
    pub(crate) async fn stop(self) -> Result<()> {
        drop(self.orders);
        self.ended.await?
    }
}
