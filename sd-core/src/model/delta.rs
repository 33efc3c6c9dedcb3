//! The difference between two full sets, sorted by what it means for a client's connections.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::model::instance::Instance;
use crate::model::snapshot::Snapshot;

/// An instance before and after a change. Both are the same run: id and incarnation are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The instance before the change.
    pub from: Arc<Instance>,
    /// The instance after the change.
    pub to: Arc<Instance>,
}

/// The difference between two sets of one service. A new incarnation under an old id is one removal plus one addition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delta {
    /// New incarnations: connect.
    pub added: Vec<Arc<Instance>>,
    /// Incarnations that are gone: drain and disconnect.
    pub removed: Vec<Arc<Instance>>,
    /// The address changed: connect to the new one, drain the old connection.
    pub readdressed: Vec<Change>,
    /// Weight, readiness, zone, tags or metadata changed: keep the connection.
    pub retuned: Vec<Change>,
}

impl Delta {
    /// The changes from `old` to `new`, found in one pass over both sorted sets.
    pub fn between(old: &Snapshot, new: &Snapshot) -> Self {
        Self::between_sorted(old.instances(), new.instances())
    }

    /// The changes from `old` to `new`, both sorted by id without duplicates.
    fn between_sorted(old: &[Arc<Instance>], new: &[Arc<Instance>]) -> Self {
        let mut delta = Self::default();
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return delta,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                // Sets share unchanged instances: their fields hardly ever need comparing.
                (Some(from), Some(to)) if Arc::ptr_eq(from, to) => Ordering::Equal,
                (Some(from), Some(to)) => from.id().cmp(to.id()),
            };
            match order {
                Ordering::Less => delta.removed.extend(old.next().cloned()),
                Ordering::Greater => delta.added.extend(new.next().cloned()),
                Ordering::Equal => {
                    if let (Some(from), Some(to)) = (old.next(), new.next()) {
                        delta.compare(from, to);
                    }
                }
            }
        }
    }

    fn compare(&mut self, from: &Arc<Instance>, to: &Arc<Instance>) {
        if Arc::ptr_eq(from, to) || from == to {
            return;
        }
        let (from, to) = (Arc::clone(from), Arc::clone(to));
        if !from.is_same_run(&to) {
            self.removed.push(from);
            self.added.push(to);
        } else if from.endpoint() == to.endpoint() {
            self.retuned.push(Change { from, to });
        } else {
            self.readdressed.push(Change { from, to });
        }
    }

    /// Whether the two sets are equal.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.removed.is_empty()
            && self.readdressed.is_empty()
            && self.retuned.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{Incarnation, InstanceId};

    fn instance(id: u8, run: u8, port: u8, weight: u8) -> Arc<Instance> {
        Arc::new(
            Instance::new("s", format!("h:{}", u16::from(port) + 1))
                .unwrap()
                .with_id(InstanceId::new(format!("i{id}")).unwrap())
                .with_incarnation(Incarnation::from_u64(run.into()))
                .with_weight(weight.into()),
        )
    }

    fn sets() -> impl Strategy<Value = Vec<Arc<Instance>>> {
        prop::collection::btree_map(0..12u8, (0..2u8, 0..2u8, 0..2u8), 0..12).prop_map(|map| {
            let mut set: Vec<_> = map
                .into_iter()
                .map(|(id, (run, port, weight))| instance(id, run, port, weight))
                .collect();
            set.sort_by(|a, b| a.id().cmp(b.id()));
            set
        })
    }

    #[test]
    fn a_metadata_change_is_retuned_a_move_readdressed_and_a_restart_removed_and_added() {
        let old = [
            instance(1, 1, 1, 1),
            instance(2, 1, 1, 1),
            instance(3, 1, 1, 1),
        ];
        let new = [
            instance(1, 1, 1, 2),
            instance(2, 1, 2, 1),
            instance(3, 2, 1, 1),
        ];
        let delta = Delta::between_sorted(&old, &new);
        assert_eq!((delta.retuned.len(), delta.readdressed.len()), (1, 1));
        assert_eq!(
            (&delta.removed[..], &delta.added[..]),
            (&old[2..], &new[2..])
        );
    }

    proptest! {
        #[test]
        fn applying_the_difference_to_the_old_set_gives_the_new_one(old in sets(), new in sets()) {
            let delta = Delta::between_sorted(&old, &new);
            let mut set: BTreeMap<_, _> = old.iter().map(|i| (i.id().clone(), Arc::clone(i))).collect();
            for gone in &delta.removed {
                let before = set.remove(gone.id());
                prop_assert_eq!(before.as_ref(), Some(gone));
            }
            for come in &delta.added {
                prop_assert!(set.insert(come.id().clone(), Arc::clone(come)).is_none());
            }
            for change in delta.readdressed.iter().chain(&delta.retuned) {
                let before = set.insert(change.to.id().clone(), Arc::clone(&change.to));
                prop_assert_eq!(before.as_ref(), Some(&change.from));
                prop_assert!(change.from.is_same_run(&change.to));
            }
            prop_assert_eq!(set.into_values().collect::<Vec<_>>(), new.clone());
            prop_assert_eq!(delta.is_empty(), old == new);
        }
    }
}
