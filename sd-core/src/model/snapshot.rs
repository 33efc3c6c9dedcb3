//! The full set of a service's instances, at one position of its change feed.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::brief::{brief, cut};
use crate::clock::Moment;
use crate::model::instance::Instance;
use crate::model::name::{InstanceId, ServiceName};
use crate::printable::Printable;

/// A position in a source's change feed. Opaque: two positions are equal or not, and ordered only within one domain, which is a
/// history such as an etcd cluster, a Redis replication history or a session.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Revision {
    domain: Arc<str>,
    value: u64,
}

impl Revision {
    /// The position `value` in the history `domain`.
    pub fn new(domain: impl Into<Arc<str>>, value: u64) -> Self {
        Self {
            domain: domain.into(),
            value,
        }
    }

    /// The history that this position belongs to.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The position within the domain.
    pub fn value(&self) -> u64 {
        self.value
    }
}

impl PartialOrd for Revision {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.domain == other.domain).then(|| self.value.cmp(&other.value))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.value, Printable(&self.domain))
    }
}

/// An entry that a backend could not read. The other entries of the set are not affected. Both texts are cut to what helps a reader: what is
/// stored there may be of any size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Skipped {
    /// Where the entry is stored: the server's own key, path or id. At most 1 KiB.
    pub key: String,
    /// Why it cannot be read. At most 256 bytes.
    pub reason: String,
}

/// A longer key is cut in [`Skipped`].
const MOST_KEY_BYTES: usize = 1024;

/// When a record was made, compared with the others of the same set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Made {
    /// Before all records that the source lists now.
    BeforeAllListed,
    /// At this place in the source's order.
    At(u64),
}

impl Skipped {
    /// The entry at `key` cannot be read for this reason.
    pub fn new(key: impl AsRef<str>, reason: impl AsRef<str>) -> Self {
        Self {
            key: cut(key.as_ref(), MOST_KEY_BYTES),
            reason: brief(reason.as_ref()),
        }
    }
}

/// An immutable, complete set of a service's instances, sorted by id. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    service: ServiceName,
    revision: Revision,
    as_of: Moment,
    instances: Arc<[Arc<Instance>]>,
    /// When the record of each of `instances` was made. Empty if the source cannot say it of any.
    made: Arc<[Option<Made>]>,
    withdrawn: Arc<[InstanceId]>,
    skipped: Arc<[Skipped]>,
    /// How many there are, of which `skipped` may name only the first.
    skipped_count: usize,
    held: Arc<[InstanceId]>,
}

impl Snapshot {
    /// How many entries that could not be read are named.
    pub const MOST_SKIPPED: usize = 100;

    /// The set that was read at `revision`. Sorts by id. If several instances have one id, the last one stays.
    pub fn new(
        service: ServiceName,
        revision: Revision,
        as_of: Moment,
        mut instances: Vec<Arc<Instance>>,
    ) -> Self {
        if !instances.is_sorted_by(|a, b| a.id() < b.id()) {
            instances.reverse();
            instances.sort_by(|a, b| a.id().cmp(b.id()));
            instances.dedup_by(|later, first| later.id() == first.id());
        }
        Self(Arc::new(Parts {
            service,
            revision,
            as_of,
            instances: instances.into(),
            made: Arc::default(),
            withdrawn: Arc::default(),
            skipped: Arc::default(),
            skipped_count: 0,
            held: Arc::default(),
        }))
    }

    /// As [`new`](Self::new), for a source that says in what order its records were made: a larger number was made later. An
    /// update does not change the number. Numbers are only compared within one set.
    ///
    /// Of several runs at one address, readers then see only one. [`Registry::list`](crate::Registry::list) says which.
    pub fn ordered(
        service: ServiceName,
        revision: Revision,
        as_of: Moment,
        records: Vec<(Arc<Instance>, u64)>,
    ) -> Self {
        let records = records.into_iter();
        let records = records.map(|(instance, made)| (instance, Some(Made::At(made))));
        Self::new(service, revision, as_of, Vec::new()).with_records(records.collect())
    }

    /// Replaces the instances by these, of which each tells when its record was made.
    fn with_records(self, mut records: Vec<(Arc<Instance>, Option<Made>)>) -> Self {
        if !records.is_sorted_by(|(a, _), (b, _)| a.id() < b.id()) {
            records.reverse();
            records.sort_by(|(a, _), (b, _)| a.id().cmp(b.id()));
            records.dedup_by(|(later, _), (first, _)| later.id() == first.id());
        }
        self.with_sorted(records.into_iter().unzip())
    }

