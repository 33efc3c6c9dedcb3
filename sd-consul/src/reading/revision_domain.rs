//! Which history of the servers the positions of one client are of.
//!
//! Consul's index counts what was written. It goes back when data is lost or restored, and then another history has begun: Consul
//! has no name for it, so they are counted here.

use std::sync::atomic::{AtomicU64, Ordering};

use sd_core::Revision;
use sd_core::clock::Moment;

use crate::client::answer::Meta;

/// The history as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct RevisionDomain(AtomicU64);

impl RevisionDomain {
    /// A position in the history of now.
    fn revision(&self, index: u64) -> Revision {
        Revision::new(self.name(), index)
    }

    /// The position of an answer, and the moment, no later than `at`, of which it tells.
    pub(crate) fn position(&self, meta: &Meta, at: Moment) -> (Revision, Moment) {
        (self.revision(meta.index), at - meta.staleness)
    }

    /// Whether `index` was read after `before`. If not, another history has begun.
    pub(crate) fn goes_on(&self, before: &Revision, index: u64) -> bool {
        let goes_on = before.domain() == self.name() && before.value() <= index;
        if before.domain() == self.name() && !goes_on {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        goes_on
    }

    fn name(&self) -> String {
        format!("consul-{}", self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_goes_back_begins_another_history() {
        let domain = RevisionDomain::default();
        let seven = domain.revision(7);
        assert!(domain.goes_on(&seven, 7) && domain.goes_on(&seven, 8));
        assert_eq!(domain.revision(7), seven);
        assert!(!domain.goes_on(&seven, 6));
        let six = domain.revision(6);
        assert_eq!(six.partial_cmp(&seven), None);
        // Another feed tells of the same.
        assert!(!domain.goes_on(&seven, 6));
        assert_eq!(domain.revision(6), six);
    }
}
