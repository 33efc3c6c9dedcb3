//! The records of one service as a reader of etcd builds them up: key by key, from a range or from watch events.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use etcd_client::KeyValue;
use sd_core::{Instance, InstanceId, Moment, Revision, ServiceName, Skipped, Snapshot};

use crate::client::Position;
use crate::codec::{Origin, Record, decode};

/// The entries under one service's prefix. Unchanged instances stay the same `Arc`, so that comparing sets is cheap.
#[derive(Debug)]
pub(crate) struct Entries {
    service: ServiceName,
    /// `<prefix>/<service>/`
    prefix: String,
    instances: BTreeMap<InstanceId, Arc<Instance>>,
    /// What cannot be read: why, by key.
    skipped: BTreeMap<String, String>,
    /// Withdrawn on purpose since the last snapshot.
    withdrawn: Vec<InstanceId>,
    changed: bool,
}

impl Entries {
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

    /// Takes an entry as it is now. Instances equal to one of `known` share its memory.
    pub(crate) fn put(&mut self, entry: &KeyValue, known: Option<&Snapshot>) {
        let origin = Origin {
            lease: entry.lease(),
            create_revision: entry.create_revision(),
        };
        let read = match self.id_of(entry.key()) {
            Some(id) => decode(&self.service, id, entry.value(), origin),
            None => Err("the key is not UTF-8".to_owned()),
        };
        let record = match read {
            Ok(record) => record,
            Err(reason) => return self.skip(entry.key(), reason),
        };
        self.changed |= self.skipped.remove(&*text(entry.key())).is_some();
        match record {
            Record::Live(instance) => self.insert(instance, known),
            Record::Withdrawn(instance) => {
                self.changed |= self.instances.remove(instance.id()).is_some();
                self.withdrawn.push(instance.id().clone());
            }
        }
    }

    fn insert(&mut self, instance: Instance, known: Option<&Snapshot>) {
        let before = self.instances.get(instance.id());
        if before.is_some_and(|before| **before == instance) {
            return;
        }
        let known = known.and_then(|known| known.get(instance.id()));
        let shared = match known.filter(|known| ***known == instance) {
            Some(known) => Arc::clone(known),
            None => Arc::new(instance),
        };
        self.instances.insert(shared.id().clone(), shared);
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
        let instances = self.instances.values().map(Arc::clone).collect();
        let skipped = self
            .skipped
            .iter()
            .map(|(key, reason)| Skipped {
                key: key.clone(),
                reason: reason.clone(),
            })
            .collect();
        Snapshot::new(self.service.clone(), revision(position), as_of, instances)
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
    Revision::new(
        format!("{:016x}", position.cluster),
        position.revision.max(0).cast_unsigned(),
    )
}

fn text(key: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(key)
}
