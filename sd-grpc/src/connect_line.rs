//! Whose turn it is to be connected, so that a large service is not connected all at once.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::subchannel::Subchannel;

/// An endpoint that failed before may well hang: such endpoints take at most half of the places, and the rest is kept for new
/// ones.
#[derive(Debug)]
pub(crate) struct ConnectLine {
    most: usize,
    /// How many connections are being opened.
    opening: usize,
    /// New places, and those whose good connection ended.
    fresh: VecDeque<Arc<Subchannel>>,
    /// To be tried again.
    retries: VecDeque<Arc<Subchannel>>,
}

impl ConnectLine {
    /// At most so many connections are opened at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            opening: 0,
            fresh: VecDeque::new(),
            retries: VecDeque::new(),
        }
    }

    pub(crate) fn extend(&mut self, fresh: impl IntoIterator<Item = Arc<Subchannel>>) {
        self.fresh.extend(fresh);
    }

    pub(crate) fn retry(&mut self, subchannel: Arc<Subchannel>) {
        self.retries.push_back(subchannel);
    }

    /// What may be opened now, if anything.
    pub(crate) fn next(&mut self) -> Option<Arc<Subchannel>> {
        if self.is_busy() {
            return None;
        }
        let may_retry = self.opening < self.most.div_ceil(2);
        match self.fresh.pop_front() {
            None if may_retry => self.retries.pop_front(),
            fresh => fresh,
        }
    }

    /// Whether no more may be opened.
    pub(crate) fn is_busy(&self) -> bool {
        self.opening >= self.most
    }

    pub(crate) fn begun(&mut self) {
        self.opening += 1;
    }

    pub(crate) fn over(&mut self) {
        self.opening -= 1;
    }

    pub(crate) fn clear(&mut self) {
        self.fresh.clear();
        self.retries.clear();
    }
}
