//! The records of one service as a reader of etcd builds them up: key by key, from a range or from watch events.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use sd_core::clock::Moment;
use sd_core::{Instance, InstanceId, Revision, ServiceName, Skipped, Snapshot};

use crate::client::answer::Position;
use crate::codec::{Origin, Record, decode};

/// The records under one service's prefix. Unchanged instances stay the same `Arc`, so that comparing sets is cheap.
#[derive(Debug)]
pub(crate) struct ServiceSet {
    service: ServiceName,
    /// `<prefix>/<service>/`
    prefix: String,
    instances: BTreeMap<InstanceId, Listed>,
    /// What cannot be read: why, by key.
    skipped: BTreeMap<String, String>,
    /// Withdrawn on purpose since the last snapshot.
    withdrawn: Vec<InstanceId>,
    changed: bool,
}

/// An instance in service.
#[derive(Debug)]
struct Listed {
    instance: Arc<Instance>,
    create_revision: i64,
}

impl ServiceSet {
    pub(crate) fn new(service: ServiceName, prefix: String) -> Self {
        Self {
            service,
            prefix,
            instances: BTreeMap::new(),
            skipped: BTreeMap::new(),
            withdrawn: Vec::new(),
            changed: false,
        }
    }

    /// Takes a record as it is now. Instances equal to one of `known` share its memory.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        origin: Origin,
        known: Option<&Snapshot>,
    ) {
        let read = match self.id_of(key) {
            Some(id) => decode(&self.service, id, value, origin),
            None => Err("the key is not UTF-8".to_owned()),
        };
        let record = match read {
            Ok(record) => record,
            Err(reason) => return self.skip(key, reason),
        };
        self.changed |= self.skipped.remove(&*text(key)).is_some();
        match record {
            Record::Live(instance) => self.insert(instance, origin.create_revision, known),
            Record::Withdrawn(instance) => {
                self.changed |= self.instances.remove(instance.id()).is_some();
                self.withdrawn.push(instance.id().clone());
            }
        }
    }

    fn insert(&mut self, instance: Instance, create_revision: i64, known: Option<&Snapshot>) {
        let before = self.instances.get(instance.id());
        if before.is_some_and(|before| {
            *before.instance == instance && before.create_revision == create_revision
        }) {
            return;
        }
        let known = known.and_then(|known| known.get(instance.id()));
        let shared = match known.filter(|known| ***known == instance) {
            Some(known) => Arc::clone(known),
            None => Arc::new(instance),
        };
        let listed = Listed {
            instance: Arc::clone(&shared),
            create_revision,
        };
        self.instances.insert(shared.id().clone(), listed);
        self.changed = true;
    }

    fn skip(&mut self, key: &[u8], reason: String) {
        if let Some(id) = self.id_of(key) {
            self.changed |= self.instances.remove(id).is_some();
        }
        let key = text(key).into_owned();
        if self.skipped.get(&key) != Some(&reason) {
            self.skipped.insert(key, reason);
            self.changed = true;
        }
    }

    /// Forgets a key that was deleted.
    pub(crate) fn delete(&mut self, key: &[u8]) {
        self.changed |= self.skipped.remove(&*text(key)).is_some();
        if let Some(id) = self.id_of(key) {
            self.changed |= self.instances.remove(id).is_some();
        }
    }

    /// Whether the set differs from the last snapshot that was taken.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The set as of `position`.
    pub(crate) fn snapshot(&mut self, position: Position, as_of: Moment) -> Snapshot {
        self.changed = false;
        let listed = self.instances.values();
        let records = listed.map(|listed| {
            let made = listed.create_revision.max(0).cast_unsigned();
            (Arc::clone(&listed.instance), made)
        });
        let skipped = self
            .skipped
            .iter()
            .map(|(key, reason)| Skipped {
                key: key.clone(),
                reason: reason.clone(),
            })
            .collect();
        let at = revision(position);
        Snapshot::ordered(self.service.clone(), at, as_of, records.collect())
            .with_withdrawn(std::mem::take(&mut self.withdrawn))
            .with_skipped(skipped)
    }

    fn id_of<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(key)
            .ok()?
            .strip_prefix(self.prefix.as_str())
    }
}

