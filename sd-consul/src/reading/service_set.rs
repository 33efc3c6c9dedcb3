//! From the entries of one service, as Consul lists them, to its set.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use sd_core::clock::Moment;
use sd_core::{Instance, InstanceId, Result, Revision, ServiceName, Skipped, Snapshot};

use crate::codec::{Codec, HealthEntry};
use crate::config::ConsulConfig;
use crate::reading::services::AnsweredEntries;

/// Makes the sets of one service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceSet {
    service: ServiceName,
    codec: Codec,
    /// How many are wanted, nearest first.
    nearest: Option<usize>,
}

/// An instance that has an id, with what decides between two of them.
struct Claim {
    instance: Arc<Instance>,
    created: u64,
    modified: u64,
    node: String,
}

impl Claim {
    /// The run that was there first holds the id. One that was moved to another agent is read where it was written last.
    fn goes_before(&self, other: &Self) -> bool {
        if self.instance.incarnation() == other.instance.incarnation() {
            self.modified > other.modified
        } else {
            self.created < other.created
        }
    }
}

impl ServiceSet {
    pub(crate) fn new(service: &ServiceName, config: &ConsulConfig) -> Self {
        Self {
            service: service.clone(),
            codec: Codec::new(config),
            nearest: config.nearest,
        }
    }

    /// The set as of `at`, read entry by entry. Instances equal to one of `known` share its memory.
    ///
    /// It follows `known` without a gap if `goes_on`. An instance that crashed is still listed, in a critical state. So one that is no
    /// longer listed was removed on purpose.
    ///
    /// # Errors
    /// `InvalidData` if the entries cannot be read.
    pub(crate) async fn read(
        &self,
        entries: AnsweredEntries,
        at: (Revision, Moment),
        known: Option<&Snapshot>,
        goes_on: bool,
    ) -> Result<Snapshot> {
        let made = self.begin(known.cloned(), goes_on);
        entries
            .fold(made, Making::add, |made| made.finish(at))
            .await
    }

    /// The same of entries that were read already.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of(
        &self,
        entries: Vec<HealthEntry>,
        at: (Revision, Moment),
        known: Option<&Snapshot>,
        goes_on: bool,
    ) -> Snapshot {
        let mut made = self.begin(known.cloned(), goes_on);
        for entry in entries {
            made.add(entry);
        }
        made.finish(at)
    }

    fn begin(&self, known: Option<Snapshot>, goes_on: bool) -> Making {
        Making {
            set: self.clone(),
            known,
            goes_on,
            found: BTreeMap::new(),
            skipped: Vec::new(),
            skipped_count: 0,
            listed: Vec::new(),
        }
    }
}

/// A set of which some entries have been read.
struct Making {
    set: ServiceSet,
    known: Option<Snapshot>,
    goes_on: bool,
    found: BTreeMap<InstanceId, Claim>,
    /// What cannot be read, sorted by key: as much as a set names.
    skipped: Vec<Skipped>,
    skipped_count: usize,
    /// The ids of all that were read, if it matters which are missing.
    listed: Vec<InstanceId>,
}

impl Making {
    fn add(&mut self, entry: HealthEntry) {
        let (service, known) = (&self.set.service, self.known.as_ref());
        let most = self.set.nearest.unwrap_or(usize::MAX);
        let key = format!("{}@{}", entry.service.id, entry.node.name);
        let (created, modified) = (entry.service.create_index, entry.service.modify_index);
        let node = entry.node.name.clone();
        let identity = entry.identity(service);
        if let (true, Ok(identity)) = (self.goes_on, &identity) {
            self.listed.push(identity.id.clone());
        }
        let decoded = self.set.codec.decode_identified(service, identity, entry);
        let instance = match decoded {
            Ok(Some(instance)) if self.found.len() < most => Snapshot::share(known, instance),
            Ok(_) => return,
            Err(reason) => {
                return self.skip(Skipped::new(key, reason));
            }
        };
        let claim = Claim {
            instance,
            created,
            modified,
            node,
        };
        match self.found.entry(claim.instance.id().clone()) {
            Entry::Vacant(slot) => {
                slot.insert(claim);
            }
            Entry::Occupied(mut slot) => {
                let loses = if claim.goes_before(slot.get()) {
                    slot.insert(claim)
                } else {
                    claim
                };
                if let Some(skipped) = outdone(&loses, slot.get()) {
                    self.skip(skipped);
                }
            }
        }
    }

