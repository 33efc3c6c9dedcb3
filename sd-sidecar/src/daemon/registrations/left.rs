//! What the agent before was about to end, and has not: it stays on disk until it has ended, whichever agent comes to that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::info;

use super::Registrations;
use crate::daemon::store::Stored;

/// A registration that is to end.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) stored: Arc<Stored>,
    /// Its records are withdrawn, or have been tried to be for long enough.
    is_withdrawn: AtomicBool,
    /// Its routes are taken back, or it has none.
    is_untold: AtomicBool,
}

impl Left {
    pub(crate) fn new(stored: Arc<Stored>) -> Self {
        Self {
            stored,
            is_withdrawn: AtomicBool::new(false),
            is_untold: AtomicBool::new(true),
        }
    }

    /// It has routes, which are to be taken back.
    #[cfg(feature = "consul")]
    pub(super) fn is_told(&self) {
        self.is_untold.store(false, Ordering::Release);
    }

    /// Its routes are taken back.
    #[cfg(feature = "consul")]
    pub(super) fn untold(&self) {
        self.is_untold.store(true, Ordering::Release);
    }

    /// Whether nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        self.is_withdrawn.load(Ordering::Acquire) && self.is_untold.load(Ordering::Acquire)
    }
}

impl Registrations {
    /// Ends what the agent before was about to end, in the background.
    pub(super) fn end_left(&self, left: &Arc<Left>) {
        let (shared, left) = (Arc::clone(&self.shared), Arc::clone(left));
        self.shared.tasks.spawn(async move {
            let mut are_withdrawn = true;
            for record in left.stored.records() {
                info!(service = ?record.service, instance = ?record.id, "the agent before was stopped and has not deregistered it: it is withdrawn now");
                are_withdrawn &= shared.withdraw_for_long(&record).await;
            }
            if are_withdrawn {
                left.is_withdrawn.store(true, Ordering::Release);
                shared.save();
            }
        });
    }
}
