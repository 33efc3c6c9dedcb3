//! Withdrawals. Each is a task that goes on when its caller has given up: otherwise the record would stay as long as the session, which
//! the other records of a registry keep. It runs where the session does, and so outlives the runtime of its caller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sd_backend::Owner;
use sd_core::retry::{Backoff, Retry};
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, RecordId, Result};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::client::Client;
use crate::client::session::Session;
use crate::codec::Layout;
use crate::writing::claims::Claims;
use crate::writing::records::{MOST_ROUNDS, Records, changes_too_fast};

const OP: &str = "zk: withdraw";
/// How many records may be withdrawn at once.
const MOST: usize = 10_000;
/// The pauses between attempts.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// The pause after an answer that a new connection does not change.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// The withdrawals of one registrar. Each ends when the record is gone, when its session has ended, when the registry is closed or
/// dropped, or when the record is registered again.
#[derive(Debug)]
pub(crate) struct Withdrawals {
    withdrawer: Withdrawer,
    under_way: Mutex<BTreeMap<RecordId, Withdrawal>>,
}

/// What a withdrawal needs.
#[derive(Clone, Debug)]
struct Withdrawer {
    client: Arc<Client>,
    layout: Layout,
    claims: Arc<Claims>,
}

/// What came of the last attempt, once there was one.
type Outcome = Option<Result<()>>;

#[derive(Debug)]
struct Withdrawal {
    told: watch::Receiver<Outcome>,
    task: AbortOnDropHandle<()>,
}

impl Withdrawals {
    pub(crate) fn new(client: Arc<Client>, layout: Layout, claims: Arc<Claims>) -> Self {
        Self {
            withdrawer: Withdrawer {
                client,
                layout,
                claims,
            },
            under_way: Mutex::default(),
        }
    }

    /// Begins to withdraw a record, unless that is under way, and returns what comes of the next attempt. A dropped call, or one that has
    /// returned an error, leaves the withdrawal going on.
    pub(crate) async fn withdraw(&self, record: &RecordId) -> Result<()> {
        let mut told = {
            let mut under_way = self.under_way();
            if let Some(withdrawal) = under_way.get(record) {
                let mut told = withdrawal.told.clone();
                told.mark_unchanged();
                told
            } else {
                if under_way.len() >= MOST {
                    let full = Error::new(ErrorKind::RateLimited { retry_after: None }, OP);
                    return Err(full.because(format!("{MOST} records are being withdrawn already")));
                }
                let runtime = self.withdrawer.client.runtime();
                let runtime = runtime.unwrap_or_else(Handle::current);
                let withdrawal = self.withdrawer.clone().begin(record.clone(), &runtime);
                let told = withdrawal.told.clone();
                under_way.insert(record.clone(), withdrawal);
                told
            }
        };
        outcome(&mut told).await
    }

    /// Begins to withdraw a record whose registration has gone with its runtime, unless that is under way. Without a session there is
    /// none.
    pub(crate) fn abandoned(&self, record: &RecordId) {
        let Some(runtime) = self.withdrawer.client.runtime() else {
            return;
        };
        let mut under_way = self.under_way();
        if !under_way.contains_key(record) && under_way.len() < MOST {
            let withdrawal = self.withdrawer.clone().begin(record.clone(), &runtime);
            under_way.insert(record.clone(), withdrawal);
        }
    }

    /// Stops the withdrawal of a record that is about to be registered again, and waits for those of earlier runs under its id.
    ///
    /// # Errors
    /// Why an earlier run could not be withdrawn yet.
    pub(crate) async fn make_way(&self, op: &'static str, record: &RecordId) -> Result<()> {
        let (own, earlier) = {
            let mut under_way = self.under_way();
            let own = under_way.remove(record);
            let has_id =
                |other: &RecordId| (&other.service, &other.id) == (&record.service, &record.id);
            let earlier = under_way.iter().filter(|(other, _)| has_id(other));
            let earlier: Vec<_> = earlier.map(|(_, found)| found.told.clone()).collect();
            (own, earlier)
        };
        if let Some(own) = own {
            own.task.abort();
            // Until then it may make a request.
            let _ = own.task.await;
        }
        for mut told in earlier {
            told.mark_unchanged();
            let withdrawn = outcome(&mut told).await;
            withdrawn.map_err(|error| Error::new(error.kind(), op).with_source(error))?;
        }
        Ok(())
    }

    /// Those that have not ended.
    fn under_way(&self) -> MutexGuard<'_, BTreeMap<RecordId, Withdrawal>> {
        let mut under_way = lock(&self.under_way);
        under_way.retain(|_, withdrawal| !withdrawal.task.is_finished());
        under_way
    }
}

/// The next outcome, or the last one if there will be no other.
async fn outcome(told: &mut watch::Receiver<Outcome>) -> Result<()> {
    // It fails when the task has ended.
    let _ = told.changed().await;
    let last = told.borrow().clone();
    last.unwrap_or_else(|| {
        Err(Error::new(ErrorKind::Unavailable, OP)
            .because("the runtime that was withdrawing the record has ended"))
    })
}

impl Withdrawer {
    fn begin(self, record: RecordId, runtime: &Handle) -> Withdrawal {
        let (tell, told) = watch::channel(None);
        let task = runtime.spawn(async move {
            let done = self.until_done(&record, &tell);
            let done = self.client.signal.unless_closed(OP, done).await;
            tell.send_replace(Some(done));
        });
        Withdrawal {
            told,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Attempts it until the record is gone, or can only go with its session. Tells of each attempt that has failed.
    async fn until_done(&self, record: &RecordId, tell: &watch::Sender<Outcome>) -> Result<()> {
        let session = self.client.session(OP).await?;
        let mut backoff = Backoff::new(PAUSES[0], PAUSES[1]);
        loop {
            let error = match self.attempt(&session, record).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error.kind() {
                // The server may not know yet that it has ended.
                ErrorKind::LeaseLost => {
                    let next = self.client.session(OP).await?;
                    return self.attempt(&next, record).await;
                }
                kind if kind.retry() == Retry::Never => return Err(error),
                _ => {}
            }
            debug!(?record, error = %error.report(), "a withdrawal goes on");
            let is_refused = matches!(error.kind(), ErrorKind::Denied | ErrorKind::Rejected);
            tell.send_replace(Some(Err(error)));
            let pause = backoff.next_delay();
            sleep(if is_refused { REFUSED_PAUSE } else { pause }).await;
        }
    }

    /// Waits for a connection, and removes the record if it is there and ours.
    async fn attempt(&self, session: &Session, record: &RecordId) -> Result<()> {
        let records = Records {
            session,
            layout: &self.layout,
            op: OP,
        };
        for _ in 0..MOST_ROUNDS {
            let found = records.find(record).await?.filter(|found| {
                self.claims.has(record, found.stat.ephemeral_owner)
                    || Owner::of(&found.stored, record) == Owner::Us
            });
            let is_gone = match &found {
                Some(found) => records.remove(found).await?,
                None => true,
            };
            if is_gone {
                self.claims.forget(record);
                return Ok(());
            }
        }
        Err(changes_too_fast(OP, record))
    }
}
