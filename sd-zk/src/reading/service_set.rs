//! The records of one service as a reader of ZooKeeper builds them up: node by node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sd_backend::{Changes, Record};
use sd_core::clock::Moment;
use sd_core::{
    Error, ErrorKind, Instance, InstanceId, Result, Revision, ServiceName, Skipped, Snapshot, brief,
};
use zookeeper_client::Stat;

use crate::codec::{Origin, decode};

/// The records of one service. Unchanged instances stay the same `Arc`, so that comparing sets is cheap.
#[derive(Debug)]
pub(crate) struct ServiceSet {
    service: ServiceName,
    /// The path of its folder.
    folder: String,
    /// By the names of their nodes: two may have one id.
    listed: BTreeMap<Box<str>, Listed>,
    /// What cannot be read: why, by the name of the node.
    skipped: BTreeMap<Box<str>, String>,
    /// What we may not read.
    refused: BTreeSet<Box<str>>,
    /// Withdrawn on purpose since the last snapshot.
    withdrawn: Vec<InstanceId>,
    /// The last change that is known of here.
    zxid: i64,
    changed: bool,
    /// Among those that are listed, since the last snapshot.
    changes: Changes,
}

/// An instance in service.
#[derive(Debug)]
struct Listed {
    instance: Arc<Instance>,
    czxid: i64,
}

impl ServiceSet {
    pub(crate) fn new(service: ServiceName, folder: String) -> Self {
        Self {
            service,
            folder,
            listed: BTreeMap::new(),
            skipped: BTreeMap::new(),
            refused: BTreeSet::new(),
            withdrawn: Vec::new(),
            zxid: 0,
            changed: false,
            changes: Changes::default(),
        }
    }

    /// Takes a node as it is now. Instances equal to one of `known` share its memory.
    pub(crate) fn put(&mut self, node: &str, data: &[u8], stat: &Stat, known: Option<&Snapshot>) {
        self.note(stat.mzxid);
        self.refused.remove(node);
        let origin = Origin {
            node,
            czxid: stat.czxid,
            session: stat.ephemeral_owner,
        };
        match decode(&self.service, &origin, data) {
            Ok(Record::Live(instance)) => self.insert(node, instance, stat.czxid, known),
            Ok(Record::Withdrawn(instance)) => {
                self.forget(node);
                self.withdrawn.push(instance.id().clone());
            }
            Err(reason) => self.skip(node, reason),
        }
    }

    fn insert(&mut self, node: &str, instance: Instance, czxid: i64, known: Option<&Snapshot>) {
        self.changed |= self.skipped.remove(node).is_some();
        let before = self.listed.get(node);
        if before.is_some_and(|before| *before.instance == instance && before.czxid == czxid) {
            return;
        }
        self.unlist(node);
        let instance = Snapshot::share(known, instance);
        self.changes.put(Arc::clone(&instance), made(czxid));
        self.listed.insert(node.into(), Listed { instance, czxid });
        self.changed = true;
    }

    fn unlist(&mut self, node: &str) {
        if let Some(listed) = self.listed.remove(node) {
            self.changes.remove(&listed.instance);
            self.changed = true;
        }
    }

    fn skip(&mut self, node: &str, reason: impl AsRef<str>) {
        self.unlist(node);
        let reason = brief(reason.as_ref());
        if self.skipped.get(node) != Some(&reason) {
            self.skipped.insert(node.into(), reason);
            self.changed = true;
        }
    }

    /// Notes that the server does not let us read a node.
    pub(crate) fn refuse(&mut self, node: &str) {
        self.refused.insert(node.into());
        self.skip(
            node,
            "the server does not let us read it: look at its access control list",
        );
    }

