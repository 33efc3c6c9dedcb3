//! The set of one service, as it becomes from answer to answer.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::Moment;
use sd_core::{
    Endpoint, Incarnation, Instance, InstanceId, Revision, ServiceName, Skipped, Snapshot,
};
use tokio::time::Instant;

use crate::names::socket_address;
use crate::reading::answers::{Found, MOST_INSTANCES, Reading};

/// The metadata key under which an instance has the host that its SRV record names.
pub const TARGET_KEY: &str = "target";

/// Records say nothing of runs, so that all runs at one address are one.
const RUN: Incarnation = Incarnation::from_u64(0);

/// What is known of one service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceSet {
    service: ServiceName,
    keep_absent: u32,
    instances: BTreeMap<SocketAddr, Known>,
    skipped: Vec<Skipped>,
    /// When all of it was confirmed last.
    as_of: Option<Moment>,
    /// After it was told that there is nothing: from when on it is believed, if it is told again.
    believe_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Known {
    instance: Arc<Instance>,
    /// How many answers in a row were without it.
    absences: u32,
}

/// What a reading made of the set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The set is what was read.
    Whole,
    /// The name is gone or empty, which counts when it is told again. The set stays until then.
    Doubted,
}

impl ServiceSet {
    pub(crate) fn new(service: ServiceName, keep_absent: u32) -> Self {
        Self {
            service,
            keep_absent,
            instances: BTreeMap::new(),
            skipped: Vec::new(),
            as_of: None,
            believe_at: None,
        }
    }

    /// The set that an earlier feed told.
    pub(crate) fn of(known: &Snapshot, keep_absent: u32) -> Self {
        let mut set = Self::new(known.service().clone(), keep_absent);
        set.as_of = Some(known.as_of());
        for instance in known.instances() {
            if let Some(address) = socket_address(instance.endpoint()) {
                let known = Known {
                    instance: Arc::clone(instance),
                    absences: 0,
                };
                set.instances.insert(address, known);
            }
        }
        set
    }

    /// Takes what was read now, as it was `at`, and holds for so long. Changes nothing if there is doubt.
    pub(crate) fn take(&mut self, reading: &Reading, holds: Duration, at: Moment) -> Taken {
        if reading.found.is_empty() && !self.instances.is_empty() {
            let now = Instant::now();
            // Before that, a cache may just repeat itself.
            if *self.believe_at.get_or_insert(now + holds) > now {
                return Taken::Doubted;
            }
            self.instances.clear();
        }
        self.believe_at = None;
        if reading.unknown.is_empty() || self.as_of.is_none() {
            self.as_of = Some(at);
        }
        self.skipped.clone_from(&reading.skipped);
        let mut found = BTreeMap::new();
        for one in &reading.found {
            let best = found.entry(one.address).or_insert(one);
            if rank(one) < rank(best) {
                *best = one;
            }
        }
        let keep_absent = self.keep_absent;
        self.instances.retain(|address, known| {
            let target = known.target();
            let mut unknown = reading.unknown.iter();
            if found.contains_key(address)
                || unknown.any(|unknown| unknown.includes(address.ip(), target))
            {
                return true;
            }
            known.absences += 1;
            known.absences < keep_absent
        });
        for (address, one) in found {
            let Some(instance) = instance(&self.service, one) else {
                continue;
            };
            let known = self.instances.get(&address);
            let instance = match known {
                Some(known) if *known.instance == instance => Arc::clone(&known.instance),
                _ => Arc::new(instance),
            };
            let known = Known {
                instance,
                absences: 0,
            };
            self.instances.insert(address, known);
        }
        if self.instances.len() > MOST_INSTANCES {
            self.instances.retain(|_, known| known.absences == 0);
        }
        Taken::Whole
    }

    pub(crate) fn snapshot(&self, revision: Revision) -> Snapshot {
        // Nothing was taken if it is not known, so that nothing is that old.
        let as_of = self.as_of.unwrap_or(Moment::ZERO);
        let instances = self.instances.values();
        let instances = instances.map(|known| Arc::clone(&known.instance)).collect();
        Snapshot::new(self.service.clone(), revision, as_of, instances)
            .with_skipped(self.skipped.clone())
    }
}

impl Known {
    fn target(&self) -> Option<&str> {
        let target = self.instance.metadata().get(TARGET_KEY);
        target.map(String::as_str)
    }
}

/// Of several records of one address, the least counts.
fn rank(found: &Found) -> (u16, Reverse<u16>, Option<&str>) {
    (
        found.priority,
        Reverse(found.weight),
        found.target.as_deref(),
    )
}

