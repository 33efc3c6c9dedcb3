//! The mass-loss hold: instances that vanish together were more often lost by their registry than dead.
//!
//! A registry that was frozen for longer than its leases drops every record at once, while the servers behind them are fine. If
//! at least half of three or more instances vanish within a window without having been withdrawn, the hold puts them back for a
//! while and marks them. It does so only where withdrawals can be told from losses. Instances that were withdrawn, or were not ready, are never held. Neither is a run whose address a ready
//! newer one has taken.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use tokio::time::Instant;

use crate::model::delta::Delta;
use crate::model::instance::Instance;
use crate::model::name::InstanceId;
use crate::model::newest_run::{newest_beside, without_older_runs};
use crate::model::snapshot::{Made, Snapshot};
use crate::retry::later;

/// When, and for how long, vanished instances stay in the set.
///
/// By default only for a source that [tells withdrawals](crate::Instancer::tells_withdrawals): where it cannot, as with go-kit's entries on
/// etcd, every scaling down would be held.
///
/// A source can report a withdrawal only while a feed is open. Instances that withdraw between two feeds therefore count as
/// lost, unless they were marked as not ready before, as a draining server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MassLossHold {
    /// Losses within this time are counted together. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How long each vanished instance stays in the set. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub hold: Duration,
    /// Whether to hold also what vanishes from a source that does not tell withdrawals. Default `false`.
    pub any_source: bool,
}

impl Default for MassLossHold {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            hold: Duration::from_secs(30),
            any_source: false,
        }
    }
}

impl MassLossHold {
    /// Counts losses within `window` together, and keeps each vanished instance for `hold`.
    pub fn new(window: Duration, hold: Duration) -> Self {
        Self {
            window,
            hold,
            ..Self::default()
        }
    }

    /// Holds also what vanishes from a source that does not tell withdrawals.
    #[must_use]
    pub fn for_any_source(mut self) -> Self {
        self.any_source = true;
        self
    }
}

/// Fewer instances than this are never held: with two, one loss is half.
const SMALLEST_SET: usize = 3;

#[derive(Debug)]
struct Vanished {
    instance: Arc<Instance>,
    /// Whether the source says in what order its records were made.
    ordered: bool,
    at: Instant,
    /// Until when it stays in the set. `None` while its loss is not part of a mass loss.
    held_until: Option<Instant>,
}

impl Vanished {
    /// Its record beside those that are listed.
    fn record(&self) -> (Arc<Instance>, Option<Made>) {
        let made = self.ordered.then_some(Made::BeforeAllListed);
        (Arc::clone(&self.instance), made)
    }
}

/// Remembers what vanished recently and decides what stays in the set.
#[derive(Debug)]
pub(crate) struct Holder {
    policy: Option<MassLossHold>,
    listed: Option<Snapshot>,
    vanished: BTreeMap<InstanceId, Vanished>,
}

impl Holder {
    pub(crate) fn new(policy: Option<MassLossHold>) -> Self {
        Self {
            policy,
            listed: None,
            vanished: BTreeMap::new(),
        }
    }

    /// Takes a set as the source lists it and returns the one to serve.
    pub(crate) fn take(&mut self, now: Instant, listed: &Snapshot) -> Snapshot {
        let before = self.listed.replace(listed.clone());
        if let (Some(_), Some(before)) = (self.policy, before) {
            let withdrawn: HashSet<_> = listed.withdrawn().iter().collect();
            let is_lost = |id: &InstanceId| listed.get(id).is_none() && !withdrawn.contains(id);
            // Among these, an instance whose id is still there has only begun a new run.
            for instance in Delta::between(&before, listed).removed {
                if instance.is_ready() && is_lost(instance.id()) {
                    let lost = Vanished {
                        at: now,
                        held_until: None,
                        ordered: before.made(&instance).is_some(),
                        instance,
                    };
                    self.vanished.insert(lost.instance.id().clone(), lost);
                }
            }
            self.vanished.retain(|id, _| is_lost(id));
            if !self.vanished.is_empty() {
                // What listens at the address of such a run is listed.
                let all = self.vanished.values().map(Vanished::record).collect();
                let counts = newest_beside(listed, all);
                self.vanished.retain(|id, _| counts.get(id).is_some());
            }
        }
        self.serve(now, listed.clone())
    }

