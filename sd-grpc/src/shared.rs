//! What a channel's handles, its calls and its driver have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use http::HeaderValue;
use metrics::Gauge;
use sd_core::ServiceName;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::ChannelConfig;
use crate::durations::CallDurations;
use crate::event::Event;
use crate::instrument::CallMetrics;
use crate::ready_set::ReadySet;
use crate::replay_budget::ReplayBudget;
use crate::throttle::Throttle;

/// Held by every handle, call and response. When the last one is gone, the driver ends.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) service: ServiceName,
    pub(crate) config: Arc<ChannelConfig>,
    pub(crate) published: Arc<Published>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) user_agent: HeaderValue,
    pub(crate) throttle: Throttle,
    pub(crate) replay_budget: Arc<ReplayBudget>,
    pub(crate) metrics: CallMetrics,
    pub(crate) durations: CallDurations,
    pub(crate) totals: CachePadded<Totals>,
    /// Cancelled to end the channel.
    pub(crate) stop: CancellationToken,
    /// Cancelled when the driver has ended.
    pub(crate) ended: CancellationToken,
    pub(crate) _stop_on_drop: DropGuard,
}

/// What the driver publishes, and how calls wait for it: in a line, of which the first one picks.
#[derive(Debug)]
pub(crate) struct Published {
    set: ArcSwap<ReadySet>,
    changed: Notify,
    /// A call left its connection.
    freed: Notify,
    /// One permit, for the first in line. A semaphore is fair: it is the line.
    first: Semaphore,
    /// How many calls wait. Nearly always none: a call that ends then pays one load.
    waiting: AtomicUsize,
    waiting_gauge: Gauge,
}

impl Published {
    pub(crate) fn new(set: ReadySet, waiting_gauge: Gauge) -> Self {
        Self {
            set: ArcSwap::from_pointee(set),
            changed: Notify::new(),
            freed: Notify::new(),
            first: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            waiting_gauge,
        }
    }

    /// Where the latest set is.
    pub(crate) fn set(&self) -> &ArcSwap<ReadySet> {
        &self.set
    }

    pub(crate) fn publish(&self, set: ReadySet) {
        let old = self.set.swap(Arc::new(set));
        self.changed.notify_waiters();
        // Letting thousands of members go takes longer than all of the above.
        drop(old);
    }

    /// Told at each publishing.
    pub(crate) fn changed(&self) -> &Notify {
        &self.changed
    }

    /// A call left its connection. Told to the first in line.
    pub(crate) fn freed(&self) -> &Notify {
        &self.freed
    }

    /// Its permit makes a call the first in line until it is dropped.
    pub(crate) fn first(&self) -> &Semaphore {
        &self.first
    }

    /// How many calls wait. A new one must not pick before them.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Counts a call that is about to wait, unless `most` do already. It must look for a place once more before it waits.
    pub(crate) fn wait(&self, most: usize) -> Option<Waiting<'_>> {
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst);
        self.waiting_gauge.increment(1);
        let counted = Waiting(self);
        // Either this look at the connections sees the place that a call leaves, or that call sees us: see `freed_place`.
        fence(Ordering::SeqCst);
        (waiting < most).then_some(counted)
    }

    /// A call has left its connection.
    pub(crate) fn freed_place(&self) {
        fence(Ordering::SeqCst);
        if self.waiting() > 0 {
            self.freed.notify_one();
        }
    }
}

/// A call that waits.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Published);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.waiting_gauge.decrement(1);
    }
}

/// What happened to the calls of a channel since it was built.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) calls: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) sent_again: AtomicU64,
}

impl Totals {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