    /// Replaces the instances by these, which are sorted by id, each of them once.
    fn with_sorted(self, (instances, mut made): (Vec<Arc<Instance>>, Vec<Option<Made>>)) -> Self {
        if made.iter().all(Option::is_none) {
            made.clear();
        }
        self.edit(|parts| {
            parts.instances = instances.into();
            parts.made = made.into();
        })
    }

    /// The empty set that stands for "not read yet".
    pub fn unread(service: ServiceName, as_of: Moment) -> Self {
        Self::new(service, Revision::new("", 0), as_of, Vec::new())
    }

    /// Names instances that are missing because they were withdrawn on purpose. They are never held.
    #[must_use]
    pub fn with_withdrawn(self, withdrawn: Vec<InstanceId>) -> Self {
        self.edit(|parts| parts.withdrawn = withdrawn.into())
    }

    /// Names entries that could not be read. Of more than [`MOST_SKIPPED`](Self::MOST_SKIPPED), it names the first and counts the others.
    #[must_use]
    pub fn with_skipped(self, mut skipped: Vec<Skipped>) -> Self {
        let count = skipped.len();
        skipped.truncate(Self::MOST_SKIPPED);
        self.edit(|parts| {
            parts.skipped = skipped.into();
            parts.skipped_count = count;
        })
    }

    /// Says how many entries could not be read, where not all of them were given to [`with_skipped`](Self::with_skipped).
    #[must_use]
    pub fn with_skipped_count(self, count: usize) -> Self {
        self.edit(|parts| parts.skipped_count = count.max(parts.skipped.len()))
    }

    /// Replaces the position, after the source answered that nothing has changed.
    #[must_use]
    pub fn with_position(self, revision: Revision, as_of: Moment) -> Self {
        self.edit(|parts| {
            parts.revision = revision;
            parts.as_of = as_of;
        })
    }

    /// Replaces the instances. Position, service and skipped entries stay, and so does the order of the records that stay. For
    /// filters and merges.
    #[must_use]
    pub fn with_instances(self, instances: Vec<Arc<Instance>>) -> Self {
        if !self.0.made.is_empty() {
            let records = instances.into_iter();
            let records = records.map(|instance| {
                let made = self.made(&instance);
                (instance, made)
            });
            let records = records.collect();
            return self.with_records(records);
        }
        let new = Self::new(
            self.0.service.clone(),
            self.0.revision.clone(),
            self.0.as_of,
            instances,
        );
        let sorted = Arc::clone(&new.0.instances);
        self.edit(|parts| parts.instances = sorted)
    }

    /// Replaces or adds the records with these ids, each of which tells when it was made as in [`ordered`](Self::ordered), and removes
    /// the records with those ids that have none. Position, service and skipped entries stay. For a source that knows what has changed:
    /// the other instances are shared, and none of them is read.
    #[must_use]
    pub fn with_changes(self, changes: BTreeMap<InstanceId, Option<(Arc<Instance>, u64)>>) -> Self {
        let most = self.len() + changes.len();
        let mut sorted = (Vec::with_capacity(most), Vec::with_capacity(most));
        let kept = |(instance, made): (&Arc<Instance>, _)| (Arc::clone(instance), made);
        let mut rest = self.records();
        let mut passed = 0;
        for (id, record) in changes {
            let (at, replaced) = match self.place_of(&id) {
                Ok(at) => (at, 1),
                Err(at) => (at, 0),
            };
            sorted.extend(rest.by_ref().take(at - passed).map(kept));
            sorted.extend(record.map(|(instance, made)| (instance, Some(Made::At(made)))));
            rest.by_ref().take(replaced).for_each(drop);
            passed = at + replaced;
        }
        sorted.extend(rest.map(kept));
        self.with_sorted(sorted)
    }

    /// Adds records to those that are listed.
    pub(crate) fn with_more(self, more: Vec<(Arc<Instance>, Option<Made>)>) -> Self {
        let mut all: Vec<_> = self
            .records()
            .map(|(instance, made)| (Arc::clone(instance), made))
            .collect();
        all.extend(more);
        self.with_records(all)
    }

