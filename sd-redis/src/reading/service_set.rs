//! The records of one service as a reader builds them up: from a full read, and from what is told of changes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sd_backend::{Changes, Record, Unread};
use sd_core::clock::Moment;
use sd_core::{Instance, InstanceId, Revision, ServiceName, Snapshot};

use crate::codec::value::{Stored, decode};

/// The records of one service. Unchanged instances stay the same `Arc`, so that comparing sets is cheap.
#[derive(Debug)]
pub(crate) struct ServiceSet {
    service: ServiceName,
    /// Where the records are, for what is named.
    place: String,
    listed: BTreeMap<InstanceId, Listed>,
    /// Entries that are there and are not shown.
    hidden: HashSet<Box<[u8]>>,
    skipped: Unread,
    /// Withdrawn on purpose since the last snapshot.
    withdrawn: Vec<InstanceId>,
    changed: bool,
    changes: Changes,
}

#[derive(Debug)]
struct Listed {
    instance: Arc<Instance>,
    made: u64,
}

impl ServiceSet {
    /// An empty set, whose records are in the hash at `place`.
    pub(crate) fn new(service: ServiceName, place: &str) -> Self {
        Self {
            service,
            place: place.to_owned(),
            listed: BTreeMap::new(),
            hidden: HashSet::new(),
            skipped: Unread::default(),
            withdrawn: Vec::new(),
            changed: false,
            changes: Changes::default(),
        }
    }

    /// Takes an entry as it is now. Instances equal to one of `known` share its memory.
    pub(crate) fn put(&mut self, id: &[u8], value: &[u8], known: Option<&Snapshot>) {
        let stored = match decode(&self.service, id, value) {
            Ok(stored) => stored,
            Err(reason) => {
                self.remove_listed(id);
                self.hidden.remove(id);
                self.changed |= self.skipped.add(&self.name(id), &reason);
                return;
            }
        };
        let Stored::Record { record, made } = stored else {
            self.hide(id);
            return;
        };
        match record {
            Record::Live(instance) => {
                self.changed |= self.skipped.remove(&self.name(id));
                self.hidden.remove(id);
                self.insert(instance, made, known);
            }
            Record::Withdrawn(instance) => {
                self.withdrawn.push(instance.id().clone());
                self.hide(id);
            }
        }
    }

    fn insert(&mut self, instance: Instance, made: u64, known: Option<&Snapshot>) {
        // One that is there again has not been withdrawn.
        self.withdrawn
            .retain(|withdrawn| withdrawn != instance.id());
        let before = self.listed.get(instance.id());
        if before.is_some_and(|before| *before.instance == instance && before.made == made) {
            return;
        }
        let id = instance.id().clone();
        let instance = Snapshot::share(known, instance);
        self.changes.put(Arc::clone(&instance), made);
        self.listed.insert(id, Listed { instance, made });
        self.changed = true;
    }

    /// Counts an entry that is there and not shown: it has ended, is withdrawn, or only says that there is no record.
    pub(crate) fn hide(&mut self, id: &[u8]) {
        self.remove_listed(id);
        self.changed |= self.skipped.remove(&self.name(id));
        self.hidden.insert(id.into());
    }

    /// Forgets an entry that is not there any more.
    pub(crate) fn end(&mut self, id: &[u8]) {
        self.remove_listed(id);
        self.changed |= self.skipped.remove(&self.name(id));
        self.hidden.remove(id);
    }

    /// Names a key that cannot be read at all.
    pub(crate) fn skip_key(&mut self, key: &str, reason: &str) {
        self.changed |= self.skipped.add(key, reason);
    }

    fn remove_listed(&mut self, id: &[u8]) {
        let id = std::str::from_utf8(id).ok();
        let id = id.and_then(|id| InstanceId::new(id).ok());
        if let Some(listed) = id.and_then(|id| self.listed.remove(&id)) {
            self.changes.remove(&listed.instance);
            self.changed = true;
        }
    }

