//! What of a service's entries cannot be read, for servers that tell single changes.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use sd_core::{Skipped, Snapshot};

/// One for all sets, which are put together.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The entries of one service that cannot be read: the first are named, and all are counted. Of a key beyond the first, only a hash is
/// kept: a key may be as long as a value. Two keys with one hash would be counted as one.
#[derive(Debug, Default)]
pub struct Unread {
    named: HashMap<u64, Skipped>,
    others: HashSet<u64>,
}

impl Unread {
    /// Notes that what is under this key cannot be read. Says whether that is news.
    pub fn add(&mut self, key: &str, reason: &str) -> bool {
        let at = HASHER.hash_one(key);
        let is_named = self.named.contains_key(&at);
        if !is_named && (self.others.contains(&at) || self.named.len() == Snapshot::MOST_SKIPPED) {
            return self.others.insert(at);
        }
        let skipped = Skipped::new(key, reason);
        self.named.insert(at, skipped.clone()) != Some(skipped)
    }

    /// Forgets a key that can be read now, or is gone. Says whether that is news.
    pub fn remove(&mut self, key: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let at = HASHER.hash_one(key);
        self.named.remove(&at).is_some() || self.others.remove(&at)
    }

    fn is_empty(&self) -> bool {
        self.named.is_empty() && self.others.is_empty()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.named.len() + self.others.len()
    }

    /// Those that are named, sorted by key.
    pub fn named(&self) -> Vec<Skipped> {
        let mut named: Vec<_> = self.named.values().cloned().collect();
        named.sort_by(|a, b| a.key.cmp(&b.key));
        named
    }

    /// Takes those of another part of the same service.
    pub fn absorb(&mut self, part: Self) {
        for (at, skipped) in part.named {
            if self.named.len() < Snapshot::MOST_SKIPPED {
                self.named.insert(at, skipped);
            } else {
                self.others.insert(at);
            }
        }
        self.others.extend(part.others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(keys: std::ops::Range<u32>) -> Unread {
        let mut unread = Unread::default();
        for n in keys {
            assert!(unread.add(&format!("/p/{n:04}"), "why"));
        }
        unread
    }

    #[test]
    fn all_are_counted_and_the_first_are_named_also_of_two_parts() {
        let mut unread = of(0..150);
        unread.absorb(of(1000..1150));
        assert_eq!((unread.named().len(), unread.count()), (100, 300));
        assert!(unread.named.keys().all(|at| !unread.others.contains(at)));
        let named = unread.named();
        assert!(named.is_sorted_by_key(|skipped| &skipped.key));
        assert_eq!(named[99].key, "/p/0099");
    }

    #[test]
    fn news_is_what_was_not_there_before_or_for_another_reason() {
        let mut unread = of(0..101);
        assert!(!unread.add("/p/0000", "why"));
        assert!(unread.add("/p/0000", "another reason"));
        assert_eq!(unread.named()[0].reason, "another reason");
        // It is counted, and not named.
        assert!(!unread.add("/p/0100", "another reason"));
        assert!(!unread.remove("/p/0101"));
        assert!(unread.remove("/p/0100") && !unread.remove("/p/0100"));
        assert!(unread.remove("/p/0000"));
        assert!(unread.add("/p/0100", "why"));
        assert_eq!((unread.named().len(), unread.count()), (100, 100));
    }
}
