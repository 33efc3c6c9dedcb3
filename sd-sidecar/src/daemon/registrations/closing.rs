//! The end of all registrations of an agent.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sd_core::RecordId;
use sd_core::sync::lock;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use super::Registrations;
#[cfg(feature = "consul")]
use super::routes::Telling;
use super::shared::LATE;
use super::table::{Slot, View};

/// How long the last write of the state may take, however short the limit of a [close](Registrations::close) is.
pub const LAST_WRITE: Duration = Duration::from_secs(1);

/// What becomes of the records when an agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// They are withdrawn, and forgotten.
    Deregister,
    /// They are left at the registry, for the next agent that is opened on the same state.
    Keep,
}

/// A record that was not left as it should be.
#[derive(Clone, Debug)]
pub struct Leftover {
    /// The record.
    pub record: RecordId,
    /// What went wrong.
    pub why: String,
}

impl Registrations {
    /// Takes no more requests, withdraws the records or leaves them, and closes the registry. Takes at most `limit`, or a little more if
    /// [`LAST_WRITE`] is longer than a quarter of it. Returns the records that could not be withdrawn or left, also of what was deregistered
    /// before and is still at the registry.
    ///
    /// Withdrawing may take three quarters of `limit`. What has not been withdrawn then is forgotten nevertheless, and expires: the next
    /// agent must not bring back what was to end. Until then, the state says that everything is to end, for the case that this process is
    /// killed: that is on disk first, unless the disk takes longer than 1 s or a quarter of `limit`.
    ///
    /// If the state could not be written a last time, [`state_trouble`](Self::state_trouble) says so afterwards. The next agent then goes on
    /// with an older one, and may bring back what was withdrawn.
    ///
    /// Records are left for the agent that is opened next on the same state. A registry whose records end with the process that registered
    /// them, as ephemeral nodes of ZooKeeper do, has them withdrawn, and that agent registers them again.
    ///
    /// # Cancel safety
    /// If the future is dropped, what was begun goes on in the background. Call again to wait for it.
    pub async fn close(&self, how: How, limit: Duration) -> Vec<Leftover> {
        let begin = Instant::now();
        let by = begin + limit;
        let shared = &self.shared;
        let (slots, parked): (Vec<Arc<Slot>>, Vec<RecordId>) = {
            let mut table = lock(&shared.table);
            table.is_closed = true;
            let parked = table
                .parked()
                .iter()
                .flat_map(|parked| parked.stored.records());
            (table.slots().cloned().collect(), parked.collect())
        };
        let mut unkept = Vec::new();
        // Record how it ends before ending it.
        match how {
            How::Deregister => {
                let ending = Arc::clone(shared);
                shared.tasks.spawn(async move {
                    // On disk first: this process may be killed while it withdraws. A disk that does not answer leaves time for that.
                    let _ = timeout(limit / 4, ending.note_end()).await;
                    ending.stop.cancel();
                    ending.closing.cancel();
                });
                unkept.extend(parked.into_iter().map(|record| {
                    let (withdrawing, meant) = (Arc::clone(shared), record.clone());
                    let task = async move {
                        withdrawing.stop.cancelled().await;
                        withdrawing.withdraw_once(&meant).await
                    };
                    (record, shared.tasks.spawn(task))
                }));
            }
            How::Keep => {
                lock(&shared.table).is_ending = false;
                shared.keep_records();
                // What is told stays with the records.
                #[cfg(feature = "consul")]
                drop(lock(&shared.routes).take());
                shared.closing.cancel();
            }
        }
        shared.tasks.close();
        let written_by = match how {
            How::Deregister => {
                // What is late is told below.
                let _ = timeout_at(begin + limit / 4 * 3, shared.tasks.wait()).await;
                lock(&shared.table).clear();
                #[cfg(feature = "consul")]
                {
                    let ended = lock(&shared.routes).as_ref().map(Telling::end);
                    if let Some(ended) = ended {
                        // It has the rest of the limit but for what closing takes.
                        let _ = timeout_at(begin + limit / 8 * 7, ended).await;
                    }
                    drop(lock(&shared.routes).take());
                }
                let written_by = by.max(Instant::now() + LAST_WRITE);
                self.flush(written_by).await;
                log_closed(timeout_at(by, shared.registry.close()).await.ok());
                written_by
            }
            How::Keep => {
                let written_by = by.max(Instant::now() + LAST_WRITE);
                self.flush(written_by).await;
                if let Some(store) = &shared.store {
                    store.stop();
                }
                let closing = shared.registry.close_keeping_records();
                log_closed(timeout_at(by, closing).await.ok());
                let _ = timeout_at(by, shared.tasks.wait()).await;
                written_by
            }
        };
        // From here on the next agent may go on.
        self.leave_state(written_by).await;
        let kept = slots
            .iter()
            .filter_map(|slot| leftover(&slot.view.borrow()));
        // What a caller has been answered for is no longer among the slots.
        let mut left = shared.not_withdrawn();
        let unkept = unkept.into_iter().filter_map(|(record, task)| {
            let why = match task.now_or_never() {
                Some(Ok(Ok(()))) => return None,
                Some(Ok(Err(error))) => error.report().to_string(),
                Some(Err(_)) | None => LATE.to_owned(),
            };
            Some((record, why))
        });
        left.extend(kept.chain(unkept));
        let left = left.into_iter();
        left.map(|(record, why)| Leftover { record, why }).collect()
    }

    /// Notes on disk that everything is about to be withdrawn: should this process be killed before it has done so, the next agent brings
    /// nothing back, and withdraws what is left. Waits for the disk, 1 s at most.
    ///
    /// # Cancel safety
    /// If the future is dropped, it is noted nevertheless.
    pub async fn note_end(&self) {
        self.shared.note_end().await;
    }

    async fn leave_state(&self, by: Instant) {
        if let Some(store) = &self.shared.store
            && timeout_at(by, store.close()).await.is_err()
        {
            warn!(
                "the last write of the state takes long: the next agent may have to wait for the file"
            );
        }
    }

    /// Writes the state a last time.
    async fn flush(&self, by: Instant) {
        let Some(store) = &self.shared.store else {
            return;
        };
        match timeout_at(by, store.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => warn!(error = %why, "the state on disk is an older one"),
            Err(_) => {
                warn!("the state could not be written in time");
                store.tell_slow();
            }
        }
    }
}

/// The record, if it is not as it should be, and why not.
fn leftover(view: &View) -> Option<(RecordId, String)> {
    let why = match (&view.entry.error, view.is_over) {
        (_, false) => LATE.to_owned(),
        (Some(why), true) => why.clone(),
        (None, true) => return None,
    };
    Some((view.entry.record.clone(), why))
}

fn log_closed(closed: Option<sd_core::Result<()>>) {
    if let Some(Err(error)) = closed {
        warn!(error = %error.report(), "the registry was not closed in order");
    }
}