    /// The set to serve after time has passed; `None` before one was taken.
    pub(crate) fn release(&mut self, now: Instant) -> Option<Snapshot> {
        let listed = self.listed.clone()?;
        Some(self.serve(now, listed))
    }

    fn serve(&mut self, now: Instant, listed: Snapshot) -> Snapshot {
        let Some(policy) = self.policy else {
            return listed;
        };
        let is_recent = |lost: &Vanished| now.saturating_duration_since(lost.at) < policy.window;
        // Each loss is judged only among those of its own window: instances held from an earlier loss are no reason to hold
        // more.
        let recent = self
            .vanished
            .values()
            .filter(|lost| is_recent(lost))
            .count();
        let all = listed.len() + recent;
        if all >= SMALLEST_SET && recent * 2 >= all {
            for lost in self.vanished.values_mut().filter(|lost| is_recent(lost)) {
                lost.held_until = Some(later(lost.at, policy.hold));
            }
        }
        self.vanished.retain(|_, lost| match lost.held_until {
            Some(until) => now < until,
            None => is_recent(lost),
        });
        let held = self
            .vanished
            .values()
            .filter(|lost| lost.held_until.is_some());
        let held: Vec<_> = held.map(Vanished::record).collect();
        if held.is_empty() {
            return listed;
        }
        let ids = held.iter().map(|(instance, _)| instance.id().clone());
        let ids = ids.collect();
        without_older_runs(listed.with_more(held)).with_held(ids)
    }

