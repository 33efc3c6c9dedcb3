//! Keeps whom to pick: what an owner of connections tells of its endpoints, shaped and handed to its policy.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tracing::warn;

use crate::balance::choice::Choice;
use crate::balance::load::Load;
use crate::balance::policy::{Candidates, Member, Picker, Policy};
use crate::balance::rank::{Rank, to_pick};
use crate::balance::round_robin::RoundRobin;
use crate::model::instance::Instance;
use crate::printable::Printable;

/// An endpoint as its owner tells it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The instance.
    pub instance: Arc<Instance>,
    /// What [`Selector::new_load`] returned when the endpoint appeared.
    pub load: Option<Arc<dyn Load>>,
    /// Whether it can take calls: it wants calls, is connected, and is not ejected.
    pub usable: bool,
}

/// For authors of balancers: holds the endpoints of a set, in an order that the owner chooses, and makes a [`Choice`] of them whenever
/// they have changed. Work for one change of one endpoint is a pass over small numbers, also with thousands of endpoints.
pub struct Selector {
    policy: Arc<dyn Policy>,
    zone: Option<String>,
    members: Vec<Member>,
    weights: Vec<u16>,
    ranks: Vec<Rank>,
    /// The indices of usable members, sorted.
    usable: Vec<u32>,
    /// The last choice. Outdated if `changed`.
    choice: Choice,
    changed: bool,
    /// The policy's own last picker.
    picker: Option<Arc<dyn Picker>>,
}

impl Selector {
    /// A selector without endpoints, for a client in `zone`.
    pub fn new(policy: Arc<dyn Policy>, zone: Option<String>) -> Self {
        Self {
            policy,
            zone,
            members: Vec::new(),
            weights: Vec::new(),
            ranks: Vec::new(),
            usable: Vec::new(),
            choice: Choice::default(),
            changed: false,
            picker: None,
        }
    }

    /// What the policy keeps of a new endpoint.
    pub fn new_load(&self, instance: &Arc<Instance>) -> Option<Arc<dyn Load>> {
        let load = catch_unwind(AssertUnwindSafe(|| self.policy.new_load(instance)));
        load.unwrap_or_else(|_| {
            warn!(instance = %Printable(instance.id().as_str()), policy = ?self.policy, "policy panicked");
            None
        })
    }

    /// Replaces all endpoints.
    pub fn replace(&mut self, listed: impl IntoIterator<Item = Listed>) {
        self.changed = true;
        self.members.clear();
        self.weights.clear();
        self.ranks.clear();
        self.usable.clear();
        for (index, listed) in listed.into_iter().enumerate() {
            self.insert(index, listed);
        }
    }

    /// Puts an endpoint in before the one at `index`, or at the end.
    pub fn insert(&mut self, index: usize, listed: Listed) {
        let Listed {
            instance,
            load,
            usable,
        } = listed;
        let index = index.min(self.members.len());
        let Ok(number) = u32::try_from(index) else {
            return;
        };
        self.changed = true;
        self.weights.insert(index, instance.weight());
        self.ranks.insert(index, self.rank(&instance));
        self.members.insert(index, Member { instance, load });
        let at = self.usable.partition_point(|other| *other < number);
        for later in self.usable.iter_mut().skip(at) {
            *later += 1;
        }
        if usable {
            self.usable.insert(at, number);
        }
    }

    /// Takes the endpoint at `index` out.
    pub fn remove(&mut self, index: usize) {
        let Some(number) = u32::try_from(index)
            .ok()
            .filter(|_| index < self.members.len())
        else {
            return;
        };
        self.changed = true;
        self.members.remove(index);
        self.weights.remove(index);
        self.ranks.remove(index);
        let at = self.usable.partition_point(|other| *other < number);
        if self.usable.get(at) == Some(&number) {
            self.usable.remove(at);
        }
        for later in self.usable.iter_mut().skip(at) {
            *later -= 1;
        }
    }