/// The instance at an address. Its id is made of that alone, so that it stays the same from answer to answer.
fn instance(service: &ServiceName, found: &Found) -> Option<Instance> {
    let endpoint = Endpoint::try_from(found.address).ok()?;
    let id = InstanceId::new(endpoint.to_string()).ok()?;
    let instance = Instance::of_run(service.clone(), id, RUN, endpoint)
        .with_priority(found.priority)
        .with_weight(found.weight);
    Some(match &found.target {
        Some(target) => instance.with_metadata(TARGET_KEY, &**target),
        None => instance,
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use hickory_resolver::proto::rr::RecordType;
    use sd_core::{Error, ErrorKind};
    use tokio::time::advance;

    use super::*;
    use crate::reading::answers::Unknown;

    const HOLDS: Duration = Duration::from_secs(5);
    const AT: Moment = Moment::ZERO;

    fn set(keep_absent: u32) -> ServiceSet {
        ServiceSet::new(ServiceName::new("s").unwrap(), keep_absent)
    }

    fn found(address: &str) -> Found {
        let address: SocketAddr = address.parse().unwrap();
        Found {
            address,
            target: None,
            priority: 0,
            weight: 1,
        }
    }

    fn reading(addresses: &[&str]) -> Reading {
        Reading {
            found: addresses.iter().map(|address| found(address)).collect(),
            ..Reading::default()
        }
    }

    fn unknown(target: Option<&str>, wanted: RecordType) -> Unknown {
        Unknown {
            target: target.map(Arc::from),
            wanted,
            error: Error::new(ErrorKind::Timeout, "test"),
        }
    }

    fn ids(set: &ServiceSet) -> Vec<String> {
        let snapshot = set.snapshot(Revision::new("d", 1));
        let ids = snapshot.instances().iter().map(|one| one.id().to_string());
        ids.collect()
    }

    #[test]
    fn an_address_keeps_its_identity_from_answer_to_answer() {
        let mut set = set(1);
        set.take(&reading(&["10.0.0.1:80", "[::1]:80"]), HOLDS, AT);
        let before = set.snapshot(Revision::new("d", 1));
        set.take(
            &reading(&["[::1]:80", "10.0.0.2:80", "10.0.0.1:80"]),
            HOLDS,
            AT,
        );
        let after = set.snapshot(Revision::new("d", 2));
        for instance in before.instances() {
            let same = after.get(instance.id()).unwrap();
            assert!(Arc::ptr_eq(same, instance));
        }
        assert_eq!(ids(&set), ["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"]);
    }

    #[test]
    fn an_address_twice_is_one_instance_of_the_best_rank() {
        let mut twice = reading(&["10.0.0.1:80", "10.0.0.1:80", "10.0.0.1:80"]);
        for (one, rank) in twice.found.iter_mut().zip([(1, 9), (0, 3), (0, 7)]) {
            (one.priority, one.weight) = rank;
        }
        for _ in 0..3 {
            let mut set = set(1);
            twice.found.rotate_left(1);
            set.take(&twice, HOLDS, AT);
            let snapshot = set.snapshot(Revision::new("d", 1));
            assert_eq!(snapshot.len(), 1);
            let one = &snapshot.instances()[0];
            assert_eq!((one.priority(), one.weight()), (0, 7));
        }
    }

    #[test]
    fn an_absent_address_goes_after_as_many_answers_as_were_set() {
        let mut kept = set(3);
        kept.take(&reading(&["10.0.0.1:80", "10.0.0.2:80"]), HOLDS, AT);
        for _ in 0..2 {
            kept.take(&reading(&["10.0.0.1:80"]), HOLDS, AT);
            assert_eq!(ids(&kept).len(), 2);
        }
        // It is back before the third, and the count starts over.
        kept.take(&reading(&["10.0.0.2:80"]), HOLDS, AT);
        for _ in 0..2 {
            kept.take(&reading(&["10.0.0.1:80"]), HOLDS, AT);
            assert_eq!(ids(&kept).len(), 2);
        }
        kept.take(&reading(&["10.0.0.1:80"]), HOLDS, AT);
        assert_eq!(ids(&kept), ["10.0.0.1:80"]);
        let mut exact = set(1);
        exact.take(&reading(&["10.0.0.1:80", "10.0.0.2:80"]), HOLDS, AT);
        exact.take(&reading(&["10.0.0.1:80"]), HOLDS, AT);
        assert_eq!(ids(&exact), ["10.0.0.1:80"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_empty_counts_when_it_is_told_again_after_that_may_have_changed() {
        let mut set = set(1);
        assert_eq!(set.take(&reading(&[]), HOLDS, AT), Taken::Whole);
        set.take(&reading(&["10.0.0.1:80"]), HOLDS, AT);
        for _ in 0..2 {
            assert_eq!(set.take(&reading(&[]), HOLDS, AT), Taken::Doubted);
            advance(HOLDS).await;
            set.take(&reading(&["10.0.0.1:80"]), HOLDS, AT);
        }
        // However often it is asked meanwhile.
        for _ in 0..5 {
            assert_eq!(set.take(&reading(&[]), HOLDS, AT), Taken::Doubted);
            assert_eq!(ids(&set).len(), 1);
            advance(HOLDS / 5).await;
        }
        assert_eq!(set.take(&reading(&[]), HOLDS, AT), Taken::Whole);
        assert!(ids(&set).is_empty());
        assert_eq!(set.take(&reading(&[]), HOLDS, AT), Taken::Whole);
    }

    #[test]
    fn what_could_not_be_asked_stays() {
        let mut set = set(1);
        set.take(
            &reading(&["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"]),
            HOLDS,
            AT,
        );
        let mut half = reading(&["10.0.0.1:80"]);
        half.unknown.push(unknown(None, RecordType::AAAA));
        set.take(&half, HOLDS, AT);
        assert_eq!(ids(&set), ["10.0.0.1:80", "[::1]:80"]);
    }

    #[test]
    fn of_a_host_one_kind_of_address_may_be_unknown_and_the_other_followed() {
        let of = |target: &str, addresses: &[&str]| {
            let mut reading = reading(addresses);
            for found in &mut reading.found {
                found.target = Some(target.into());
            }
            reading
        };
        let mut set = set(1);
        let mut both = of("a.d.", &["10.0.0.1:80", "[::1]:80"]);
        both.found.extend(of("b.d.", &["[::2]:80"]).found);
        set.take(&both, HOLDS, AT);
        let mut half = of("a.d.", &["10.0.0.2:80"]);
        half.unknown.push(unknown(Some("a.d."), RecordType::AAAA));
        set.take(&half, HOLDS, AT);
        assert_eq!(ids(&set), ["10.0.0.2:80", "[::1]:80"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_is_from_when_all_of_it_was_confirmed_last() {
        let at = |seconds| AT + Duration::from_secs(seconds);
        let as_of = |set: &ServiceSet| set.snapshot(Revision::new("d", 1)).as_of();
        let mut half = reading(&["10.0.0.1:80"]);
        half.unknown.push(unknown(None, RecordType::AAAA));
        let mut set = set(1);
        // Nothing is older than what was told first.
        set.take(&half, HOLDS, at(1));
        assert_eq!(as_of(&set), at(1));
        set.take(&reading(&["10.0.0.1:80"]), HOLDS, at(2));
        assert_eq!(as_of(&set), at(2));
        set.take(&half, HOLDS, at(3));
        assert_eq!(as_of(&set), at(2));
        set.take(&reading(&["10.0.0.2:80"]), HOLDS, at(4));
        // A name that is told to be gone confirms nothing until that is believed.
        assert_eq!(set.take(&reading(&[]), HOLDS, at(5)), Taken::Doubted);
        assert_eq!(as_of(&set), at(4));
        let next = ServiceSet::of(&set.snapshot(Revision::new("d", 1)), 1);
        assert_eq!(as_of(&next), at(4));
        advance(HOLDS).await;
        assert_eq!(set.take(&reading(&[]), HOLDS, at(6)), Taken::Whole);
        assert_eq!(as_of(&set), at(6));
    }

    #[test]
    fn a_set_of_very_many_keeps_no_absent_ones() {
        let many = |from: u32| {
            let address = |number: u32| SocketAddr::new(IpAddr::V4(number.into()), 80);
            let numbers = from..from + u32::try_from(MOST_INSTANCES).unwrap();
            Reading {
                found: numbers
                    .map(|number| Found {
                        address: address(number),
                        ..found("10.0.0.1:80")
                    })
                    .collect(),
                ..Reading::default()
            }
        };
        let mut set = set(3);
        set.take(&many(1), HOLDS, AT);
        set.take(&many(2), HOLDS, AT);
        assert_eq!(ids(&set).len(), MOST_INSTANCES);
        // No more than that are there, so that they are kept.
        set.take(&reading(&["0.0.0.5:80"]), HOLDS, AT);
        assert_eq!(ids(&set).len(), MOST_INSTANCES);
    }

    #[test]
    fn a_known_set_is_gone_on_with() {
        let mut first = set(1);
        let mut with_target = reading(&["10.0.0.1:80", "[::1]:80"]);
        with_target.found[1].target = Some("pod.d.".into());
        first.take(&with_target, HOLDS, AT);
        let known = first.snapshot(Revision::new("d", 1));
        assert_eq!(known.instances()[1].metadata()[TARGET_KEY], "pod.d.");
        let mut next = ServiceSet::of(&known, 1);
        let again = next.snapshot(Revision::new("d", 2));
        assert!(again.is_same_set(&known));
        assert_eq!(next.take(&reading(&[]), HOLDS, AT), Taken::Doubted);
        let mut half = reading(&["10.0.0.1:80"]);
        half.unknown.push(unknown(Some("pod.d."), RecordType::AAAA));
        next.take(&half, HOLDS, AT);
        assert_eq!(ids(&next).len(), 2);
    }
}