    /// An empty set that rights alone have emptied is none.
    pub(crate) fn check_rights(&self, op: &'static str) -> Result<()> {
        if self.refused.is_empty() || !self.listed.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Denied, op).because(format!(
            "the server lets us read none of the {} records in {}: look at their access control lists",
            self.refused.len(),
            self.folder
        )))
    }

    /// Forgets a node that is gone.
    pub(crate) fn forget(&mut self, node: &str) {
        self.refused.remove(node);
        self.changed |= self.skipped.remove(node).is_some();
        self.unlist(node);
    }

    /// Forgets a node that is gone on purpose.
    pub(crate) fn withdraw(&mut self, node: &str) {
        if let Some(listed) = self.listed.get(node) {
            self.withdrawn.push(listed.instance.id().clone());
        }
        self.forget(node);
    }

    /// Notes that a change is known of.
    pub(crate) fn note(&mut self, zxid: i64) {
        self.zxid = self.zxid.max(zxid);
    }

    /// Whether the set differs from the last snapshot that was taken.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The last change that is known of here, in the history that one session has seen.
    pub(crate) fn revision(&self, session: i64) -> Revision {
        Revision::new(format!("{session:#x}"), self.zxid.max(0).cast_unsigned())
    }

    /// The set as one session has seen it.
    pub(crate) fn snapshot(&mut self, session: i64, as_of: Moment) -> Snapshot {
        self.changed = false;
        let at = (self.revision(session), as_of);
        let listed = &self.listed;
        let read_all = || {
            // Of two with one id the later one is listed.
            let mut records: Vec<_> = listed.values().collect();
            records.sort_by_key(|listed| listed.czxid);
            let records = records.into_iter();
            records
                .map(|one| (Arc::clone(&one.instance), made(one.czxid)))
                .collect()
        };
        let set = self
            .changes
            .next_set(&self.service, at, listed.len(), read_all);
        // The others are counted.
        let named = self.skipped.iter().take(Snapshot::MOST_SKIPPED);
        let mut skipped: Vec<_> = named
            .map(|(node, reason)| Skipped::new(self.path(node), reason))
            .collect();
        let mut count = self.skipped.len();
        if set.len() < self.listed.len() {
            let outdone = self.listed.iter().filter(|(_, listed)| {
                let shown = set.get(listed.instance.id());
                shown.is_some_and(|shown| !Arc::ptr_eq(shown, &listed.instance))
            });
            let outdone: Vec<_> = outdone.collect();
            count += outdone.len();
            skipped.extend(outdone.into_iter().map(|(node, listed)| {
                let id = listed.instance.id();
                let reason = format!("another record of the service has the id {id:?}, too");
                Skipped::new(self.path(node), reason)
            }));
        }
        // One that is there again, as another run, is not gone.
        self.withdrawn.retain(|id| set.get(id).is_none());
        set.with_withdrawn(std::mem::take(&mut self.withdrawn))
            .with_skipped(skipped)
            .with_skipped_count(count)
    }

    fn path(&self, node: &str) -> String {
        format!("{}/{node}", self.folder)
    }
}

