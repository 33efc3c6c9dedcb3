//! The set of one service, as it becomes from answer to answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::Moment;
use sd_core::{
    Address, Endpoint, Incarnation, Instance, InstanceId, Revision, ServiceName, Skipped, Snapshot,
};
use tokio::time::Instant;

use crate::reading::lookup::{Found, Part, Reading};

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
    /// After it was told that there is nothing: from when on it is believed, if it is told again.
    believe_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Known {
    instance: Arc<Instance>,
    part: Part,
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
            believe_at: None,
        }
    }

    /// The set that an earlier feed told.
    pub(crate) fn of(known: &Snapshot, keep_absent: u32) -> Self {
        let mut set = Self::new(known.service().clone(), keep_absent);
        for instance in known.instances() {
            if let Some(address) = address_of(instance.endpoint()) {
                let target = instance.metadata().get(TARGET_KEY);
                let part = match target {
                    Some(target) => Part::Target(target.clone()),
                    None if address.is_ipv4() => Part::Ipv4,
                    None => Part::Ipv6,
                };
                let known = Known {
                    instance: Arc::clone(instance),
                    part,
                    absences: 0,
                };
                set.instances.insert(address, known);
            }
        }
        set
    }

    /// Takes what was read now, and holds for so long. Changes nothing if there is doubt.
    pub(crate) fn take(&mut self, reading: &Reading, holds: Duration) -> Taken {
        if reading.found.is_empty() && !self.instances.is_empty() {
            let now = Instant::now();
            // Before that, a cache may just repeat itself.
            if *self.believe_at.get_or_insert(now + holds) > now {
                return Taken::Doubted;
            }
            self.instances.clear();
        }
        self.believe_at = None;
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
            if found.contains_key(address)
                || reading.unknown.iter().any(|(part, _)| *part == known.part)
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
                part: one.part.clone(),
                absences: 0,
            };
            self.instances.insert(address, known);
        }
        Taken::Whole
    }

    pub(crate) fn snapshot(&self, revision: Revision, as_of: Moment) -> Snapshot {
        let instances = self.instances.values();
        let instances = instances.map(|known| Arc::clone(&known.instance)).collect();
        Snapshot::new(self.service.clone(), revision, as_of, instances)
            .with_skipped(self.skipped.clone())
    }
}

/// Of several records of one address, the least counts.
fn rank(found: &Found) -> (u16, std::cmp::Reverse<u16>, &Part) {
    (found.priority, std::cmp::Reverse(found.weight), &found.part)
}

/// The instance at an address. Its id is made of that alone, so that it stays the same from answer to answer.
fn instance(service: &ServiceName, found: &Found) -> Option<Instance> {
    let endpoint = Endpoint::try_from(found.address).ok()?;
    let id = InstanceId::new(endpoint.to_string()).ok()?;
    let instance = Instance::of_run(service.clone(), id, RUN, endpoint)
        .with_priority(found.priority)
        .with_weight(found.weight);
    Some(match &found.part {
        Part::Target(target) => instance.with_metadata(TARGET_KEY, target),
        Part::Ipv4 | Part::Ipv6 => instance,
    })
}