/// A position as core sees it: revisions are ordered within one cluster.
pub(crate) fn revision(position: Position) -> Revision {
    Revision::new(position.domain(), position.revision.max(0).cast_unsigned())
}

fn text(key: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position {
        cluster: 1,
        revision: 7,
    };

    fn empty() -> ServiceSet {
        ServiceSet::new(ServiceName::new("s").unwrap(), "/p/s/".to_owned())
    }

    fn put(set: &mut ServiceSet, key: &[u8], value: &[u8], known: Option<&Snapshot>) {
        let origin = Origin {
            lease: 1,
            create_revision: 1,
        };
        set.put(key, value, origin, known);
    }

    fn taken(set: &mut ServiceSet) -> Snapshot {
        set.snapshot(AT, Moment::ZERO)
    }

    #[test]
    fn what_did_not_change_stays_the_same_arc_also_across_feeds() {
        let mut first = empty();
        put(&mut first, b"/p/s/a", b"h:1", None);
        put(&mut first, b"/p/s/b", b"h:2", None);
        let before = taken(&mut first);
        assert!(!first.is_changed());
        put(&mut first, b"/p/s/a", b"h:1", None);
        assert!(!first.is_changed());
        put(&mut first, b"/p/s/b", b"h:3", None);
        assert!(first.is_changed());
        let after = taken(&mut first);
        let same = |a: &Snapshot, b: &Snapshot, at: usize| {
            Arc::ptr_eq(&a.instances()[at], &b.instances()[at])
        };
        assert!(same(&before, &after, 0) && !same(&before, &after, 1));

        let mut second = empty();
        put(&mut second, b"/p/s/a", b"h:1", Some(&after));
        put(&mut second, b"/p/s/b", b"h:4", Some(&after));
        let again = taken(&mut second);
        assert!(same(&after, &again, 0) && !same(&after, &again, 1));
    }

    #[test]
    fn a_record_that_breaks_leaves_the_set_and_comes_back_when_it_is_mended() {
        let mut set = empty();
        put(&mut set, b"/p/s/a", b"h:1", None);
        put(&mut set, b"/p/s/b", b"h:2", None);
        taken(&mut set);
        put(&mut set, b"/p/s/a", b"nonsense", None);
        let broken = taken(&mut set);
        assert_eq!((broken.len(), broken.skipped().len()), (1, 1));
        assert_eq!(broken.skipped()[0].key, "/p/s/a");
        put(&mut set, b"/p/s/a", b"nonsense", None);
        assert!(!set.is_changed());
        put(&mut set, b"/p/s/a", b"h:1", None);
        let mended = taken(&mut set);
        assert_eq!((mended.len(), mended.skipped().len()), (2, 0));
    }

    #[test]
    fn a_key_that_is_not_text_is_skipped_until_it_is_deleted() {
        let mut set = empty();
        put(&mut set, b"/p/s/\xff", b"h:1", None);
        assert_eq!(taken(&mut set).skipped().len(), 1);
        set.delete(b"/p/s/\xff");
        assert!(set.is_changed());
        assert!(taken(&mut set).skipped().is_empty());
        set.delete(b"/p/s/never-seen");
        assert!(!set.is_changed());
    }

    #[test]
    fn what_is_withdrawn_is_named_once_and_its_deletion_changes_nothing() {
        let mut set = empty();
        let instance = Instance::new("s", "h:1").unwrap();
        let key = format!("/p/s/{}", instance.id()).into_bytes();
        put(
            &mut set,
            &key,
            &serde_json::to_vec(&instance).unwrap(),
            None,
        );
        assert_eq!(taken(&mut set).len(), 1);
        put(
            &mut set,
            &key,
            &crate::codec::json::encode_withdrawn(&instance).unwrap(),
            None,
        );
        let gone = taken(&mut set);
        assert_eq!(
            (gone.len(), gone.withdrawn()),
            (0, &[instance.id().clone()][..])
        );
        set.delete(&key);
        assert!(!set.is_changed());
        assert!(taken(&mut set).withdrawn().is_empty());
    }
}