/// The place of a record in the order in which records were made.
fn made(czxid: i64) -> u64 {
    czxid.max(0).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sd_core::{Incarnation, Override};

    use super::*;
    use crate::codec::curator::{self, Style};

    fn empty() -> ServiceSet {
        ServiceSet::new(ServiceName::new("s").unwrap(), "/p/s".to_owned())
    }

    fn stat(zxid: i64) -> Stat {
        Stat {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: 0,
            mtime: 0,
            version: 0,
            cversion: 0,
            aversion: 0,
            ephemeral_owner: 0,
            data_length: 0,
            num_children: 0,
        }
    }

    fn data(instance: &Instance) -> Vec<u8> {
        curator::encode(instance, &Style::default(), 7).unwrap()
    }

    fn taken(set: &mut ServiceSet) -> Snapshot {
        set.snapshot(1, Moment::ZERO)
    }

    #[test]
    fn what_did_not_change_stays_the_same_arc_also_across_feeds() {
        let mut first = empty();
        first.put("a", b"h:1", &stat(1), None);
        first.put("b", b"h:2", &stat(2), None);
        let before = taken(&mut first);
        assert_eq!(before.revision().value(), 2);
        first.put("a", b"h:1", &stat(1), None);
        assert!(!first.is_changed());
        first.put("b", b"h:3", &stat(2), None);
        assert!(first.is_changed());
        let after = taken(&mut first);
        assert!(Arc::ptr_eq(&before.instances()[0], &after.instances()[0]));
        let mut next = empty();
        next.put("a", b"h:1", &stat(1), Some(&after));
        let again = taken(&mut next);
        assert!(Arc::ptr_eq(&after.instances()[0], &again.instances()[0]));
    }

    #[test]
    fn what_becomes_unreadable_is_replaced_by_its_reason_and_comes_back() {
        let mut set = empty();
        set.put("a", b"h:1", &stat(1), None);
        set.put("b", b"h:2", &stat(2), None);
        taken(&mut set);
        set.put("a", b"nonsense", &stat(3), None);
        let broken = taken(&mut set);
        assert_eq!((broken.len(), broken.skipped().len()), (1, 1));
        assert_eq!(broken.skipped()[0].key, "/p/s/a");
        set.put("a", b"nonsense", &stat(3), None);
        assert!(!set.is_changed());
        set.put("a", b"h:1", &stat(4), None);
        let mended = taken(&mut set);
        assert_eq!((mended.len(), mended.skipped().len()), (2, 0));
    }

    #[test]
    fn of_much_garbage_little_is_kept_and_all_is_counted() {
        let mut set = empty();
        let garbage = format!(r#"{{"port":1,"address":"{}"}}"#, "ö".repeat(1 << 15));
        for n in 0..300 {
            set.put(&format!("{n:03}"), garbage.as_bytes(), &stat(n), None);
        }
        let kept: usize = set.skipped.values().map(String::len).sum();
        assert!(kept <= 300 * 256, "{kept}");
        let seen = taken(&mut set);
        assert_eq!((seen.skipped().len(), seen.skipped_count()), (100, 300));
        set.forget("299");
        assert!(set.is_changed());
        assert_eq!(taken(&mut set).skipped_count(), 299);
    }

    #[test]
    fn what_is_withdrawn_is_named_once_whether_its_mark_was_seen_or_not() {
        let mut set = empty();
        let seen = Instance::new("s", "h:1").unwrap();
        let unseen = Instance::new("s", "h:2").unwrap();
        set.put("a", &data(&seen), &stat(1), None);
        set.put("b", &data(&unseen), &stat(2), None);
        assert_eq!(taken(&mut set).len(), 2);
        let mark = curator::mark_withdrawn(&data(&seen)).unwrap();
        set.put("a", &mark, &stat(3), None);
        set.withdraw("b");
        let gone = taken(&mut set);
        assert_eq!(gone.len(), 0);
        assert_eq!(gone.withdrawn(), [seen.id().clone(), unseen.id().clone()]);
        set.withdraw("a");
        set.forget("b");
        assert!(!set.is_changed());
        assert!(taken(&mut set).withdrawn().is_empty());
    }

    #[test]
    fn what_is_there_again_is_not_named_as_withdrawn() {
        let mut set = empty();
        let one = Instance::new("s", "h:1").unwrap();
        set.put("a", &data(&one), &stat(1), None);
        assert_eq!(taken(&mut set).len(), 1);
        set.withdraw("a");
        let next = one.with_incarnation(sd_core::Incarnation::random());
        set.put("b", &data(&next), &stat(2), None);
        let again = taken(&mut set);
        assert_eq!((again.len(), again.withdrawn()), (1, &[][..]));
    }

    #[test]
    fn an_override_in_the_record_decides() {
        let ours = Instance::new("s", "h:1").unwrap();
        let mut set = empty();
        let drained = curator::set_override(&data(&ours), Some(Override::Draining)).unwrap();
        set.put("a", &drained, &stat(1), None);
        let seen = taken(&mut set);
        assert_eq!(seen.instances()[0].overridden(), Some(Override::Draining));
        assert!(!seen.instances()[0].is_ready());
    }

    #[test]
    fn of_two_records_with_one_id_the_later_is_listed_and_the_other_named_until_it_is_alone() {
        let mut set = empty();
        let first = Instance::new("s", "h:1").unwrap();
        let second = Instance::new("s", "h:2")
            .unwrap()
            .with_id(first.id().clone());
        set.put("x", &data(&second), &stat(2), None);
        set.put("y", &data(&first), &stat(1), None);
        let seen = taken(&mut set);
        assert_eq!(seen.instances(), [Arc::new(second)]);
        assert_eq!(seen.skipped()[0].key, "/p/s/y");
        set.forget("x");
        let left = taken(&mut set);
        assert_eq!(left.instances(), [Arc::new(first)]);
        assert_eq!(left.skipped(), []);
    }

    /// Of a node: that it has the record of this id and port, or garbage, or is gone; and whether a set is taken then.
    type Step = (u8, Option<Option<(u8, u16)>>, bool);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let record = prop::option::weighted(0.8, (0..4u8, 1..3u16));
        let stored = prop::option::weighted(0.7, record);
        prop::collection::vec((0..4u8, stored, any::<bool>()), 0..30)
    }

    proptest! {
        #[test]
        fn whatever_changes_the_set_is_what_is_stored(steps in steps()) {
            let mut followed = empty();
            let mut stored = BTreeMap::new();
            for (zxid, (node, now, takes)) in (1..).zip(steps) {
                let node = format!("n{node}");
                match now {
                    None => {
                        stored.remove(&node);
                        followed.forget(&node);
                    }
                    Some(record) => {
                        let data = record.map_or(b"nonsense".to_vec(), |(id, port)| {
                            let id = InstanceId::new(format!("i{id}")).unwrap();
                            let instance = Instance::new("s", format!("h:{port}")).unwrap();
                            data(&instance.with_id(id).with_incarnation(Incarnation::from_u64(1)))
                        });
                        // One that is there is changed, and stays as old as it is.
                        let created = stored.get(&node).map_or(zxid, |(_, created)| *created);
                        followed.put(&node, &data, &stat(created), None);
                        stored.insert(node, (data, created));
                    }
                }
                if takes {
                    let mut read = empty();
                    for (node, (data, created)) in &stored {
                        read.put(node, data, &stat(*created), None);
                    }
                    let (seen, expected) = (taken(&mut followed), taken(&mut read));
                    prop_assert!(seen.is_same_set(&expected), "{seen:?} {expected:?}");
                    for instance in seen.instances() {
                        let id = instance.id();
                        prop_assert_eq!(seen.run_order(id), expected.run_order(id));
                    }
                }
            }
        }
    }
}