    /// Each instance, and when its record was made.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&Arc<Instance>, Option<Made>)> + Clone {
        let made = self.0.made.iter().copied();
        let made = made.chain(std::iter::repeat(None));
        self.0.instances.iter().zip(made)
    }

    /// The records whose ids begin with `prefix`.
    pub(crate) fn records_from<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<Instance>, Option<Made>)> {
        let instances = &self.0.instances;
        let first = instances.partition_point(|instance| instance.id().as_str() < prefix);
        let from_first = instances.get(first..).unwrap_or_default();
        let indexed = from_first.iter().zip(first..);
        indexed
            .take_while(move |(instance, _)| instance.id().as_str().starts_with(prefix))
            .map(|(instance, index)| (instance, self.0.made.get(index).copied().flatten()))
    }

    /// When the record of this run was made, compared with the others. `None` if the run is not in the set.
    pub(crate) fn made(&self, instance: &Instance) -> Option<Made> {
        let index = self.index_of(instance.id())?;
        let same_run = self.0.instances.get(index)?.is_same_run(instance);
        self.0
            .made
            .get(index)
            .copied()
            .flatten()
            .filter(|_| same_run)
    }

    /// Whether the source says of any record when it was made.
    pub(crate) fn is_ordered(&self) -> bool {
        !self.0.made.is_empty()
    }

    /// Marks instances that the source no longer lists but that stay in the set.
    pub(crate) fn with_held(self, held: Vec<InstanceId>) -> Self {
        self.edit(|parts| parts.held = held.into())
    }

    fn edit(mut self, change: impl FnOnce(&mut Parts)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.0.service
    }

    /// The position in the change feed at which the set was read.
    pub fn revision(&self) -> &Revision {
        &self.0.revision
    }

    /// When the source last confirmed this set.
    pub fn as_of(&self) -> Moment {
        self.0.as_of
    }

    /// All instances, sorted by id.
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.0.instances
    }

    /// The instance with this id.
    pub fn get(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.0.instances.get(self.index_of(id)?)
    }

    /// The instance as `known` has it, if there is an equal one, so that sets share what did not change and are compared fast. For
    /// authors of backends.
    pub fn share(known: Option<&Self>, instance: Instance) -> Arc<Instance> {
        let same = known.and_then(|known| known.get(instance.id()));
        match same.filter(|same| ***same == instance) {
            Some(same) => Arc::clone(same),
            None => Arc::new(instance),
        }
    }

    fn index_of(&self, id: &InstanceId) -> Option<usize> {
        self.place_of(id).ok()
    }

    /// Where the instance with this id is, or would be.
    fn place_of(&self, id: &InstanceId) -> Result<usize, usize> {
        let instances = &self.0.instances;
        instances.binary_search_by(|instance| instance.id().cmp(id))
    }

    /// The place of an instance's record in the order in which the source's records were made: a larger one was made later.
    /// `None` if the source cannot say it.
    pub fn run_order(&self, id: &InstanceId) -> Option<u64> {
        match self.0.made.get(self.index_of(id)?) {
            Some(Some(Made::At(place))) => Some(*place),
            _ => None,
        }
    }

    /// Instances that were withdrawn on purpose since the previous set.
    pub fn withdrawn(&self) -> &[InstanceId] {
        &self.0.withdrawn
    }

    /// Entries that could not be read: the first of them, at most [`MOST_SKIPPED`](Self::MOST_SKIPPED).
    pub fn skipped(&self) -> &[Skipped] {
        &self.0.skipped
    }

    /// How many entries could not be read.
    pub fn skipped_count(&self) -> usize {
        self.0.skipped_count
    }

    /// Instances that the source no longer lists but that stay in the set, because too many vanished at once.
    pub fn held(&self) -> &[InstanceId] {
        &self.0.held
    }

    /// Whether there are no instances.
    pub fn is_empty(&self) -> bool {
        self.0.instances.is_empty()
    }

    /// How many instances there are.
    pub fn len(&self) -> usize {
        self.0.instances.len()
    }

    /// Whether readers see the same: equal instances, skipped entries and held entries. Position and age may differ.
    pub fn is_same_set(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.0.instances, &other.0.instances)
            || self.0.instances == other.0.instances)
            && self.0.skipped == other.0.skipped
            && self.0.skipped_count == other.0.skipped_count
            && self.0.held == other.0.held
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("service", &self.0.service)
            .field("revision", &self.0.revision)
            .field("instances", &self.0.instances)
            .field("withdrawn", &self.0.withdrawn)
            .field("skipped", &self.0.skipped)
            .field("held", &self.0.held)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instance(id: &str, port: u16) -> Arc<Instance> {
        let id = InstanceId::new(id).unwrap();
        Arc::new(Instance::new("s", format!("h:{port}")).unwrap().with_id(id))
    }

    #[test]
    fn is_sorted_by_id_and_the_last_of_two_with_one_id_stays() {
        let service = ServiceName::new("s").unwrap();
        let list = vec![instance("b", 1), instance("a", 2), instance("b", 3)];
        let snapshot = Snapshot::new(service, Revision::new("d", 1), Moment::ZERO, list);
        let seen: Vec<_> = snapshot
            .instances()
            .iter()
            .map(|i| (i.id().as_str(), i.endpoint().port()))
            .collect();
        assert_eq!(seen, [("a", Some(2)), ("b", Some(3))]);
        assert!(snapshot.get(&InstanceId::new("b").unwrap()).is_some());
        assert!(snapshot.get(&InstanceId::new("c").unwrap()).is_none());
    }

    #[test]
    fn however_much_cannot_be_read_little_is_kept_of_it() {
        let garbage = "\u{1b}".repeat(1 << 16);
        let entries = (0..10_000).map(|n| Skipped::new(format!("{n:05}{garbage}"), &garbage));
        let first: Vec<_> = entries.take(200).collect();
        assert!(
            first
                .iter()
                .all(|one| one.key.len() <= 1024 && one.reason.len() <= 256)
        );
        let snapshot = Snapshot::unread(ServiceName::new("s").unwrap(), Moment::ZERO);
        let snapshot = snapshot.with_skipped(first);
        assert_eq!(snapshot.skipped().len(), Snapshot::MOST_SKIPPED);
        assert!(snapshot.skipped()[0].key.starts_with("00000"));
        assert_eq!(snapshot.skipped_count(), 200);
        let all = snapshot.clone().with_skipped_count(10_000);
        assert_eq!((all.skipped().len(), all.skipped_count()), (100, 10_000));
        assert!(!all.is_same_set(&snapshot));
    }

    fn ordered(records: Vec<(Arc<Instance>, u64)>) -> Snapshot {
        let service = ServiceName::new("s").unwrap();
        Snapshot::ordered(service, Revision::new("d", 1), Moment::ZERO, records)
    }

    #[test]
    fn what_has_not_changed_is_shared_and_keeps_its_place_in_the_order_of_records() {
        let [a, b, c] = [("a", 1), ("b", 2), ("c", 3)].map(|(id, port)| instance(id, port));
        let set = ordered(vec![(Arc::clone(&a), 7), (b, 8), (Arc::clone(&c), 9)]);
        let id = |id: &str| InstanceId::new(id).unwrap();
        let new = instance("bb", 4);
        let changes = [(id("b"), None), (id("bb"), Some((Arc::clone(&new), 5)))];
        let set = set.with_changes(changes.into());
        let same = |(one, other): (&Arc<Instance>, &Arc<Instance>)| Arc::ptr_eq(one, other);
        assert!(set.instances().iter().zip(&[a, new, c]).all(same));
        assert_eq!(
            ["a", "b", "bb", "c"].map(|one| set.run_order(&id(one))),
            [Some(7), None, Some(5), Some(9)]
        );
        // The source of these does not say when they were made.
        let set = ordered(Vec::new()).with_instances(vec![instance("a", 1)]);
        let set = set.with_changes([(id("b"), Some((instance("b", 2), 1)))].into());
        assert_eq!((set.len(), set.run_order(&id("a"))), (2, None));
        assert_eq!(set.run_order(&id("b")), Some(1));
    }

    fn records() -> impl Strategy<Value = BTreeMap<String, Option<(u16, u64)>>> {
        let record = prop::option::of((1..4u16, 0..9u64));
        prop::collection::btree_map("[a-e]{1,2}", record, 0..12)
    }

    proptest! {
        #[test]
        fn a_set_with_changes_is_that_of_all_records_as_they_are_now(
            before in records(),
            changes in records(),
        ) {
            let instances = |records: &BTreeMap<String, Option<(u16, u64)>>| {
                let records = records.iter();
                let records = records.map(|(id, record)| {
                    let record = record.map(|(port, made)| (instance(id, port), made));
                    (InstanceId::new(id).unwrap(), record)
                });
                records.collect::<BTreeMap<_, _>>()
            };
            let mut all = instances(&before);
            let set = ordered(all.values().flatten().cloned().collect());
            let changes = instances(&changes);
            all.extend(changes.clone());
            let expected = ordered(all.values().flatten().cloned().collect());
            let set = set.with_changes(changes);
            prop_assert!(set.records().eq(expected.records()));
        }
    }

    #[test]
    fn revisions_are_ordered_only_inside_one_domain() {
        assert!(Revision::new("a", 1) < Revision::new("a", 2));
        assert_eq!(
            Revision::new("a", 1).partial_cmp(&Revision::new("b", 2)),
            None
        );
    }
}
