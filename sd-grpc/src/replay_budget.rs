//! How much of all streamed requests of a channel may be kept for sending them again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much of one of them may be kept.
pub(crate) const REPLAY_BYTES: usize = 64 * 1024;

/// What is left of a channel's budget, in bytes.
#[derive(Debug)]
pub(crate) struct ReplayBudget(AtomicUsize);

impl ReplayBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }
}

/// What one stream has taken from the budget. Gives it back when dropped.
#[derive(Debug)]
pub(crate) struct ReplayShare {
    budget: Arc<ReplayBudget>,
    taken: usize,
}

impl ReplayShare {
    pub(crate) fn of(budget: &Arc<ReplayBudget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            taken: 0,
        }
    }

    /// Takes this many bytes more, unless that is too much for one stream or for the channel.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        if self.taken.saturating_add(bytes) > REPLAY_BYTES {
            return false;
        }
        let left = &self.budget.0;
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(bytes)
        });
        if taken.is_ok() {
            self.taken += bytes;
        }
        taken.is_ok()
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        self.budget.0.fetch_add(taken, Ordering::Relaxed);
    }
}

impl Drop for ReplayShare {
    fn drop(&mut self) {
        self.give_back();
    }
}