fn address_of(endpoint: &Endpoint) -> Option<SocketAddr> {
    match endpoint.address() {
        Address::Tcp { host, port } => Some(SocketAddr::new(host.parse().ok()?, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sd_core::{Error, ErrorKind};
    use tokio::time::advance;

    use super::*;

    const HOLDS: Duration = Duration::from_secs(5);

    fn set(keep_absent: u32) -> ServiceSet {
        ServiceSet::new(ServiceName::new("s").unwrap(), keep_absent)
    }

    fn found(address: &str) -> Found {
        let address: SocketAddr = address.parse().unwrap();
        Found {
            address,
            part: if address.is_ipv4() {
                Part::Ipv4
            } else {
                Part::Ipv6
            },
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

    fn ids(set: &ServiceSet) -> Vec<String> {
        let snapshot = set.snapshot(Revision::new("d", 1), Moment::ZERO);
        let ids = snapshot.instances().iter().map(|one| one.id().to_string());
        ids.collect()
    }

    #[test]
    fn an_address_keeps_its_identity_from_answer_to_answer() {
        let mut set = set(1);
        set.take(&reading(&["10.0.0.1:80", "[::1]:80"]), HOLDS);
        let before = set.snapshot(Revision::new("d", 1), Moment::ZERO);
        set.take(&reading(&["[::1]:80", "10.0.0.2:80", "10.0.0.1:80"]), HOLDS);
        let after = set.snapshot(Revision::new("d", 2), Moment::ZERO);
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
            set.take(&twice, HOLDS);
            let snapshot = set.snapshot(Revision::new("d", 1), Moment::ZERO);
            assert_eq!(snapshot.len(), 1);
            let one = &snapshot.instances()[0];
            assert_eq!((one.priority(), one.weight()), (0, 7));
        }
    }

    #[test]
    fn an_absent_address_goes_after_as_many_answers_as_were_set() {
        let mut kept = set(3);
        kept.take(&reading(&["10.0.0.1:80", "10.0.0.2:80"]), HOLDS);
        for _ in 0..2 {
            kept.take(&reading(&["10.0.0.1:80"]), HOLDS);
            assert_eq!(ids(&kept).len(), 2);
        }
        // It is back before the third, and the count starts over.
        kept.take(&reading(&["10.0.0.2:80"]), HOLDS);
        for _ in 0..2 {
            kept.take(&reading(&["10.0.0.1:80"]), HOLDS);
            assert_eq!(ids(&kept).len(), 2);
        }
        kept.take(&reading(&["10.0.0.1:80"]), HOLDS);
        assert_eq!(ids(&kept), ["10.0.0.1:80"]);
        let mut exact = set(1);
        exact.take(&reading(&["10.0.0.1:80", "10.0.0.2:80"]), HOLDS);
        exact.take(&reading(&["10.0.0.1:80"]), HOLDS);
        assert_eq!(ids(&exact), ["10.0.0.1:80"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_empty_counts_when_it_is_told_again_after_that_may_have_changed() {
        let mut set = set(1);
        assert_eq!(set.take(&reading(&[]), HOLDS), Taken::Whole);
        set.take(&reading(&["10.0.0.1:80"]), HOLDS);
        for _ in 0..2 {
            assert_eq!(set.take(&reading(&[]), HOLDS), Taken::Doubted);
            advance(HOLDS).await;
            set.take(&reading(&["10.0.0.1:80"]), HOLDS);
        }
        // However often it is asked meanwhile.
        for _ in 0..5 {
            assert_eq!(set.take(&reading(&[]), HOLDS), Taken::Doubted);
            assert_eq!(ids(&set).len(), 1);
            advance(HOLDS / 5).await;
        }
        assert_eq!(set.take(&reading(&[]), HOLDS), Taken::Whole);
        assert!(ids(&set).is_empty());
        assert_eq!(set.take(&reading(&[]), HOLDS), Taken::Whole);
    }

    #[test]
    fn what_could_not_be_asked_stays() {
        let mut set = set(1);
        set.take(&reading(&["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"]), HOLDS);
        let mut half = reading(&["10.0.0.1:80"]);
        let error = Error::new(ErrorKind::Timeout, "test");
        half.unknown.push((Part::Ipv6, error));
        set.take(&half, HOLDS);
        assert_eq!(ids(&set), ["10.0.0.1:80", "[::1]:80"]);
    }

    #[test]
    fn a_known_set_is_gone_on_with() {
        let mut first = set(1);
        let mut with_target = reading(&["10.0.0.1:80", "[::1]:80"]);
        with_target.found[1].part = Part::Target("pod.d.".to_owned());
        first.take(&with_target, HOLDS);
        let known = first.snapshot(Revision::new("d", 1), Moment::ZERO);
        assert_eq!(known.instances()[1].metadata()[TARGET_KEY], "pod.d.");
        let mut next = ServiceSet::of(&known, 1);
        let again = next.snapshot(Revision::new("d", 2), Moment::ZERO);
        assert!(again.is_same_set(&known));
        assert_eq!(next.take(&reading(&[]), HOLDS), Taken::Doubted);
        let mut half = reading(&["10.0.0.1:80"]);
        let error = Error::new(ErrorKind::Timeout, "test");
        let pod = Part::Target("pod.d.".to_owned());
        half.unknown.push((pod, error));
        next.take(&half, HOLDS);
        assert_eq!(ids(&next).len(), 2);
    }
}