    /// When [`release`](Self::release) would next let go of something.
    pub(crate) fn due(&self) -> Option<Instant> {
        let held = self.vanished.values();
        held.filter_map(|lost| lost.held_until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::{Revision, ServiceName};

    fn set(ids: &[&str]) -> Snapshot {
        let instances = ids
            .iter()
            .map(|id| {
                let id = InstanceId::new(id).unwrap();
                let run = crate::Incarnation::from_u64(1);
                Arc::new(
                    Instance::new("s", "h:1")
                        .unwrap()
                        .with_id(id)
                        .with_incarnation(run),
                )
            })
            .collect();
        Snapshot::new(
            ServiceName::new("s").unwrap(),
            Revision::new("d", 1),
            Moment::ZERO,
            instances,
        )
    }

    fn ids(ids: &[&str]) -> Vec<InstanceId> {
        ids.iter().map(|id| InstanceId::new(id).unwrap()).collect()
    }

    fn holder(first: &[&str]) -> (Holder, Instant) {
        let mut holder = Holder::new(Some(MassLossHold::default()));
        let now = Instant::now();
        holder.take(now, &set(first));
        (holder, now)
    }

    #[test]
    fn half_of_three_or_more_that_vanish_are_served_on_marked_and_let_go_after_the_hold() {
        let (mut holder, now) = holder(&["a", "b", "c", "d"]);
        let served = holder.take(now, &set(&["a", "b"]));
        assert_eq!((served.len(), served.held()), (4, &ids(&["c", "d"])[..]));
        let due = holder.due().unwrap();
        assert_eq!(due, now + Duration::from_secs(30));
        assert_eq!(
            holder
                .release(due - Duration::from_millis(1))
                .unwrap()
                .len(),
            4
        );
        let released = holder.release(due).unwrap();
        assert_eq!(
            (released.len(), released.held().len(), holder.due()),
            (2, 0, None)
        );
    }

    #[test]
    fn losses_one_by_one_count_together_within_the_window_only() {
        let (mut holder, now) = holder(&["a", "b", "c", "d"]);
        assert_eq!(holder.take(now, &set(&["a", "b", "c"])).len(), 3);
        assert_eq!(
            holder
                .take(now + Duration::from_secs(9), &set(&["a", "b"]))
                .len(),
            4
        );

        let (mut holder, now) = self::holder(&["a", "b", "c", "d"]);
        assert_eq!(holder.take(now, &set(&["a", "b", "c"])).len(), 3);
        assert_eq!(
            holder
                .take(now + Duration::from_secs(11), &set(&["a", "b"]))
                .len(),
            2
        );
    }

    #[test]
    fn what_was_withdrawn_or_not_ready_is_never_held() {
        let (mut holder, now) = holder(&["a", "b", "c"]);
        let withdrawn = set(&["a"]).with_withdrawn(ids(&["b", "c"]));
        assert_eq!(holder.take(now, &withdrawn).len(), 1);

        let mut holder = Holder::new(Some(MassLossHold::default()));
        let drained = set(&["a", "b", "c"]);
        let drained = drained.clone().with_instances(
            drained
                .instances()
                .iter()
                .map(|i| Arc::new(i.as_ref().clone().with_ready(false)))
                .collect(),
        );
        holder.take(now, &drained);
        assert_eq!(holder.take(now, &set(&[])).len(), 0);
    }

    #[test]
    fn one_that_comes_back_is_no_longer_held() {
        let (mut holder, now) = holder(&["a", "b", "c"]);
        assert_eq!(holder.take(now, &set(&[])).held().len(), 3);
        let served = holder.take(now, &set(&["a"]));
        assert_eq!((served.len(), served.held()), (3, &ids(&["b", "c"])[..]));
    }

    #[test]
    fn one_of_two_and_a_disabled_hold_are_obeyed_at_once() {
        let (mut holder, now) = holder(&["a", "b"]);
        assert_eq!(holder.take(now, &set(&["a"])).len(), 1);

        let mut off = Holder::new(None);
        off.take(now, &set(&["a", "b", "c"]));
        assert_eq!(off.take(now, &set(&[])).len(), 0);
    }

    #[test]
    fn after_a_mass_loss_those_that_crash_one_by_one_are_obeyed_at_once() {
        let names: Vec<_> = (0..100).map(|n| format!("i{n:02}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let (mut holder, start) = holder(&names);
        assert_eq!(holder.take(start, &set(&names[..50])).held().len(), 50);
        for crashed in 1..20 {
            let now = start + crashed * Duration::from_secs(20);
            let left = 50 - crashed as usize;
            let served = holder.take(now, &set(&names[..left]));
            // Those of the mass loss are held for the first of these only.
            let held = if crashed == 1 { 50 } else { 0 };
            assert_eq!((served.held().len(), served.len()), (held, left + held));
            assert!(served.get(&ids(&names[left..=left])[0]).is_none());
        }
    }

    #[test]
    fn many_withdrawn_at_once_are_let_go_in_no_time() {
        let names: Vec<_> = (0..50_000).map(|n| format!("i{n:05}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let (all, none) = (set(&names), set(&[]).with_withdrawn(ids(&names)));
        let mut holder = Holder::new(Some(MassLossHold::default()));
        let start = Instant::now();
        holder.take(Instant::now(), &all);
        assert!(holder.take(Instant::now(), &none).is_empty());
        // Time that grows with the square of their number would be many times this.
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }

    #[test]
    fn a_hold_shorter_than_the_window_is_kept_to() {
        let mut holder = Holder::new(Some(MassLossHold {
            window: Duration::from_secs(60),
            hold: Duration::from_secs(1),
            any_source: false,
        }));
        let start = Instant::now();
        holder.take(start, &set(&["a", "b", "c"]));
        holder.take(start, &set(&["a", "b"]));
        let now = start + Duration::from_secs(5);
        assert_eq!(holder.take(now, &set(&["a"])).held(), ids(&["b"]));
        let due = holder.due().unwrap();
        assert_eq!(due, now + Duration::from_secs(1));
        assert_eq!(holder.release(due).unwrap().len(), 1);
        assert_eq!(holder.due(), None);
    }
}
