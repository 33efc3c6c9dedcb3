//! Where a service is in its history, and where readers were told that it is.
//!
//! A server that takes the place of another and has lost changes goes on from an earlier position, and counts to the same numbers again. So
//! what is read after a loss is on a branch of the history: positions before and after it have no order. Feeds that are opened later are on the
//! same branch, also if theirs is the connection that broke with the loss.

use std::collections::HashMap;
use std::sync::Mutex;

use sd_core::sync::lock;
use sd_core::{Revision, ServiceName};
use tracing::debug;

/// More services than a process follows. The positions of all are forgotten then.
const MOST_SERVICES: usize = 10_000;

/// Where a service was at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    /// The name of its history. Empty as long as there is none.
    pub(crate) history: String,
    /// How many changes that has.
    pub(crate) version: u64,
    /// The sum of these changes. Two servers of one history that have lost different changes have different ones.
    pub(crate) sum: String,
    /// The first sum that was seen after changes were lost.
    branch: Option<String>,
}

/// The positions that were told last.
#[derive(Debug, Default)]
pub(crate) struct Positions(Mutex<HashMap<ServiceName, Position>>);

impl Position {
    pub(crate) fn new(history: String, version: u64, sum: String) -> Self {
        Self {
            history,
            version,
            sum,
            branch: None,
        }
    }

    /// Whether no change lies between the two.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        (&self.history, self.version, &self.sum) == (&other.history, other.version, &other.sum)
    }

    /// Whether the server that was there `before` had changes which the one that is here now has lost.
    fn has_lost(&self, before: &Self) -> bool {
        self.history == before.history && self.version <= before.version && !self.is_at(before)
    }

    /// The same position, on its branch, if it was asked for after that one was known.
    pub(crate) fn after(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before.filter(|before| before.history == self.history) else {
            return self;
        };
        if self.has_lost(before) {
            debug!(
                version = self.version,
                "the server has lost changes that were told"
            );
            self.branch = Some(self.sum.clone());
        } else {
            self.branch.clone_from(&before.branch);
        }
        self
    }

    /// What readers are told of it.
    pub(crate) fn revision(&self) -> Revision {
        let history = &self.history;
        match &self.branch {
            Some(branch) => Revision::new(format!("{history}/{branch}"), self.version),
            None => Revision::new(history.as_str(), self.version),
        }
    }
}

impl Positions {
    /// The last one of a service. One that is asked for after this is no earlier, unless changes were lost.
    pub(crate) fn last(&self, service: &ServiceName) -> Option<Position> {
        lock(&self.0).get(service).cloned()
    }

    /// Readers are told this one. Of two feeds of one service, the one that is further counts.
    pub(crate) fn tell(&self, service: &ServiceName, at: &Position) {
        let mut all = lock(&self.0);
        match all.get_mut(service) {
            Some(last) if at.is_at(last) || at.revision() < last.revision() => {}
            Some(last) => last.clone_from(at),
            None => {
                if all.len() >= MOST_SERVICES {
                    all.clear();
                }
                all.insert(service.clone(), at.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(version: u64, sum: &str) -> Position {
        Position::new("h".to_owned(), version, sum.to_owned())
    }

    #[test]
    fn a_server_that_has_lost_changes_is_told_by_its_sum() {
        let before = at(7, "a");
        assert!(at(7, "a").is_at(&before) && !at(7, "a").has_lost(&before));
        assert!(at(7, "b").has_lost(&before) && at(6, "b").has_lost(&before));
        // It may have, and nothing says so: everything is read, and the positions have an order.
        assert!(!at(8, "b").has_lost(&before) && !at(8, "b").is_at(&before));
        let elsewhere = Position::new("other".to_owned(), 0, String::new());
        assert!(!elsewhere.has_lost(&before) && !elsewhere.is_at(&before));
    }

    #[test]
    fn feeds_that_are_opened_after_a_loss_are_on_the_same_branch_and_a_new_history_has_none() {
        let (positions, service) = (Positions::default(), ServiceName::new("s").unwrap());
        let open = |read: Position| {
            let opened = read.after(positions.last(&service).as_ref());
            positions.tell(&service, &opened);
            opened.revision()
        };
        let before = open(at(7, "a"));
        assert_eq!(open(at(7, "a")), before);
        // As many changes, and others.
        let lost = open(at(7, "b"));
        assert_eq!(lost.partial_cmp(&before), None);
        let later = open(at(8, "c"));
        assert!(later > lost && later.partial_cmp(&before).is_none());
        let again = open(at(6, "d"));
        assert!(again.partial_cmp(&later).is_none() && again.partial_cmp(&before).is_none());
        let new = open(Position::new("new".to_owned(), 1, "e".to_owned()));
        assert_eq!(new.domain(), "new");
    }

    #[test]
    fn a_feed_that_is_behind_another_one_of_its_service_does_not_hide_where_that_was() {
        let (positions, service) = (Positions::default(), ServiceName::new("s").unwrap());
        positions.tell(&service, &at(7, "a"));
        positions.tell(&service, &at(6, "b"));
        let lost = at(7, "c").after(positions.last(&service).as_ref());
        assert!(
            lost.revision()
                .partial_cmp(&at(7, "a").revision())
                .is_none()
        );
    }
}