    /// What an entry is called where it cannot be read.
    fn name(&self, id: &[u8]) -> String {
        let id: Cow<'_, str> = match std::str::from_utf8(id) {
            Ok(id) => id.into(),
            Err(_) => id.escape_ascii().to_string().into(),
        };
        format!("{} {id}", self.place)
    }

    /// How many entries the server has, as far as is known here.
    pub(crate) fn entries(&self) -> usize {
        self.listed.len() + self.hidden.len() + self.skipped.count()
    }

    /// Whether the set differs from the last snapshot that was taken.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The set as of `revision`.
    pub(crate) fn snapshot(&mut self, revision: Revision, as_of: Moment) -> Snapshot {
        self.changed = false;
        let listed = &self.listed;
        let read_all = || {
            let all = listed.values();
            all.map(|listed| (Arc::clone(&listed.instance), listed.made))
                .collect()
        };
        let at = (revision, as_of);
        self.changes
            .next_set(&self.service, at, self.listed.len(), read_all)
            .with_withdrawn(std::mem::take(&mut self.withdrawn))
            .with_skipped(self.skipped.named())
            .with_skipped_count(self.skipped.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::value::encode;

    fn set() -> ServiceSet {
        ServiceSet::new(ServiceName::new("s").unwrap(), "p:{s}:records")
    }

    fn instance(port: u16) -> Instance {
        Instance::new("s", format!("h:{port}")).unwrap()
    }

    fn put(set: &mut ServiceSet, kind: &str, instance: &Instance, made: u64) {
        let json = encode("test", instance).unwrap();
        let line = format!("{kind} {} 1 {made} - ", instance.incarnation());
        let id = instance.id().as_str().as_bytes();
        set.put(id, &[line.as_bytes(), &json].concat(), None);
    }

    fn snapshot(set: &mut ServiceSet) -> Snapshot {
        set.snapshot(Revision::new("h", 1), Moment::ZERO)
    }

    #[test]
    fn what_is_withdrawn_is_told_once_and_counted_until_it_ends() {
        let mut set = set();
        let (one, two) = (instance(1), instance(2));
        put(&mut set, "live", &one, 1);
        put(&mut set, "live", &two, 2);
        let first = snapshot(&mut set);
        assert_eq!((first.len(), first.run_order(two.id())), (2, Some(2)));
        put(&mut set, "live", &one, 1);
        assert!(!set.is_changed());
        put(&mut set, "gone", &one, 1);
        assert_eq!(set.entries(), 2);
        let second = snapshot(&mut set);
        assert_eq!(second.withdrawn(), [one.id().clone()]);
        set.end(one.id().as_str().as_bytes());
        assert!(!set.is_changed() && set.entries() == 1);
        assert!(snapshot(&mut set).withdrawn().is_empty());
        set.hide(two.id().as_str().as_bytes());
        assert!(set.is_changed() && set.entries() == 1);
        assert!(snapshot(&mut set).is_empty());
        let three = instance(3);
        let mark = format!("none {} 1 0 - ", three.incarnation());
        set.put(three.id().as_str().as_bytes(), mark.as_bytes(), None);
        assert!(!set.is_changed() && set.entries() == 2);
        assert!(snapshot(&mut set).withdrawn().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named_until_it_can_be_or_is_gone() {
        let mut set = set();
        let one = instance(1);
        put(&mut set, "live", &one, 1);
        let id = one.id().as_str().as_bytes();
        set.put(id, b"garbage", None);
        set.put(b"\xff", b"garbage", None);
        assert_eq!(set.entries(), 2);
        let read = snapshot(&mut set);
        assert!(read.is_empty());
        let named = read.skipped();
        assert_eq!(named[1].key, format!("p:{{s}}:records {}", one.id()));
        assert_eq!(named[0].key, "p:{s}:records \\xff");
        set.put(b"\xff", b"garbage", None);
        assert!(!set.is_changed());
        put(&mut set, "live", &one, 1);
        set.end(b"\xff");
        let read = snapshot(&mut set);
        assert_eq!((read.len(), read.skipped_count()), (1, 0));
    }

    #[test]
    fn of_much_that_cannot_be_read_little_is_kept_and_all_is_counted() {
        let mut set = set();
        for n in 0..500 {
            set.put(format!("{n}").as_bytes(), &vec![b'x'; 10_000], None);
        }
        let read = snapshot(&mut set);
        assert_eq!(
            (read.skipped().len(), read.skipped_count()),
            (Snapshot::MOST_SKIPPED, 500)
        );
        assert!(
            read.skipped()
                .iter()
                .all(|skipped| skipped.reason.len() <= 256)
        );
    }
}
