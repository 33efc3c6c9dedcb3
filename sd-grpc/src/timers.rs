//! What is to happen later.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Things to do, in the order of their time.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    /// Two of the same time are told apart by a number.
    things: BTreeMap<(Instant, u64), T>,
    number: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self {
            things: BTreeMap::new(),
            number: 0,
        }
    }
}

impl<T> Timers<T> {
    pub(crate) fn later(&mut self, delay: Duration, what: T) {
        // What is later than time itself never comes.
        if let Some(at) = Instant::now().checked_add(delay) {
            self.number += 1;
            self.things.insert((at, self.number), what);
        }
    }

    /// When there is something to do.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.things.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes what is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<T> {
        let first = self.things.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub(crate) fn clear(&mut self) {
        self.things.clear();
    }
}
