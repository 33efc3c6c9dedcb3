//! A list that readers hold as it was while its owner changes it.
//!
//! With thousands of items, counting one more reader of each takes longer than all else that a change costs. So items stay in
//! their slots, slots are shared in chunks, and a change copies one chunk and the order of the slots.

use std::sync::Arc;

/// How many slots are copied for a change of one.
const CHUNK: usize = 128;

type Chunk<T> = Arc<[Option<T>]>;

/// The owner's side of the list.
#[derive(Debug)]
pub(crate) struct SharedList<T> {
    /// The slot of each item.
    order: Vec<usize>,
    chunks: Vec<Chunk<T>>,
    free: Vec<usize>,
    /// The list as it is now, unless it changed since a reader asked for it.
    view: Option<View<T>>,
}

/// The list as it was when a reader asked for it.
#[derive(Clone, Debug)]
pub(crate) struct View<T> {
    order: Arc<[usize]>,
    chunks: Arc<[Chunk<T>]>,
}

impl<T: Clone> SharedList<T> {
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        item(&self.order, &self.chunks, index)
    }

    /// Puts an item in before the one at `index`, or at the end.
    pub(crate) fn insert(&mut self, index: usize, item: T) {
        let slot = self.free.pop().unwrap_or_else(|| self.grow());
        self.order.insert(index.min(self.order.len()), slot);
        self.fill(slot, Some(item));
    }

    /// Takes the item at `index` out.
    pub(crate) fn remove(&mut self, index: usize) {
        if index < self.order.len() {
            let slot = self.order.remove(index);
            self.fill(slot, None);
            self.free.push(slot);
        }
    }

    /// Replaces the item at `index`.
    pub(crate) fn set(&mut self, index: usize, item: T) {
        if let Some(slot) = self.order.get(index) {
            self.fill(*slot, Some(item));
        }
    }

    /// Replaces all items.
    pub(crate) fn replace(&mut self, items: impl IntoIterator<Item = T>) {
        *self = Self::default();
        for item in items {
            self.insert(self.order.len(), item);
        }
    }

    /// The list as it is now.
    pub(crate) fn view(&mut self) -> View<T> {
        let view = self.view.get_or_insert_with(|| View {
            order: self.order.as_slice().into(),
            chunks: self.chunks.as_slice().into(),
        });
        view.clone()
    }

    fn fill(&mut self, slot: usize, item: Option<T>) {
        self.view = None;
        if let Some(chunk) = self.chunks.get_mut(slot / CHUNK)
            && let Some(place) = Arc::make_mut(chunk).get_mut(slot % CHUNK)
        {
            *place = item;
        }
    }

    /// Adds a chunk, and gives its first slot.
    fn grow(&mut self) -> usize {
        let first = self.chunks.len() * CHUNK;
        self.chunks.push(std::iter::repeat_n(None, CHUNK).collect());
        self.free.extend((first + 1..first + CHUNK).rev());
        first
    }
}

impl<T: Clone> View<T> {
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        item(&self.order, &self.chunks, index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.order.len()).filter_map(|index| self.get(index))
    }
}

fn item<'a, T>(order: &[usize], chunks: &'a [Chunk<T>], index: usize) -> Option<&'a T> {
    let slot = *order.get(index)?;
    chunks.get(slot / CHUNK)?.get(slot % CHUNK)?.as_ref()
}

impl<T> Default for SharedList<T> {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            chunks: Vec::new(),
            free: Vec::new(),
            view: None,
        }
    }
}

impl<T> Default for View<T> {
    fn default() -> Self {
        Self {
            order: Arc::default(),
            chunks: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items<T: Copy>(view: &View<T>) -> Vec<T> {
        view.iter().copied().collect()
    }

    proptest! {
        #[test]
        fn a_list_is_what_its_changes_make_of_it_and_its_views_stay_as_they_were(
            first in prop::collection::vec(any::<u16>(), 0..300),
            steps in prop::collection::vec((0..3u8, 0..400usize, any::<u16>()), 1..100),
        ) {
            let (mut list, mut model) = (SharedList::default(), first.clone());
            list.replace(first);
            let mut seen = Vec::new();
            for (step, index, item) in steps {
                match step {
                    0 => {
                        list.insert(index, item);
                        model.insert(index.min(model.len()), item);
                    }
                    1 => {
                        list.remove(index);
                        if index < model.len() {
                            model.remove(index);
                        }
                    }
                    _ => {
                        list.set(index, item);
                        if let Some(old) = model.get_mut(index) {
                            *old = item;
                        }
                    }
                }
                prop_assert_eq!(list.get(index), model.get(index));
                seen.push((list.view(), model.clone()));
            }
            for (view, expected) in seen {
                prop_assert_eq!(items(&view), expected);
            }
        }
    }

    #[test]
    fn a_change_shares_all_chunks_but_one_with_the_views_before_it() {
        let mut list = SharedList::default();
        list.replace(0..10 * CHUNK);
        let before = list.view();
        list.remove(5 * CHUNK);
        list.insert(3, 0);
        let after = list.view();
        let shared = before.chunks.iter().zip(after.chunks.iter());
        let shared = shared.filter(|(before, after)| Arc::ptr_eq(before, after));
        assert_eq!(shared.count(), 9);
    }

    #[test]
    fn items_that_are_gone_are_dropped_with_the_last_view_of_them() {
        let item = Arc::new(());
        let mut list = SharedList::default();
        list.insert(0, Arc::clone(&item));
        let view = list.view();
        list.remove(0);
        assert_eq!(Arc::strong_count(&item), 2);
        drop(view);
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
