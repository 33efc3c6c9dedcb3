//! Mistakes that are put in to see whether the fuzzer finds them.

use std::sync::atomic::{AtomicBool, Ordering};

static PLANTED: AtomicBool = AtomicBool::new(false);

/// Puts a mistake into every target.
pub fn plant() {
    PLANTED.store(true, Ordering::Relaxed);
}

pub(crate) fn is_planted() -> bool {
    PLANTED.load(Ordering::Relaxed)
}
