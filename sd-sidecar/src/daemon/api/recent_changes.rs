//! The last changes of a set as events, rendered once for all readers who follow them.

use std::sync::Arc;

use axum::body::Bytes;
use sd_core::{Delta, Instance, InstanceId, Skipped, Snapshot};
use serde::Serialize;

use super::streams::frame;
use super::view::{Head, Index};

/// A reader who is further behind is told the whole set.
const MOST: usize = 64;

/// The last changes, each of the set that the one before it led to.
#[derive(Clone, Debug, Default)]
pub(super) struct RecentChanges(Vec<Change>);

#[derive(Clone, Debug)]
struct Change {
    from: Index,
    to: Index,
    frame: Bytes,
}

/// What is told of a change. What cannot be read, and what is held, is told whole: there is hardly ever any.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    head: &'a Head<'a>,
    set: &'a [Arc<Instance>],
    removed: &'a [&'a InstanceId],
    skipped: &'a [Skipped],
    skipped_count: usize,
    held: &'a [InstanceId],
}

impl RecentChanges {
    /// These, and the one between two sets, which is told with `head`.
    pub(super) fn followed_by(
        &self,
        (from, before): (&Index, &Snapshot),
        (to, now): (&Index, &Snapshot),
        head: &Head<'_>,
    ) -> Self {
        let delta = Delta::between(before, now);
        let altered = delta.readdressed.into_iter().chain(delta.retuned);
        let altered = altered.map(|change| change.to);
        let set: Vec<_> = delta.added.into_iter().chain(altered).collect();
        // Another run with the same id takes the place of the one before.
        let sorted = now.instances();
        let is_there = |id: &InstanceId| sorted.binary_search_by(|one| one.id().cmp(id)).is_ok();
        let removed = delta.removed.iter().map(|instance| instance.id());
        let removed: Vec<_> = removed.filter(|id| !is_there(id)).collect();
        if set.len() + removed.len() > sorted.len() / 2 {
            return Self::default();
        }
        let told = Told {
            head,
            set: &set,
            removed: &removed,
            skipped: now.skipped(),
            skipped_count: now.skipped_count(),
            held: now.held(),
        };
        let change = Change {
            from: from.clone(),
            to: to.clone(),
            frame: frame(to.as_str(), "change", &told),
        };
        let kept = self.0.len().saturating_sub(MOST - 1);
        let mut changes = self.0.get(kept..).unwrap_or_default().to_vec();
        changes.push(change);
        Self(changes)
    }

    /// Those of them, from the last one back, that have no more bytes than this together.
    pub(super) fn no_longer_than(mut self, bytes: usize) -> Self {
        let mut left = bytes;
        let fitting = self.0.iter().rev().take_while(|change| {
            let fits = change.frame.len() <= left;
            left = left.saturating_sub(change.frame.len());
            fits
        });
        let surplus = self.0.len() - fitting.count();
        self.0.drain(..surplus);
        self
    }