    /// Replaces the endpoint at `index`.
    pub fn update(&mut self, index: usize, listed: Listed) {
        let Listed {
            instance,
            load,
            usable,
        } = listed;
        let rank = self.rank(&instance);
        let (Some(member), Some(weight), Some(old_rank), Ok(number)) = (
            self.members.get_mut(index),
            self.weights.get_mut(index),
            self.ranks.get_mut(index),
            u32::try_from(index),
        ) else {
            return;
        };
        let same_load = match (&member.load, &load) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        self.changed |= !same_load || !Arc::ptr_eq(&member.instance, &instance);
        *weight = instance.weight();
        *old_rank = rank;
        *member = Member { instance, load };
        match (self.usable.binary_search(&number), usable) {
            (Err(at), true) => self.usable.insert(at, number),
            (Ok(at), false) => {
                self.usable.remove(at);
            }
            (Ok(_), true) | (Err(_), false) => return,
        }
        self.changed = true;
    }

    fn rank(&self, instance: &Instance) -> Rank {
        Rank::of(instance, self.zone.as_deref())
    }

    /// The choice among the endpoints as they are now.
    pub fn choose(&mut self) -> Choice {
        if std::mem::take(&mut self.changed) {
            let chosen = to_pick(&self.ranks, &self.usable);
            let candidates = Candidates::new(&self.members, &self.weights, &chosen);
            let previous = self.picker.take();
            let new_picker = || self.policy.picker(&candidates, previous.as_deref());
            let built = catch_unwind(AssertUnwindSafe(new_picker)).ok();
            self.picker = built.map(Arc::from);
            let picker = self.picker.clone().unwrap_or_else(|| {
                warn!(policy = ?self.policy, "policy panicked, picking in turn");
                RoundRobin::new().picker(&candidates, None).into()
            });
            self.choice = Choice::new(chosen, picker);
        }
        self.choice.clone()
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selector")
            .field("policy", &self.policy)
            .field("zone", &self.zone)
            .field("endpoints", &self.members.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU32, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::balance::least_request::LeastRequest;
    use crate::balance::load::LoadGuard;
    use crate::balance::policy::CallInfo;
    use crate::combine::switched::instance;

    /// All of them usable, with what `policy` keeps of them.
    fn selector(policy: impl Policy, instances: &[Instance]) -> (Selector, Vec<Listed>) {
        let mut selector = Selector::new(Arc::new(policy), Some("a".to_owned()));
        let listed: Vec<_> = instances
            .iter()
            .map(|instance| {
                let instance = Arc::new(instance.clone());
                Listed {
                    load: selector.new_load(&instance),
                    instance,
                    usable: true,
                }
            })
            .collect();
        selector.replace(listed.clone());
        (selector, listed)
    }

    fn three() -> [Instance; 3] {
        ["x", "y", "z"].map(instance)
    }

    fn pick(choice: &Choice) -> Option<usize> {
        choice.pick(&CallInfo::new(), |_| false, Some)
    }

    fn counts(choice: &Choice, picks: usize) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..picks {
            *counts.entry(pick(choice).unwrap()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn calls_go_to_the_next_zone_and_tier_as_endpoints_are_lost_and_come_back_with_them() {
        let all = [
            instance("own").with_zone("a"),
            instance("other").with_zone("b"),
            instance("spare").with_priority(1),
        ];
        let (mut selector, listed) = selector(RoundRobin::new(), &all);
        for (index, usable, expected) in [
            (0, true, Some(0)),
            (0, false, Some(1)),
            (1, false, Some(2)),
            (2, false, None),
            (1, true, Some(1)),
            (2, true, Some(1)),
            (0, true, Some(0)),
        ] {
            selector.update(
                index,
                Listed {
                    usable,
                    ..listed[index].clone()
                },
            );
            let choice = selector.choose();
            assert_eq!((pick(&choice), pick(&choice)), (expected, expected));
            assert_eq!(choice.contains(1), expected == Some(1));
        }
    }

    #[test]
    fn a_changed_weight_zone_or_tier_counts_at_once() {
        let (mut selector, _) = selector(RoundRobin::new(), &three());
        let changed = |instance| Listed {
            instance: Arc::new(instance),
            load: None,
            usable: true,
        };
        selector.update(1, changed(instance("y").with_weight(3)));
        assert_eq!(counts(&selector.choose(), 500)[&1], 300);
        selector.update(1, changed(instance("y").with_zone("a")));
        assert_eq!(counts(&selector.choose(), 5).len(), 1);
        let spare = instance("y").with_zone("a").with_priority(1);
        selector.update(1, changed(spare));
        assert_eq!(
            counts(&selector.choose(), 4)
                .into_values()
                .collect::<Vec<_>>(),
            [2, 2]
        );
    }

    proptest! {
        #[test]
        fn endpoints_put_in_changed_and_taken_out_one_by_one_give_what_all_at_once_give(
            steps in prop::collection::vec((0..3u8, 0..12usize, 0..3u16, any::<bool>()), 1..80),
        ) {
            let (mut one_by_one, mut all) = (Selector::new(Arc::new(RoundRobin::new()), None), Vec::new());
            for (step, index, priority, usable) in steps {
                let instance = Arc::new(instance("i").with_priority(priority));
                let listed = Listed { instance, load: None, usable };
                match step {
                    0 => {
                        one_by_one.insert(index, listed.clone());
                        all.insert(index.min(all.len()), listed);
                    }
                    1 => {
                        one_by_one.remove(index);
                        if index < all.len() {
                            all.remove(index);
                        }
                    }
                    _ => {
                        one_by_one.update(index, listed.clone());
                        if let Some(old) = all.get_mut(index) {
                            *old = listed;
                        }
                    }
                }
                let mut at_once = Selector::new(Arc::new(RoundRobin::new()), None);
                at_once.replace(all.clone());
                let picked = |choice: &Choice| (0..all.len()).filter(|index| choice.contains(*index)).collect::<Vec<_>>();
                prop_assert_eq!(picked(&one_by_one.choose()), picked(&at_once.choose()));
            }
        }
    }

    #[test]
    fn turns_go_on_when_the_set_changes_so_that_no_endpoint_gets_more_by_changes() {
        let (mut selector, listed) = selector(RoundRobin::new(), &three());
        let mut counts = [0; 3];
        for _ in 0..300 {
            // A change that every picker is rebuilt for.
            selector.replace(listed.clone());
            counts[pick(&selector.choose()).unwrap()] += 1;
        }
        assert_eq!(counts, [100, 100, 100]);
    }

    #[test]
    fn clients_begin_anywhere() {
        let firsts =
            (0..200).filter_map(|_| pick(&selector(RoundRobin::new(), &three()).0.choose()));
        let firsts: std::collections::BTreeSet<_> = firsts.collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn threads_that_share_a_choice_share_the_turns() {
        let (mut selector, _) = selector(RoundRobin::new(), &three());
        let choice = selector.choose();
        let totals = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| counts(&choice, 2_000)))
                .collect();
            let mut totals = BTreeMap::<usize, usize>::new();
            for (index, count) in threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
            {
                *totals.entry(index).or_default() += count;
            }
            totals
        });
        assert_eq!(totals.into_values().collect::<Vec<_>>(), [2_000; 3]);
    }

    #[test]
    fn a_set_that_has_not_changed_keeps_its_picker() {
        #[derive(Debug)]
        struct Counting(Arc<AtomicU32>);
        impl Policy for Counting {
            fn picker(
                &self,
                candidates: &Candidates<'_>,
                previous: Option<&dyn Picker>,
            ) -> Box<dyn Picker> {
                self.0.fetch_add(1, Ordering::SeqCst);
                RoundRobin::new().picker(candidates, previous)
            }
        }
        let built = Arc::new(AtomicU32::new(0));
        let (mut selector, listed) = selector(Counting(Arc::clone(&built)), &three());
        for _ in 0..3 {
            selector.choose();
            selector.update(0, listed[0].clone());
        }
        assert_eq!(built.load(Ordering::SeqCst), 1);
        selector.update(
            0,
            Listed {
                usable: false,
                ..listed[0].clone()
            },
        );
        selector.choose();
        assert_eq!(built.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn least_request_avoids_calls_in_flight_and_counts_survive_a_change_of_the_set() {
        let (mut selector, listed) = selector(LeastRequest::new(), &three());
        let busy: Vec<_> = (0..5)
            .map(|_| LoadGuard::begin(listed[1].load.clone().unwrap()))
            .collect();
        assert_eq!(counts(&selector.choose(), 300).get(&1), None);
        selector.replace(listed.clone());
        assert_eq!(counts(&selector.choose(), 300).get(&1), None);
        drop(busy);
        assert_eq!(counts(&selector.choose(), 300).len(), 3);
    }

    #[test]
    fn least_request_counts_calls_for_each_weight() {
        let all = [instance("x").with_weight(4), instance("y")];
        let (mut selector, listed) = selector(LeastRequest::new(), &all);
        let choice = selector.choose();
        let mut calls = Vec::new();
        let mut counts = [0; 2];
        for _ in 0..100 {
            let index = pick(&choice).unwrap();
            counts[index] += 1;
            calls.push(LoadGuard::begin(listed[index].load.clone().unwrap()));
        }
        assert!((78..=82).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn a_call_tries_what_it_has_not_tried_while_there_is_any() {
        fn check(policy: impl Policy) {
            let (mut selector, _) = selector(policy, &three());
            let choice = selector.choose();
            for _ in 0..200 {
                let mut tried = Vec::new();
                for _ in 0..3 {
                    let next = choice.pick(&CallInfo::new(), |index| tried.contains(&index), Some);
                    tried.push(next.unwrap());
                }
                tried.sort_unstable();
                assert_eq!(tried, [0, 1, 2]);
                let again = choice.pick(&CallInfo::new(), |_| true, Some);
                assert!(again.is_some());
                let full = choice.pick(
                    &CallInfo::new(),
                    |_| false,
                    |index| (index == 2).then_some(()),
                );
                assert!(full.is_some());
            }
        }
        check(RoundRobin::new());
        check(LeastRequest::new());
    }

    /// Names whatever it was told to, or panics.
    #[derive(Debug)]
    struct Broken(Option<usize>);

    impl Policy for Broken {
        fn new_load(&self, _: &Arc<Instance>) -> Option<Arc<dyn Load>> {
            assert!(self.0.is_some(), "as the test wants it");
            None
        }

        fn picker(&self, _: &Candidates<'_>, _: Option<&dyn Picker>) -> Box<dyn Picker> {
            assert!(self.0.is_some(), "as the test wants it");
            Box::new(Self(self.0))
        }
    }

    impl Picker for Broken {
        fn pick(&self, _: &CallInfo<'_>) -> Option<usize> {
            self.0.filter(|index| *index != 7)
        }
    }

    #[test]
    fn a_policy_that_panics_or_names_what_is_not_there_costs_no_call() {
        for broken in [None, Some(1_000), Some(7)] {
            let (mut selector, _) = selector(Broken(broken), &three());
            assert_eq!(counts(&selector.choose(), 300).len(), 3);
        }
    }

    #[test]
    fn a_picker_hears_of_the_call_and_of_what_was_tried() {
        #[derive(Debug)]
        struct ByKey;
        impl Policy for ByKey {
            fn picker(&self, _: &Candidates<'_>, _: Option<&dyn Picker>) -> Box<dyn Picker> {
                Box::new(Self)
            }
        }
        impl Picker for ByKey {
            fn pick(&self, call: &CallInfo<'_>) -> Option<usize> {
                let key = usize::try_from(call.hash_key()?).ok()?;
                let key = key + usize::from(call.method() == Some("next"));
                (key..key + 3)
                    .map(|nth| nth % 3)
                    .find(|nth| !call.has_tried(*nth))
            }
        }
        let (mut selector, _) = selector(ByKey, &three());
        let choice = selector.choose();
        let call = CallInfo::new().with_hash_key(1);
        let pick = |call, tried: &[usize]| choice.pick(&call, |index| tried.contains(&index), Some);
        for _ in 0..10 {
            assert_eq!(pick(call, &[]), Some(1));
            assert_eq!(pick(call, &[1]), Some(2));
            assert_eq!(pick(call, &[1, 2]), Some(0));
            assert_eq!(pick(call.with_method("next"), &[]), Some(2));
            // The owner finds no room at 1: the picker is asked for another one.
            let taken = choice.pick(&call, |_| false, |index| (index != 1).then_some(index));
            assert_eq!(taken, Some(2));
        }
    }
}
