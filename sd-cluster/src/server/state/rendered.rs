//! Configurations as they are sent to modules that connect. All instances of a module connect together, after a restart of theirs or ours,
//! and share one. How many are kept is bounded by their bytes: each can be made again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

/// Bytes of all that are kept: eight of the largest.
const MOST_BYTES: usize = 32 << 20;

/// Events with configurations, by module.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    last: u64,
    bytes: usize,
    events: HashMap<Arc<str>, (u64, Bytes)>,
    /// In the order in which they were made.
    modules: BTreeMap<u64, Arc<str>>,
}

impl Rendered {
    pub(super) fn get(&self, module: &str) -> Option<Bytes> {
        self.events.get(module).map(|(_, event)| event.clone())
    }

    /// Keeps one, in place of the oldest ones if there is no room.
    pub(super) fn keep(&mut self, module: Arc<str>, event: Bytes) {
        self.remove(&module);
        self.last += 1;
        self.bytes += event.len();
        self.modules.insert(self.last, Arc::clone(&module));
        self.events.insert(module, (self.last, event));
        while self.bytes > MOST_BYTES
            && let Some((_, oldest)) = self.modules.pop_first()
        {
            self.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, module: &str) {
        if let Some((nth, event)) = self.events.remove(module) {
            self.bytes -= event.len();
            self.modules.remove(&nth);
        }
    }

    /// Bytes of all that are kept.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_as_far_as_there_is_room_and_what_is_removed_counts_no_longer() {
        let mut rendered = Rendered::default();
        let large = Bytes::from(vec![0; MOST_BYTES / 8]);
        for nth in 0..100 {
            rendered.keep(nth.to_string().into(), large.clone());
            assert!(rendered.bytes <= MOST_BYTES, "{}", rendered.bytes);
        }
        assert!(rendered.get("91").is_none());
        for nth in 92..100 {
            let name = nth.to_string();
            assert!(rendered.get(&name).is_some(), "{nth}");
            rendered.keep(name.into(), large.clone());
        }
        for nth in 92..100 {
            rendered.remove(&nth.to_string());
        }
        assert_eq!(rendered.bytes, 0);
        assert!(rendered.events.is_empty() && rendered.modules.is_empty());
    }
}
