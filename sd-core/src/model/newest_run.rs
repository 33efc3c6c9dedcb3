//! Which of several runs at one address counts.
//!
//! The record of a run that crashed stands until its time-to-live ends, beside that of the run that replaced it. Both have an id
//! that was made of the address and of a random incarnation. Only the source knows which record was made later.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::endpoint::{Address, Endpoint};
use crate::model::instance::Instance;
use crate::model::snapshot::{Made, Snapshot};

/// What decides between runs at one address, the most important first. A run that wants no calls may have been recorded last
/// although it is the oldest: its record was lost, and it wrote a new one while it was draining.
type Claim<'a> = (bool, Made, &'a str);

/// The set without the runs that no longer count: of several at one TCP address, whose ids were made of it, a ready one wins over
/// one that is not, and then the one whose record was made last. Ids that users chose are not touched, and neither are Unix
/// sockets and records of which the source does not say when they were made.
pub(crate) fn without_older_runs(set: Snapshot) -> Snapshot {
    NewestRuns::default().of(set)
}

/// Takes the older runs out of the sets of one feed, one after the other. Of a set that is like the one before but for one place, only that
/// place is looked at: to read each of thousands of instances takes longer than all else.
#[derive(Debug, Default)]
pub(crate) struct NewestRuns {
    /// The last set, if no two runs in it may share an address.
    apart: Option<Snapshot>,
}

impl NewestRuns {
    /// The set [`without_older_runs`].
    pub(crate) fn of(&mut self, set: Snapshot) -> Snapshot {
        let before = self.apart.take();
        if !set.is_ordered() {
            return set;
        }
        let before = before.as_ref().map_or(&[][..], Snapshot::instances);
        if may_share_an_address(differing(before, set.instances())) {
            return with_best_runs(set);
        }
        self.apart = Some(set.clone());
        set
    }
}

/// The part of `now` outside of which neighbours are neighbours in `before`, too.
fn differing<'a>(before: &[Arc<Instance>], now: &'a [Arc<Instance>]) -> &'a [Arc<Instance>] {
    let same = |(one, other): &(&Arc<Instance>, &Arc<Instance>)| Arc::ptr_eq(one, other);
    let ahead = before.iter().zip(now).take_while(same).count();
    let behind = before.iter().rev().zip(now.iter().rev());
    let behind = behind.take_while(same).count();
    // With the nearest that are the same on both sides.
    let (start, end) = (ahead.saturating_sub(1), now.len() - behind + 1);
    now.get(start..end.min(now.len())).unwrap_or_default()
}

fn with_best_runs(set: Snapshot) -> Snapshot {
    let mut newest: HashMap<&Endpoint, Claim<'_>> = HashMap::new();
    for (instance, made) in set.records() {
        let Some(claim) = claim(instance, made) else {
            continue;
        };
        match newest.entry(instance.endpoint()) {
            Entry::Vacant(slot) => {
                slot.insert(claim);
            }
            Entry::Occupied(mut slot) if claim > *slot.get() => {
                slot.insert(claim);
            }
            Entry::Occupied(_) => {}
        }
    }
    let counts = |(instance, made): &(&Arc<Instance>, Option<Made>)| {
        let claim = claim(instance, *made);
        claim.is_none() || claim.as_ref() == newest.get(instance.endpoint())
    };
    let left: Vec<_> = set
        .records()
        .filter(counts)
        .map(|(instance, _)| Arc::clone(instance))
        .collect();
    if left.len() == set.len() {
        return set;
    }
    set.with_instances(left)
}

/// What [`without_older_runs`] leaves of `records` beside those that are `listed`: only a listed run at the same address can
/// matter, and its id begins in the same way.
pub(crate) fn newest_beside(
    listed: &Snapshot,
    records: Vec<(Arc<Instance>, Option<Made>)>,
) -> Snapshot {
    let few = listed.clone().with_instances(Vec::new());
    let mut all = records;
    let stem_of = |(instance, made): &(Arc<Instance>, Option<Made>)| {
        claim(instance, *made).map(|_| stem(instance).to_owned())
    };
    let stems: BTreeSet<String> = all.iter().filter_map(stem_of).collect();
    for stem in &stems {
        let rivals = listed.records_from(stem);
        all.extend(rivals.map(|(instance, made)| (Arc::clone(instance), made)));
    }
    without_older_runs(few.with_more(all))
}

