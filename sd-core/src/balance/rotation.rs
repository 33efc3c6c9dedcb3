//! Whose turn it is: one counter that all pickers of a set share, old and new.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;

/// The turn that the pickers of one set share. A rebuilt picker continues where the old one stood, and many holders of one
/// picker share the calls exactly. The turn starts at random, so that many clients do not begin with the same server. Clones
/// share the turn.
#[derive(Clone, Debug)]
pub struct Rotation(Arc<CachePadded<AtomicU32>>);

impl Default for Rotation {
    fn default() -> Self {
        Self::new()
    }
}

impl Rotation {
    /// A rotation that starts at random.
    pub fn new() -> Self {
        Self::starting_at(fastrand::u32(..))
    }

    /// A rotation that starts at `turn`, for reproducible orders.
    pub fn starting_at(turn: u32) -> Self {
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
