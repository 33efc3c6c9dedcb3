//! Whose turn it is: one counter that the pickers of an owner share, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;

/// A turn. A picker for the next set goes on where the last one stood, and all who hold one picker share the calls exactly. It starts
/// at random, so that many clients do not begin with the same server. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Rotation(Arc<CachePadded<AtomicU32>>);

impl Rotation {
    /// A rotation that starts at random.
    pub(super) fn new() -> Self {
        Self::starting_at(fastrand::u32(..))
    }

    /// A rotation that starts at `turn`, for reproducible orders.
    pub(super) fn starting_at(turn: u32) -> Self {
        Self(Arc::new(CachePadded::new(AtomicU32::new(turn))))
    }

    /// Takes a turn.
    pub(super) fn advance(&self) -> u32 {
        // No other data is published with it.
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn turns(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}
