//! From what a source tells to what readers see: mass-loss hold, coalescing, and status.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::Moment;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::instrument;
use crate::mass_loss::{Holder, MassLossHold};
use crate::snapshot::{Revision, Snapshot};
use crate::state::{State, Status};

/// How bursts of changes merge. The first change after quiet is published at once; its followers wait for quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalescing {
    /// A pause of this length ends a burst. Default 10 ms.
    pub quiet: Duration,
    /// No change waits longer than this. Default 100 ms.
    pub longest: Duration,
}

impl Default for Coalescing {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(10),
            longest: Duration::from_millis(100),
        }
    }
}

/// A set that waits for the end of a burst.
#[derive(Debug)]
struct Pending {
    snapshot: Snapshot,
    since: Instant,
}

/// The one writer of a subscription's state.
#[derive(Debug)]
pub(crate) struct Publisher {
    out: watch::Sender<State>,
    clock: Arc<dyn Clock>,
    coalescing: Coalescing,
    holder: Holder,
    last_change: Option<Instant>,
    pending: Option<Pending>,
}

impl Publisher {
    pub(crate) fn new(
        out: watch::Sender<State>,
        clock: Arc<dyn Clock>,
        coalescing: Coalescing,
        hold: Option<MassLossHold>,
    ) -> Self {
        Self {
            out,
            clock,
            coalescing,
            holder: Holder::new(hold),
            last_change: None,
            pending: None,
        }
    }

    /// Takes a full set from the source.
    pub(crate) fn set(&mut self, listed: &Snapshot) {
        for skipped in listed.skipped() {
            debug!(key = skipped.key, reason = skipped.reason, "entry skipped");
        }
        let now = Instant::now();
        let served = self.holder.take(now, listed);
        self.offer(now, served);
    }

    /// The source answered that nothing changed up to `revision`.
    pub(crate) fn alive(&mut self, revision: &Revision, as_of: Moment) {
        if let Some(pending) = &mut self.pending {
            pending.snapshot = pending
                .snapshot
                .clone()
                .with_position(revision.clone(), as_of);
        } else {
            let snapshot = self
                .out
                .borrow()
                .snapshot
                .clone()
                .with_position(revision.clone(), as_of);
            self.publish(snapshot);
        }
    }

    /// The source has trouble: the set stays, the status says why.
    pub(crate) fn trouble(&mut self, error: &Error) {
        let now = self.clock.now();
        self.out.send_modify(|state| {
            if let Status::Live = &state.status {
                instrument::stale(&state.snapshot);
                if error.kind() == ErrorKind::Outdated {
                    debug!(error = %error.report(), "feed outdated, reading everything again");
                } else {
                    warn!(error = %error.report(), "source has trouble, keeping the last set");
                }
            } else {
                debug!(error = %error.report(), "source still has trouble");
            }
            state.status = match state.status {
                Status::Initializing { since, .. } => Status::Initializing {
                    since,
                    error: Some(error.clone()),
                },
                Status::Live => Status::Stale {
                    since: now,
                    error: error.clone(),
                },
                Status::Stale { since, .. } => Status::Stale {
                    since,
                    error: error.clone(),
                },
            };
        });
    }

    /// When [`on_timer`](Self::on_timer) has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        let burst_ends = self.pending.as_ref().map(|pending| {
            let quiet = self
                .last_change
                .map_or(pending.since, |at| at + self.coalescing.quiet);
            quiet.min(pending.since + self.coalescing.longest)
        });
        [burst_ends, self.holder.due()].into_iter().flatten().min()
    }

    /// Publishes what waited for the end of a burst, and lets go of what was held for long enough.
    pub(crate) fn on_timer(&mut self) {
        let now = Instant::now();
        if self.holder.due().is_some_and(|due| due <= now) {
            if let Some(released) = self.holder.release(now) {
                self.offer(now, released);
            }
        } else if let Some(pending) = self.pending.take() {
            self.publish(pending.snapshot);
        }
    }

    fn offer(&mut self, now: Instant, served: Snapshot) {
        let (known, same) = {
            let state = self.out.borrow();
            (state.is_known(), state.snapshot.is_same_set(&served))
        };
        if known && same {
            self.pending = None;
            return self.publish(served);
        }
        let in_burst = self
            .last_change
            .is_some_and(|last| now.saturating_duration_since(last) < self.coalescing.quiet);
        self.last_change = Some(now);
        if known && (in_burst || self.pending.is_some()) {
            let since = self.pending.as_ref().map_or(now, |pending| pending.since);
            self.pending = Some(Pending {
                snapshot: served,
                since,
            });
        } else {
            self.publish(served);
        }
    }

    /// Replaces the state; wakes readers only if they would see a difference.
    fn publish(&mut self, snapshot: Snapshot) {
        self.out.send_if_modified(|state| {
            let was_live = matches!(state.status, Status::Live);
            let changed = !state.is_known() || !state.snapshot.is_same_set(&snapshot);
            if changed {
                info!(
                    instances = snapshot.len(),
                    held = snapshot.held().len(),
                    skipped = snapshot.skipped().len(),
                    revision = snapshot.revision().value(),
                    "set changed"
                );
            } else if !was_live {
                info!(
                    revision = snapshot.revision().value(),
                    "source is well again"
                );
            }
            instrument::published(&snapshot, changed);
            *state = State {
                snapshot,
                status: Status::Live,
            };
            changed || !was_live
        });
    }
}
