//! What calls pick from.

use std::fmt;
use std::sync::Arc;

use crate::balance::policy::{CallInfo, Picker};

/// The endpoints that take calls now, and the picker over them. Immutable, cheap to clone. Indices are those of the
/// [`Selector`](super::Selector) that made it.
#[derive(Clone)]
pub struct Choice {
    indices: Arc<[u32]>,
    picker: Arc<dyn Picker>,
}

/// So often the picker is asked before every endpoint is looked at.
const ASKED: usize = 4;

/// The picks of one call that came to nothing.
#[derive(Default)]
struct Asked {
    picks: [usize; ASKED],
    count: usize,
}

impl Asked {
    fn contains(&self, nth: usize) -> bool {
        self.picks.iter().take(self.count).any(|pick| *pick == nth)
    }

    fn push(&mut self, nth: usize) {
        if let Some(free) = self.picks.get_mut(self.count) {
            *free = nth;
            self.count += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.count == ASKED
    }
}

/// The picker of no endpoint.
#[derive(Debug)]
struct Nothing;

impl Picker for Nothing {
    fn pick(&self, _: &CallInfo<'_>) -> Option<usize> {
        None
    }
}

impl Default for Choice {
    fn default() -> Self {
        Self::new(Arc::default(), Arc::new(Nothing))
    }
}

impl Choice {
    pub(super) fn new(indices: Arc<[u32]>, picker: Arc<dyn Picker>) -> Self {
        Self { indices, picker }
    }

    /// Offers endpoints to `take` until it takes one: first those that the picker names, then any other, and those that the call
    /// has `tried` last. `None` if it took none. Neither locks nor allocates.
    pub fn pick<T>(
        &self,
        call: &CallInfo<'_>,
        tried: impl Fn(usize) -> bool + Sync,
        mut take: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        let has_tried = |nth| self.nth(nth).is_some_and(&tried);
        let first = self.picker.pick(&call.with_tried(&has_tried));
        let index = first.and_then(|nth| self.nth(nth));
        let taken = index.filter(|index| !tried(*index)).and_then(&mut take);
        // Nearly every call ends here, so that what follows is kept apart.
        match taken {
            Some(taken) => Some(taken),
            None => self.pick_another(first, call, tried, take),
        }
    }

    /// The same after the picker has named `first`, which was not taken.
    #[cold]
    fn pick_another<T>(
        &self,
        first: Option<usize>,
        call: &CallInfo<'_>,
        tried: impl Fn(usize) -> bool + Sync,
        mut take: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        let mut asked = Asked::default();
        let mut named = first;
        while let Some(nth) = named.filter(|nth| *nth < self.len()) {
            asked.push(nth);
            if asked.is_full() {
                break;
            }
            let has_tried = |nth| asked.contains(nth) || self.nth(nth).is_some_and(&tried);
            named = self.picker.pick(&call.with_tried(&has_tried));
            let index = named
                .filter(|nth| !has_tried(*nth))
                .and_then(|nth| self.nth(nth));
            if let Some(taken) = index.and_then(&mut take) {
                return Some(taken);
            }
        }
        self.search(tried, take)
    }

    /// Offers every endpoint, from a random one on.
    fn search<T>(
        &self,
        tried: impl Fn(usize) -> bool,
        mut take: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        let start = fastrand::usize(..self.indices.len().max(1));
        for again in [false, true] {
            let from_start = (start..self.indices.len()).chain(0..start);
            let mut wanted = from_start
                .filter_map(|nth| self.nth(nth))
                .filter(|index| tried(*index) == again);
            if let Some(taken) = wanted.find_map(&mut take) {
                return Some(taken);
            }
        }
        None
    }

    fn nth(&self, nth: usize) -> Option<usize> {
        self.indices.get(nth).map(|index| *index as usize)
    }

    /// Whether the endpoint at `index` takes calls.
    pub fn contains(&self, index: usize) -> bool {
        u32::try_from(index).is_ok_and(|index| self.indices.binary_search(&index).is_ok())
    }

    /// How many endpoints take calls.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether no endpoint takes calls.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("indices", &self.indices)
            .finish_non_exhaustive()
    }
}
