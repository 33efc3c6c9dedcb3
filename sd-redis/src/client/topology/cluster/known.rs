//! What is known of the slots, and what of that is in doubt.
//!
//! A doubt is about one node: requests for its slots wait until the slots were asked for again, and all others go on. A slot that is found
//! elsewhere is known by that, and makes the others be asked for beside the requests.

use std::collections::HashMap;
use std::time::Duration;

use sd_core::{Endpoint, Error};
use tokio::time::Instant;

use crate::client::topology::cluster::slots::SlotMap;

/// How long what was found out counts, whatever is doubted. So often the nodes are asked at most, where none can be reached for example.
const COUNTS_FOR: Duration = Duration::from_millis(100);
/// How often the nodes are asked at most because slots have moved: each of these is known already.
const AFTER_MOVES: Duration = Duration::from_secs(1);
/// More nodes than are ever in doubt at once.
const MOST_DOUBTED: usize = 2000;

/// What is known of the slots.
#[derive(Debug, Default)]
pub(super) struct Known {
    map: SlotMap,
    /// The nodes that do not answer, or miss others, and since when.
    doubted: HashMap<Endpoint, Instant>,
    /// When a slot was found elsewhere that others may have followed.
    moved: Option<Instant>,
    /// When the nodes were last asked, and why none answered.
    asked: Option<Instant>,
    failed: Option<Error>,
}

/// What is known of one slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This node has it.
    At(Endpoint),
    /// This node has it. The nodes are to be asked for the others, beside the request.
    AtForNow(Endpoint),
    /// It is not known to be served.
    Nowhere,
    /// The nodes are to be asked first.
    InDoubt,
}

impl Known {
    pub(super) fn find(&self, slot: u16) -> Found {
        let is_recent = |pause| self.asked.is_some_and(|asked| asked.elapsed() < pause);
        match self.map.node(slot).cloned() {
            Some(node) if is_recent(COUNTS_FOR) => Found::At(node),
            None if is_recent(COUNTS_FOR) => Found::Nowhere,
            Some(node) if self.doubted.contains_key(&node) => Found::InDoubt,
            None => Found::InDoubt,
            Some(node) if self.moved.is_some() && !is_recent(AFTER_MOVES) => Found::AtForNow(node),
            Some(node) => Found::At(node),
        }
    }

    /// The node of a slot, in doubt or not.
    pub(super) fn node(&self, slot: u16) -> Option<Endpoint> {
        self.map.node(slot).cloned()
    }

    /// The nodes that have slots.
    pub(super) fn nodes(&self) -> &[Endpoint] {
        self.map.nodes()
    }

    pub(super) fn is_doubted(&self, node: &Endpoint) -> bool {
        self.doubted.contains_key(node)
    }

    /// Why no node answered, if that was so the last time.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Where the slots of this node are is asked before the next request for them.
    pub(super) fn doubt(&mut self, node: &Endpoint) {
        if self.doubted.len() < MOST_DOUBTED {
            self.doubted.insert(node.clone(), Instant::now());
        }
    }

    /// This node has the slot now.
    pub(super) fn note_moved(&mut self, slot: u16, node: &Endpoint) {
        self.map.put(slot..=slot, node);
        self.moved = Some(Instant::now());
    }

    /// Takes what a node said that was asked after `begun`. What was doubted since then, or has moved, stays so.
    pub(super) fn take(&mut self, map: SlotMap, begun: Instant) {
        self.map = map;
        self.doubted.retain(|_, since| *since > begun);
        self.moved = self.moved.filter(|moved| *moved > begun);
        self.asked = Some(Instant::now());
        self.failed = None;
    }

    /// No node has answered. What was known may still be right.
    pub(super) fn fail(&mut self, error: Error) {
        self.asked = Some(Instant::now());
        self.failed = Some(error);
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;
    use tokio::time::advance;

    use super::*;

    fn node(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    /// Slots 0 to 9 at `a`, 10 to 19 at `b`.
    fn map() -> SlotMap {
        let mut map = SlotMap::default();
        map.put(0..=9, &node("a:1"));
        map.put(10..=19, &node("b:1"));
        map
    }

    async fn known() -> Known {
        let mut known = Known::default();
        assert_eq!(known.find(1), Found::InDoubt);
        known.take(map(), Instant::now());
        advance(AFTER_MOVES).await;
        known
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_in_doubt_makes_only_requests_for_its_own_slots_wait() {
        let mut known = known().await;
        known.doubt(&node("a:1"));
        assert_eq!(known.find(1), Found::InDoubt);
        assert_eq!(known.find(11), Found::At(node("b:1")));
        assert_eq!(known.find(21), Found::InDoubt);
        // It is doubted once more after the others were asked.
        let begun = Instant::now();
        advance(COUNTS_FOR).await;
        known.doubt(&node("a:1"));
        known.take(map(), begun);
        assert_eq!(known.find(1), Found::At(node("a:1")));
        assert_eq!(known.find(21), Found::Nowhere);
        advance(COUNTS_FOR).await;
        assert_eq!(known.find(1), Found::InDoubt);
        known.take(map(), Instant::now());
        advance(COUNTS_FOR).await;
        assert_eq!(known.find(1), Found::At(node("a:1")));
    }

    #[tokio::test(start_paused = true)]
    async fn where_no_node_answers_what_was_known_counts_for_a_moment() {
        let mut known = known().await;
        known.doubt(&node("a:1"));
        known.fail(Error::new(ErrorKind::Unavailable, "test"));
        assert_eq!(known.find(1), Found::At(node("a:1")));
        assert!(known.failure().is_some());
        advance(COUNTS_FOR).await;
        assert_eq!(known.find(1), Found::InDoubt);
        known.take(map(), Instant::now());
        assert!(known.failure().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_has_moved_makes_the_nodes_be_asked_beside_requests_and_not_often() {
        let mut known = known().await;
        known.note_moved(1, &node("c:1"));
        assert_eq!(known.find(1), Found::AtForNow(node("c:1")));
        assert_eq!(known.find(2), Found::AtForNow(node("a:1")));
        let begun = Instant::now();
        advance(COUNTS_FOR).await;
        known.note_moved(2, &node("c:1"));
        known.take(map(), begun);
        advance(COUNTS_FOR * 9).await;
        assert_eq!(known.find(11), Found::At(node("b:1")));
        advance(COUNTS_FOR).await;
        assert_eq!(known.find(11), Found::AtForNow(node("b:1")));
        known.take(map(), Instant::now());
        advance(AFTER_MOVES).await;
        assert_eq!(known.find(11), Found::At(node("b:1")));
    }
}