    /// The events that lead from a set to the last one, and what a reader has after them. None where they are not known any more.
    pub(super) fn since(&self, told: &Index) -> Option<(Bytes, Index)> {
        let first = self
            .0
            .iter()
            .rposition(|change| change.from.is_same_set(told))?;
        let changes = self.0.get(first..)?;
        let to = changes.last()?.to.clone();
        let bytes = match changes {
            [only] => only.frame.clone(),
            several => {
                let frames: Vec<_> = several.iter().map(|change| &change.frame[..]).collect();
                Bytes::from(frames.concat())
            }
        };
        Some((bytes, to))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use sd_core::clock::{BootClock, Moment};
    use sd_core::{Incarnation, Revision, ServiceName, Status};
    use serde_json::Value;

    use super::*;
    use crate::daemon::api::view::View;

    /// Ids with what they are: the run, and a weight.
    type Set = BTreeMap<u8, (u8, u8)>;

    fn snapshot(set: &Set) -> Snapshot {
        let instances = set.iter().map(|(id, (run, weight))| {
            let instance = Instance::new("greeter", "h:1").unwrap();
            Arc::new(
                instance
                    .with_id(InstanceId::new(format!("i-{id:03}")).unwrap())
                    .with_incarnation(Incarnation::from_u64(u64::from(*run) + 1))
                    .with_weight((*weight).into()),
            )
        });
        let service = ServiceName::new("greeter").unwrap();
        let revision = Revision::new("d", 1);
        Snapshot::new(service, revision, Moment::ZERO, instances.collect())
    }

    fn view(set: &Set) -> (View, Snapshot) {
        let snapshot = snapshot(set);
        let view = View::of_snapshot(&snapshot, &Status::Live, &BootClock);
        (view, snapshot)
    }

    fn event(frame: &str) -> Value {
        let mut lines = frame.lines();
        let id = lines.next().unwrap().strip_prefix("id: ").unwrap();
        assert_eq!(lines.next(), Some("event: change"));
        let data = lines.next().unwrap().strip_prefix("data: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["index"], id);
        data
    }

    /// As a reader has it: what it was told of each id.
    fn applied(mut has: BTreeMap<String, Value>, frames: &str) -> BTreeMap<String, Value> {
        for frame in frames.split_terminator("\n\n") {
            let data = event(frame);
            for id in data["removed"].as_array().unwrap() {
                assert!(has.remove(id.as_str().unwrap()).is_some(), "{id}");
            }
            for one in data["set"].as_array().unwrap() {
                has.insert(one["id"].as_str().unwrap().to_owned(), one.clone());
            }
        }
        has
    }

    fn whole(view: &View) -> BTreeMap<String, Value> {
        let body: Value = serde_json::from_slice(&view.body()).unwrap();
        let instances = body["instances"].as_array().unwrap().iter();
        instances
            .map(|one| (one["id"].as_str().unwrap().to_owned(), one.clone()))
            .collect()
    }

    fn sets() -> impl Strategy<Value = Vec<Set>> {
        // Large enough that a change of some is told as one.
        let set = prop::collection::btree_map(0..24u8, (0..2u8, 0..2u8), 8..24);
        let step = prop::collection::btree_map(0..24u8, prop::option::of((0..2u8, 0..2u8)), 0..4);
        (set, prop::collection::vec(step, 0..30)).prop_map(|(first, steps)| {
            let mut sets = vec![first];
            for step in steps {
                let mut next = sets.last().cloned().unwrap_or_default();
                for (id, one) in step {
                    match one {
                        Some(one) => drop(next.insert(id, one)),
                        None => drop(next.remove(&id)),
                    }
                }
                sets.push(next);
            }
            sets
        })
    }

    /// All sets, one after the other, with what is known of the changes in the end.
    fn all_told(sets: &[Set]) -> (Vec<View>, RecentChanges) {
        let mut views: Vec<(View, Snapshot)> = Vec::new();
        let mut changes = RecentChanges::default();
        for set in sets {
            let (next, now) = view(set);
            if let Some((last, before)) = views.last()
                && last.index() != next.index()
            {
                let from = (last.index(), before);
                changes = changes.followed_by(from, (next.index(), &now), &next.head(&now));
                changes = changes.no_longer_than(next.frame().len());
            }
            views.push((next, now));
        }
        (views.into_iter().map(|(view, _)| view).collect(), changes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_changes_since_a_set_make_the_last_one_of_it(sets in sets()) {
            let (views, changes) = all_told(&sets);
            let newest = views.last().unwrap();
            for older in &views {
                if let Some((frames, to)) = changes.since(older.index()) {
                    prop_assert_eq!(&to, newest.index());
                    prop_assert!(frames.len() <= newest.frame().len());
                    let frames = String::from_utf8(frames.to_vec()).unwrap();
                    prop_assert_eq!(applied(whole(older), &frames), whole(newest));
                }
            }
        }
    }

    #[test]
    fn only_the_last_changes_are_kept() {
        let set = |weight| -> Set {
            (0..250)
                .map(|id| (id, (0, if id == 0 { weight } else { 0 })))
                .collect()
        };
        let sets: Vec<Set> = (0..100).map(set).collect();
        let (views, changes) = all_told(&sets);
        let known = |nth: usize| changes.since(views[nth].index()).is_some();
        assert_eq!((known(99 - MOST - 1), known(99 - MOST)), (false, true));
    }

    #[test]
    fn a_change_of_one_is_told_alone_and_a_change_of_most_is_not_told_as_one() {
        let set = |weight: u8, changed: u8| -> Set {
            (0..20)
                .map(|id| (id, (0, if id < changed { weight } else { 0 })))
                .collect()
        };
        let told = |before: &Set, after: &Set| {
            let ((last, before), (next, now)) = (view(before), view(after));
            let head = next.head(&now);
            let from = (last.index(), &before);
            let changes = RecentChanges::default().followed_by(from, (next.index(), &now), &head);
            changes.since(last.index()).map(|(frames, _)| frames)
        };
        let one = told(&set(0, 20), &set(1, 1)).unwrap();
        let one = event(std::str::from_utf8(&one).unwrap());
        assert_eq!(one["set"].as_array().unwrap().len(), 1, "{one}");
        assert_eq!(one["set"][0]["weight"], 1);
        assert_eq!(one["removed"], serde_json::json!([]));
        assert!(told(&set(0, 20), &set(1, 11)).is_none());
        assert!(told(&set(0, 20), &Set::new()).is_none());
    }
}