/// What the ids begin with that are made of the address of this instance.
fn stem(instance: &Instance) -> &str {
    let id = instance.id().as_str();
    id.get(..id.len().saturating_sub(Instance::RUN_DIGITS))
        .unwrap_or(id)
}

fn claim(instance: &Instance, made: Option<Made>) -> Option<Claim<'_>> {
    let applies = matches!(instance.endpoint().address(), Address::Tcp { .. })
        && instance.id_holds_incarnation();
    // An override ends with its record, so what an operator says of a run says that it is no remnant.
    let counts_first = instance.is_ready() || instance.overridden().is_some();
    // The id decides only between records that were made together.
    made.filter(|_| applies)
        .map(|made| (counts_first, made, instance.id().as_str()))
}

/// Whether it is worth looking closer, in a set where hardly any two ever share an address. An id that was made of an address is
/// followed, in a sorted set, by one that begins with the same address if there is another.
fn may_share_an_address(sorted: &[Arc<Instance>]) -> bool {
    sorted.windows(2).any(|pair| match pair {
        [one, next] => next.id().as_str().starts_with(stem(one)) && one.id_holds_incarnation(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Moment;
    use crate::{Incarnation, InstanceId, Override, Revision, ServiceName};

    /// The run with this number at an address.
    fn run(address: &str, number: u32) -> Instance {
        let id = format!("{}-{number:08x}", address.trim_start_matches("unix:/"));
        Instance::new("s", address)
            .unwrap()
            .with_id(InstanceId::new(id).unwrap())
            .with_incarnation(Incarnation::from_u64(u64::from(number) << 32))
    }

    fn set(records: impl IntoIterator<Item = (Instance, u64)>) -> Snapshot {
        let records = records.into_iter();
        let records = records.map(|(instance, made)| (Arc::new(instance), made));
        let service = ServiceName::new("s").unwrap();
        Snapshot::ordered(
            service,
            Revision::new("d", 1),
            Moment::ZERO,
            records.collect(),
        )
    }

    fn left(set: Snapshot) -> Vec<String> {
        let left = without_older_runs(set);
        let ids = left.instances().iter().map(|one| one.id().to_string());
        ids.collect()
    }

    proptest! {
        #[test]
        fn beside_a_listed_set_the_same_runs_are_left_as_within_it(
            listed in runs(),
            more in runs(),
        ) {
            let listed = without_older_runs(set(listed));
            let more: BTreeMap<_, _> = more.into_iter().map(|(run, made)| (run.id().clone(), (run, made))).collect();
            let more: Vec<_> = more
                .into_values()
                .filter(|(run, _)| listed.get(run.id()).is_none())
                .map(|(run, made)| (Arc::new(run), (made % 3 > 0).then_some(Made::At(made))))
                .collect();
            let beside = newest_beside(&listed, more.clone());
            let within = without_older_runs(listed.clone().with_more(more.clone()));
            for (run, _) in more {
                prop_assert_eq!(beside.get(run.id()), within.get(run.id()));
            }
        }
    }

    proptest! {
        #[test]
        fn of_sets_that_follow_one_another_the_same_runs_are_left_as_of_each_alone(
            first in records(),
            changes in proptest::collection::vec(records(), 1..6),
        ) {
            let mut newest_runs = NewestRuns::default();
            let mut current = set(first);
            newest_runs.of(current.clone());
            for changes in changes {
                // Each is gone if it is there, or else comes.
                let changes = changes.into_iter().take(3).map(|(run, made)| {
                    let comes = current.get(run.id()).is_none();
                    (run.id().clone(), comes.then(|| (Arc::new(run), made)))
                });
                let changes = changes.collect();
                current = current.with_changes(changes);
                let left = newest_runs.of(current.clone());
                let alone = without_older_runs(current.clone());
                prop_assert_eq!(left.instances(), alone.instances());
            }
        }
    }

    #[test]
    fn ids_that_only_begin_alike_are_looked_at_once() {
        let chosen = (1..10).map(|n| {
            let id = InstanceId::new(format!("instance-{n:06}")).unwrap();
            (run(&format!("h:{n}"), n).with_id(id), 1)
        });
        let mut newest_runs = NewestRuns::default();
        assert_eq!(newest_runs.of(set(chosen)).len(), 9);
        assert!(newest_runs.apart.is_some());
    }

    #[test]
    fn of_a_set_with_one_change_only_its_neighbours_are_looked_at() {
        let many = set((0..1000).map(|host| (run(&format!("host-{host:03}:1"), 1), 1)));
        let all = many.instances();
        assert_eq!(differing(all, all).len(), 0);
        assert_eq!(differing(&[], all).len(), 1000);
        let mut changed = all.to_vec();
        changed[500] = Arc::new(changed[500].as_ref().clone().with_weight(2));
        assert_eq!(differing(all, &changed), &changed[499..=501]);
        changed.remove(500);
        assert_eq!(differing(all, &changed), &changed[499..=500]);
        assert_eq!(differing(&changed, all), &all[499..=501]);
        assert_eq!(differing(all, &all[1..]), &all[1..2]);
        assert_eq!(differing(all, &all[..1]), &all[..1]);
    }

    #[test]
    fn of_a_large_set_only_runs_at_the_same_address_are_looked_at() {
        let many = (0..1000).map(|host| (run(&format!("host-{host}:1"), 1), 1));
        let lost = run("host-7:1", 2);
        let chosen = run("x:1", 1).with_id(InstanceId::new("h").unwrap());
        let more = [lost, chosen].map(|run| (Arc::new(run), Some(Made::BeforeAllListed)));
        let beside = newest_beside(&set(many), more.to_vec());
        let ids: Vec<_> = beside
            .instances()
            .iter()
            .map(|one| one.id().as_str())
            .collect();
        assert_eq!(ids, ["h", "host-7:1-00000001"]);
    }

    /// Runs at three addresses, one of which begins like another, some of them not ready.
    fn runs() -> impl Strategy<Value = Vec<(Instance, u64)>> {
        let one = (0..3usize, 1..4u32, 1..9u64, any::<bool>());
        let one = one.prop_map(|(address, number, made, ready)| {
            let address = ["h:1", "h:12", "g:1"]
                .get(address)
                .copied()
                .unwrap_or("x:1");
            (run(address, number).with_ready(ready), made)
        });
        proptest::collection::vec(one, 0..8)
    }

    #[test]
    fn of_runs_that_crashed_one_after_the_other_the_last_one_counts() {
        // Neither the first nor the last by id.
        let runs = [(run("h:1", 9), 1), (run("h:1", 2), 2), (run("h:1", 5), 3)];
        let others = [(run("h:2", 1), 4), (run("g:1", 1), 5)];
        assert_eq!(
            left(set(runs.into_iter().chain(others))),
            ["g:1-00000001", "h:1-00000005", "h:2-00000001"]
        );
    }

    #[test]
    fn a_ready_run_wins_over_one_that_is_not_whenever_that_was_recorded() {
        let (ready, draining) = (run("h:1", 1), run("h:1", 2).with_ready(false));
        let both = [(ready, 1), (draining.clone(), 2)];
        assert_eq!(left(set(both)), ["h:1-00000001"]);
        let neither = [(run("h:1", 1).with_ready(false), 1), (draining, 2)];
        assert_eq!(left(set(neither)), ["h:1-00000002"]);
    }

    #[test]
    fn a_run_that_an_operator_drains_is_not_replaced_by_one_that_crashed_before() {
        let drained = run("h:1", 2).with_override(Override::Draining);
        let both = [(run("h:1", 1), 1), (drained, 2)];
        assert_eq!(left(set(both)), ["h:1-00000002"]);
    }

    #[test]
    fn chosen_ids_sockets_and_sources_without_an_order_are_not_touched() {
        let chosen = |id: &str| run("h:1", 3).with_id(InstanceId::new(id).unwrap());
        let all = [
            (run("h:1", 1), 1),
            // It only looks as if it were made of the address.
            (chosen("h:1-00000002"), 2),
            (chosen("h:1-0"), 3),
            (chosen("web"), 4),
            (run("unix:/s", 1), 5),
            (run("unix:/s", 2), 6),
        ];
        assert_eq!(left(set(all.clone())).len(), all.len());
        let instances = [run("h:1", 1), run("h:1", 2)].map(Arc::new).to_vec();
        let unordered = set([]).with_instances(instances);
        assert_eq!(left(unordered).len(), 2);
    }

    #[test]
    fn an_id_that_lies_between_two_runs_hides_neither() {
        let between = run("h:1", 7).with_id(InstanceId::new("h:1-00000001-x").unwrap());
        let all = [(run("h:1", 1), 1), (between, 2), (run("h:1", 2), 3)];
        assert_eq!(left(set(all)), ["h:1-00000001-x", "h:1-00000002"]);
    }

    #[test]
    fn ipv6_addresses_are_told_apart() {
        let all = [
            (run("[::1]:80", 1), 1),
            (run("[::1]:80", 2), 2),
            (run("[::1]:8", 3), 3),
        ];
        assert_eq!(left(set(all)), ["[::1]:8-00000003", "[::1]:80-00000002"]);
    }

    /// Addresses of which some begin with others, runs, chosen ids, sockets.
    fn records() -> impl Strategy<Value = Vec<(Instance, u64)>> {
        let addresses = ["h:1", "h:11", "h-1:1", "[::1]:1", "unix:/h:1"];
        let record = (0..addresses.len(), 0..6u32, 0..4u8, any::<bool>(), 0..6u64);
        let record = record.prop_map(move |(address, number, chosen, ready, made)| {
            let instance = run(addresses[address], number).with_ready(ready);
            let instance = match chosen {
                0 => instance.with_id(InstanceId::new(format!("h:1-{number}")).unwrap()),
                1 => instance.with_id(InstanceId::new(format!("h:1-0000000{number}-z")).unwrap()),
                _ => instance,
            };
            (instance, made)
        });
        prop::collection::vec(record, 0..24)
    }

    proptest! {
        #[test]
        fn exactly_the_best_run_at_each_address_counts(records in records()) {
            let all = set(records);
            let counts = without_older_runs(all.clone());
            // As the rule is written, run by run.
            let key = |one: &Arc<Instance>| {
                (one.is_ready(), all.run_order(one.id()), one.id().clone())
            };
            let applies = |one: &Arc<Instance>| {
                one.id_holds_incarnation() && !one.endpoint().to_string().starts_with("unix")
            };
            let is_best = |one: &Arc<Instance>| {
                let others = all.instances().iter().filter(|other| {
                    applies(other) && other.endpoint() == one.endpoint()
                });
                !applies(one) || others.map(key).max() == Some(key(one))
            };
            let expected: Vec<_> = all.instances().iter().filter(|one| is_best(one)).collect();
            prop_assert_eq!(counts.instances().iter().collect::<Vec<_>>(), expected);
            for one in counts.instances() {
                prop_assert_eq!(counts.run_order(one.id()), all.run_order(one.id()));
            }
            prop_assert!(without_older_runs(counts.clone()).is_same_set(&counts));
        }

        #[test]
        fn the_order_in_which_records_are_listed_does_not_matter(records in records()) {
            // Of two records with one id, the last one stays.
            let unique: BTreeMap<_, _> =
                records.into_iter().map(|record| (record.0.id().clone(), record)).collect();
            let records: Vec<_> = unique.into_values().collect();
            let reversed = records.iter().rev().cloned();
            prop_assert_eq!(left(set(reversed)), left(set(records)));
        }
    }
}