    /// Counts it, and keeps it if it is among the first by key.
    fn skip(&mut self, entry: Skipped) {
        self.skipped_count += 1;
        let at = self.skipped.partition_point(|other| other.key <= entry.key);
        if at < Snapshot::MOST_SKIPPED {
            self.skipped.insert(at, entry);
            self.skipped.truncate(Snapshot::MOST_SKIPPED);
        }
    }

    fn finish(self, (revision, as_of): (Revision, Moment)) -> Snapshot {
        let Self {
            set,
            known,
            goes_on,
            found,
            skipped,
            skipped_count,
            mut listed,
        } = self;
        listed.sort();
        let before = known.filter(|_| goes_on);
        let withdrawn = before.map_or(Vec::new(), |before| {
            let ids = before.instances().iter().map(|instance| instance.id());
            let missing = ids.filter(|id| listed.binary_search(id).is_err());
            missing.cloned().collect()
        });
        let found = found.into_values();
        let records = found.map(|one| (one.instance, one.created)).collect();
        Snapshot::ordered(set.service, revision, as_of, records)
            .with_withdrawn(withdrawn)
            .with_skipped(skipped)
            .with_skipped_count(skipped_count)
    }
}

/// What to tell of a run whose id another one holds.
fn outdone(loser: &Claim, winner: &Claim) -> Option<Skipped> {
    let id = loser.instance.id();
    (!loser.instance.is_same_run(&winner.instance)).then(|| {
        let reason = format!(
            "the incarnation {} at the node {} has the same id and was there first",
            winner.instance.incarnation(),
            winner.node
        );
        Skipped::new(format!("{id}@{}", loser.node), reason)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entries(nearest: Option<usize>) -> ServiceSet {
        let config = ConsulConfig {
            nearest,
            ..ConsulConfig::default()
        };
        ServiceSet::new(&ServiceName::new("s").unwrap(), &config)
    }

    fn own(id: &str, node: &str, run: &str, created: u64, modified: u64) -> Value {
        json!({
            "Node": {"Node": node, "Address": "10.1.1.1", "Datacenter": "dc1"},
            "Service": {"ID": format!("s:{id}"), "Address": "h", "Port": modified, "Meta": {"sd-incarnation": run},
                "CreateIndex": created, "ModifyIndex": modified},
            "Checks": [{"CheckID": "serfHealth", "Status": "passing"}],
        })
    }

    fn critical(mut entry: Value) -> Value {
        entry["Checks"][0]["Status"] = "critical".into();
        entry
    }

    fn set(
        entries: &ServiceSet,
        list: &[Value],
        known: Option<&Snapshot>,
        before: Option<&Snapshot>,
    ) -> Snapshot {
        let list = list.iter().cloned().map(serde_json::from_value);
        let list = list.collect::<Result<_, _>>().unwrap();
        let at = (Revision::new("d", 1), Moment::ZERO);
        entries.of(list, at, known, before.is_some())
    }

    fn ids(set: &Snapshot) -> Vec<&str> {
        let ids = set
            .instances()
            .iter()
            .map(|instance| instance.id().as_str());
        ids.collect()
    }

    #[test]
    fn what_did_not_change_stays_the_same_arc() {
        let entries = entries(None);
        let first = set(
            &entries,
            &[own("a", "n", "1", 1, 1), own("b", "n", "2", 1, 1)],
            None,
            None,
        );
        let second = set(
            &entries,
            &[own("a", "n", "1", 1, 1), own("b", "n", "2", 1, 9)],
            Some(&first),
            None,
        );
        let same = |at: usize| Arc::ptr_eq(&first.instances()[at], &second.instances()[at]);
        assert!(same(0) && !same(1));
    }

    #[test]
    fn what_is_not_listed_any_more_was_withdrawn_and_what_is_critical_was_lost() {
        let entries = entries(None);
        let [a, b, c] = ["a", "b", "c"].map(|id| own(id, "n", "1", 1, 1));
        let before = set(&entries, &[a.clone(), b.clone(), c], None, None);
        let after = set(
            &entries,
            &[a.clone(), critical(b.clone())],
            Some(&before),
            Some(&before),
        );
        assert_eq!(ids(&after), ["a"]);
        assert_eq!(after.withdrawn(), [InstanceId::new("c").unwrap()]);
        // After a gap it is unknown.
        let after_gap = set(&entries, &[a], Some(&before), None);
        assert_eq!(after_gap.withdrawn(), []);
    }

    #[test]
    fn of_two_runs_with_one_id_the_first_stays_and_the_other_is_named() {
        let entries = entries(None);
        let (old, new) = (own("a", "n", "1", 5, 50), own("a", "m", "2", 9, 9));
        for list in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
            let set = set(&entries, &list, None, None);
            assert_eq!(set.instances()[0].incarnation().as_u64(), 1);
            let [skipped] = set.skipped() else {
                panic!("{set:?}");
            };
            assert_eq!(skipped.key, "a@m");
        }
        let left = set(&entries, &[critical(old), new], None, None);
        assert_eq!(left.instances()[0].incarnation().as_u64(), 2);
        assert_eq!(left.skipped(), []);
    }

    #[test]
    fn a_run_that_moved_to_another_agent_is_read_where_it_was_written_last() {
        let entries = entries(None);
        let (here, there) = (own("a", "n", "1", 5, 6), own("a", "m", "1", 8, 8));
        for list in [[here.clone(), there.clone()], [there, here]] {
            let set = set(&entries, &list, None, None);
            assert_eq!((set.len(), set.skipped()), (1, &[][..]));
            assert_eq!(set.instances()[0].endpoint().port(), Some(8));
        }
    }

    #[test]
    fn the_nearest_are_kept_and_the_farther_ones_are_not_withdrawn() {
        let [a, b, c] = ["a", "b", "c"].map(|id| own(id, "n", "1", 1, 1));
        let entries = entries(Some(2));
        let before = set(
            &entries,
            &[c.clone(), critical(b.clone()), a.clone()],
            None,
            None,
        );
        assert_eq!(ids(&before), ["a", "c"]);
        let after = set(&entries, &[b, c, a], Some(&before), Some(&before));
        assert_eq!((ids(&after), after.withdrawn()), (vec!["b", "c"], &[][..]));
    }

    #[test]
    fn of_much_that_cannot_be_read_little_is_kept_and_all_is_counted() {
        let entries = entries(None);
        let mut made = entries.begin(None, false);
        for n in (0..300).rev() {
            let mut bad = own(&format!("{n:03}"), "n", "1", 1, 1);
            bad["Service"]["Port"] = 0.into();
            made.add(serde_json::from_value(bad).unwrap());
            assert!(made.skipped.len() <= Snapshot::MOST_SKIPPED);
        }
        let set = made.finish((Revision::new("d", 1), Moment::ZERO));
        assert_eq!((set.skipped().len(), set.skipped_count()), (100, 300));
        assert_eq!(set.skipped()[0].key, "s:000@n");
        assert_eq!(set.skipped()[99].key, "s:099@n");
    }

    #[test]
    fn what_cannot_be_read_is_skipped_with_where_it_is() {
        let mut bad = own("b", "n", "1", 1, 1);
        bad["Service"]["Port"] = 0.into();
        let set = set(&entries(None), &[own("a", "n", "1", 1, 1), bad], None, None);
        assert_eq!(ids(&set), ["a"]);
        assert_eq!(set.skipped()[0].key, "s:b@n");
    }
}
