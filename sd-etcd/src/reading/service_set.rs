//! The records of one service as a reader of etcd builds them up: key by key, from a range or from watch events.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use sd_backend::{Changes, Record, Unread};
use sd_core::clock::Moment;
use sd_core::{Instance, InstanceId, Revision, ServiceName, Skipped, Snapshot};

use crate::client::answer::Position;
use crate::codec::overrides::{self, StoredOverride};
use crate::codec::{Folders, Origin, Place, apisix, is_json};

type Found = BTreeMap<Box<str>, Listed>;

/// The records of one service. Unchanged instances stay the same `Arc`, so that comparing sets is cheap.
#[derive(Debug)]
pub(crate) struct ServiceSet {
    service: ServiceName,
    folders: Folders,
    /// By the ends of their keys: another program may have given one of our ids.
    ours: Found,
    /// What is in the folder for plain values alone.
    plain: Found,
    /// What operators say of `ours`, by the ends of the records' keys.
    overrides: BTreeMap<Box<str>, StoredOverride>,
    skipped: Unread,
    /// Withdrawn on purpose since the last snapshot.
    withdrawn: Vec<InstanceId>,
    changed: bool,
    /// Among those that are shown, since the last snapshot.
    changes: Changes,
}

/// An instance in service.
#[derive(Debug)]
struct Listed {
    instance: Arc<Instance>,
    create_revision: i64,
}

impl Listed {
    /// The instance as readers see it.
    fn shown(&self, overriding: Option<&StoredOverride>) -> Arc<Instance> {
        match overriding.and_then(|said| said.of(&self.instance, self.create_revision)) {
            None => Arc::clone(&self.instance),
            Some(said) => Arc::new(self.instance.as_ref().clone().with_override(said)),
        }
    }

    /// The place of the record in the order in which records were made.
    fn made(&self) -> u64 {
        self.create_revision.max(0).cast_unsigned()
    }
}

impl ServiceSet {
    pub(crate) fn new(service: ServiceName, folders: Folders) -> Self {
        Self {
            service,
            folders,
            ours: Found::new(),
            plain: Found::new(),
            overrides: BTreeMap::new(),
            skipped: Unread::default(),
            withdrawn: Vec::new(),
            changed: false,
            changes: Changes::default(),
        }
    }

    /// Takes what is in another part of the same service.
    pub(crate) fn absorb(&mut self, mut part: Self) {
        self.ours.append(&mut part.ours);
        self.plain.append(&mut part.plain);
        self.overrides.append(&mut part.overrides);
        self.skipped.absorb(part.skipped);
        self.withdrawn.append(&mut part.withdrawn);
        self.changed |= part.changed;
        self.changes = Changes::default();
    }

    /// Takes a record as it is now. Instances equal to one of `known` share its memory.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        origin: Origin,
        known: Option<&Snapshot>,
    ) {
        if self.folders.has_one_key() {
            return self.put_all(key, value, origin, known);
        }
        let Some(place) = self.folders.place(key) else {
            return self.skip(key, None, "the key is not UTF-8");
        };
        if Folders::is_foreign(place, value) {
            return self.delete(key);
        }
        if let Some(record) = self.folders.overridden(place) {
            if is_json(value) {
                return self.put_override(key, place, record, value);
            }
            self.forget_override(record);
        }
        let record = match self.folders.decode(&self.service, place, value, origin) {
            Ok(record) => record,
            Err(reason) => return self.skip(key, Some(place), &reason),
        };
        self.changed |= self.skipped.remove(&text(key));
        match record {
            Record::Live(instance) => self.insert(place, instance, origin.create_revision, known),
            Record::Withdrawn(instance) => {
                self.remove(place);
                self.withdrawn.push(instance.id().clone());
            }
        }
    }

    /// Takes all instances, which one key holds.
    fn put_all(&mut self, key: &[u8], value: &[u8], origin: Origin, known: Option<&Snapshot>) {
        self.skipped = Unread::default();
        self.changes = Changes::default();
        let nodes = apisix::decode(&self.service, value, origin.run());
        let nodes = nodes.unwrap_or_else(|reason| {
            self.skip(key, None, &reason);
            apisix::Nodes::default()
        });
        for (at, reason) in nodes.skipped {
            self.skipped
                .add(&format!("{}: node {at}", text(key)), &reason);
        }
        let mut before = std::mem::take(&mut self.ours);
        for instance in nodes.instances {
            let suffix = instance.id().clone();
            if let Some(listed) = before.remove(suffix.as_str()) {
                self.ours.insert(suffix.as_str().into(), listed);
            }
            let place = Place {
                is_ours: true,
                suffix: suffix.as_str(),
            };
            self.insert(place, instance, origin.create_revision, known);
        }
        self.changed = true;
    }

    fn folder(&mut self, place: Place<'_>) -> &mut Found {
        if place.is_ours {
            &mut self.ours
        } else {
            &mut self.plain
        }
    }

    fn remove(&mut self, place: Place<'_>) {
        if let Some(listed) = self.folder(place).remove(place.suffix) {
            self.changes.remove(&listed.instance);
            self.changed = true;
        }
    }

    /// Takes what an operator says of the record whose key ends with `record`.
    fn put_override(&mut self, key: &[u8], place: Place<'_>, record: &str, value: &[u8]) {
        match overrides::decode(value) {
            Ok(overriding) => {
                self.remove(place);
                self.changed |= self.skipped.remove(&text(key));
                let before = self.overrides.insert(record.into(), overriding);
                if before != Some(overriding) {
                    self.note_override(record);
                }
            }
            Err(reason) => {
                self.forget_override(record);
                self.skip(key, Some(place), &reason);
            }
        }
    }

    fn forget_override(&mut self, record: &str) {
        if self.overrides.remove(record).is_some() {
            self.note_override(record);
        }
    }

    /// Notes that something else is said of a record than before.
    fn note_override(&mut self, record: &str) {
        self.changed = true;
        if let Some(listed) = self.ours.get(record) {
            self.changes
                .put(listed.shown(self.overrides.get(record)), listed.made());
        }
    }

    fn insert(
        &mut self,
        place: Place<'_>,
        instance: Instance,
        create_revision: i64,
        known: Option<&Snapshot>,
    ) {
        let before = self.folder(place).get(place.suffix);
        if before.is_some_and(|before| {
            *before.instance == instance && before.create_revision == create_revision
        }) {
            return;
        }
        self.remove(place);
        let listed = Listed {
            instance: Snapshot::share(known, instance),
            create_revision,
        };
        let overriding = self.overrides.get(place.suffix).filter(|_| place.is_ours);
        self.changes.put(listed.shown(overriding), listed.made());
        self.folder(place).insert(place.suffix.into(), listed);
        self.changed = true;
    }

    fn skip(&mut self, key: &[u8], place: Option<Place<'_>>, reason: &str) {
        if let Some(place) = place {
            self.remove(place);
        }
        self.changed |= self.skipped.add(&text(key), reason);
    }

    /// Forgets a key that was deleted.
    pub(crate) fn delete(&mut self, key: &[u8]) {
        if self.folders.has_one_key() {
            self.changed |= !self.ours.is_empty() || self.skipped.count() > 0;
            self.ours.clear();
            self.skipped = Unread::default();
            self.changes = Changes::default();
            return;
        }
        self.changed |= self.skipped.remove(&text(key));
        if let Some(place) = self.folders.place(key) {
            self.remove(place);
            if let Some(record) = self.folders.overridden(place) {
                self.forget_override(record);
            }
        }
    }

    /// Whether the set differs from the last snapshot that was taken.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The set as of `position`.
    pub(crate) fn snapshot(&mut self, position: Position, as_of: Moment) -> Snapshot {
        self.changed = false;
        let at = (revision(position), as_of);
        let count = self.plain.len() + self.ours.len();
        let (plain, ours, overrides) = (&self.plain, &self.ours, &self.overrides);
        let read_all = || {
            // Of two with one id the last one is listed.
            let plain = plain.values().map(|listed| (listed, None));
            let ours = ours.iter();
            let ours = ours.map(|(suffix, listed)| (listed, overrides.get(suffix)));
            let all = plain.chain(ours);
            all.map(|(listed, overriding)| (listed.shown(overriding), listed.made()))
                .collect()
        };
        let set = self.changes.next_set(&self.service, at, count, read_all);
        let (mut skipped, mut skipped_count) = (self.skipped.named(), self.skipped.count());
        if set.len() < count {
            let mut outdone = self.outdone(&set);
            let before = skipped.len();
            skipped.extend(outdone.by_ref().take(Snapshot::MOST_SKIPPED));
            skipped_count += skipped.len() - before + outdone.count();
            skipped.sort_by(|a, b| a.key.cmp(&b.key));
        }
        // One that is there again, as another run, is not gone.
        self.withdrawn.retain(|id| set.get(id).is_none());
        set.with_withdrawn(std::mem::take(&mut self.withdrawn))
            .with_skipped(skipped)
            .with_skipped_count(skipped_count)
    }

    /// What to tell of records whose id another one has.
    fn outdone<'a>(&'a self, set: &'a Snapshot) -> impl Iterator<Item = Skipped> + 'a {
        let plain = self.plain.iter().map(|found| (found, false));
        let all = plain.chain(self.ours.iter().map(|found| (found, true)));
        let others = all.filter(|((_, found), _)| {
            let listed = set.get(found.instance.id());
            listed.is_some_and(|listed| !listed.is_same_run(&found.instance))
        });
        others.map(|((suffix, found), is_ours)| {
            let key = self.folders.key(Place { is_ours, suffix });
            let id = found.instance.id();
            let reason = format!("another record of the service has the id {id:?}, too");
            Skipped::new(key, reason)
        })
    }
}

/// A position as core sees it: revisions are ordered within one cluster.
pub(crate) fn revision(position: Position) -> Revision {
    Revision::new(position.domain(), position.revision.max(0).cast_unsigned())
}

/// A key as text, another one for each key.
fn text(key: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(key) {
        Ok(key) => key.into(),
        Err(_) => key.escape_ascii().to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sd_core::{Incarnation, Override};

    use super::*;
    use crate::codec::Layout;
    use crate::config::format::Format;

    const AT: Position = Position {
        cluster: 1,
        revision: 7,
    };

    fn empty() -> ServiceSet {
        of("s")
    }

    fn of(service: &str) -> ServiceSet {
        let service = ServiceName::new(service).unwrap();
        let folders = Layout::new("/p", Format::Json).folders(&service);
        ServiceSet::new(service, folders)
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
    fn keys_that_are_no_text_are_told_apart() {
        let mut set = empty();
        put(&mut set, b"/p/s/\xe3", b"h:1", None);
        set.delete(b"/p/s/\xa5");
        let skipped = taken(&mut set);
        assert_eq!(skipped.skipped()[0].key, "/p/s/\\xe3");
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
    fn of_much_garbage_little_is_kept_and_all_is_counted() {
        let mut set = empty();
        // What cannot be parsed is repeated in the parser's error.
        let garbage = format!(r#"{{"weight":"{}"}}"#, "ö".repeat(1 << 15));
        for n in 0..300 {
            let key = format!("/p/s/{n:03}");
            put(&mut set, key.as_bytes(), garbage.as_bytes(), None);
        }
        let kept: usize = set.skipped.named().iter().map(|one| one.reason.len()).sum();
        assert!(kept <= 100 * 256, "{kept}");
        let seen = taken(&mut set);
        assert_eq!((seen.skipped().len(), seen.skipped_count()), (100, 300));
        assert!(seen.skipped()[0].reason.contains("invalid type"));
        set.delete(b"/p/s/299");
        assert!(set.is_changed());
        assert_eq!(taken(&mut set).skipped_count(), 299);
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
    fn one_key_may_hold_all_instances() {
        let service = ServiceName::new("1").unwrap();
        let folders = Layout::new("/apisix/upstreams", Format::Apisix).folders(&service);
        let mut set = ServiceSet::new(service, folders);
        let key = b"/apisix/upstreams/1";
        put(
            &mut set,
            key,
            br#"{"nodes":{"a:1":1,"b:1":1,"c:x":1}}"#,
            None,
        );
        let first = taken(&mut set);
        assert_eq!((first.len(), first.skipped_count()), (2, 1));
        assert_eq!(first.skipped()[0].key, "/apisix/upstreams/1: node c:x");
        put(&mut set, key, br#"{"nodes":{"b:1":1,"d:1":2}}"#, None);
        assert!(set.is_changed());
        let second = taken(&mut set);
        assert_eq!((second.len(), second.skipped_count()), (2, 0));
        assert!(Arc::ptr_eq(&first.instances()[1], &second.instances()[0]));
        put(&mut set, key, br#"{"nodes":7}"#, None);
        let third = taken(&mut set);
        assert_eq!((third.len(), third.skipped_count()), (0, 1));
        put(&mut set, key, br#"{"nodes":{"b:1":1,"c:x":1}}"#, None);
        taken(&mut set);
        set.delete(key);
        assert!(set.is_changed());
        let gone = taken(&mut set);
        assert_eq!((gone.len(), gone.skipped_count()), (0, 0));
    }

    #[test]
    fn an_override_decides_in_whatever_order_it_comes_and_hides_nothing() {
        let ours = Instance::new("s", "h:1").unwrap();
        let record = format!("/p/s/{}", ours.id()).into_bytes();
        let json = serde_json::to_vec(&ours).unwrap();
        let key = format!("/p/s//override/{}", ours.id()).into_bytes();
        let drained = StoredOverride {
            said: Override::Draining,
            incarnation: ours.incarnation(),
            created: 1,
        };
        let value = overrides::encode(&drained).unwrap();
        let read = |entries: &[(&[u8], &[u8])]| {
            let mut set = empty();
            put(&mut set, b"/p/s/b", b"h:2", None);
            for (key, value) in entries {
                put(&mut set, key, value, None);
            }
            set
        };
        let (record, over) = ((&*record, &*json), (&*key, &*value));
        for order in [[record, over], [over, record]] {
            let mut set = read(&order);
            let seen = taken(&mut set);
            let one = seen.get(ours.id()).unwrap();
            assert_eq!(one.overridden(), Some(Override::Draining));
            assert_eq!((seen.len(), seen.skipped().len()), (2, 0));
            put(&mut set, over.0, over.1, None);
            assert!(!set.is_changed());
            set.delete(over.0);
            assert_eq!(**taken(&mut set).get(ours.id()).unwrap(), ours);
        }
        let other = StoredOverride {
            created: 2,
            ..drained
        };
        let other = overrides::encode(&other).unwrap();
        let seen = taken(&mut read(&[record, (&*key, &*other)]));
        assert_eq!(**seen.get(ours.id()).unwrap(), ours);
        // One that cannot be read is named, and one of go-kit under such an id is what go-kit means.
        let seen = taken(&mut read(&[over, record, (&*key, b"{}")]));
        assert_eq!((seen.len(), seen.skipped().len()), (2, 1));
        assert_eq!(**seen.get(ours.id()).unwrap(), ours);
        let mut set = read(&[over, record]);
        put(&mut set, &key, b"h:3", None);
        let seen = taken(&mut set);
        assert_eq!((seen.len(), seen.skipped().len()), (3, 0));
        assert_eq!(**seen.get(ours.id()).unwrap(), ours);
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

    #[test]
    fn what_is_there_again_is_not_named_as_withdrawn() {
        let mut set = empty();
        let instance = Instance::new("s", "h:1").unwrap();
        let key = format!("/p/s/{}", instance.id()).into_bytes();
        let json = |instance: &Instance| serde_json::to_vec(instance).unwrap();
        put(&mut set, &key, &json(&instance), None);
        assert_eq!(taken(&mut set).len(), 1);
        let withdrawn = crate::codec::json::encode_withdrawn(&instance).unwrap();
        put(&mut set, &key, &withdrawn, None);
        let next = instance.with_incarnation(sd_core::Incarnation::random());
        put(&mut set, &key, &json(&next), None);
        let again = taken(&mut set);
        assert_eq!((again.len(), again.withdrawn()), (1, &[][..]));
    }

    #[test]
    fn a_service_with_a_slash_holds_go_kits_values_beside_ours_and_no_record_of_another() {
        let mut set = of("a/b");
        let ours = Instance::new("a/b", "h:1").unwrap();
        let key = format!("/p/a%2Fb/{}", ours.id());
        let json = |instance: &Instance| serde_json::to_vec(instance).unwrap();
        put(&mut set, key.as_bytes(), &json(&ours), None);
        put(&mut set, b"/p/a/b/x", b"h:2", None);
        // It is there, but as that of another service.
        let other = Instance::new("a", "h:3").unwrap();
        let other = other.with_id(InstanceId::new("b/y").unwrap());
        put(&mut set, b"/p/a/b/y", &json(&other), None);
        let both = taken(&mut set);
        assert_eq!((both.len(), both.skipped().len()), (2, 0), "{both:?}");
        put(&mut set, b"/p/a/b/x", &json(&other), None);
        assert_eq!(taken(&mut set).instances(), [Arc::new(ours)]);
    }

    #[test]
    fn of_two_records_with_one_id_ours_is_listed_and_the_other_named_until_it_is_alone() {
        let mut set = of("a/b");
        let id = InstanceId::new("x").unwrap();
        let ours = Instance::new("a/b", "h:1").unwrap().with_id(id);
        put(&mut set, b"/p/a/b/x", b"h:2", None);
        let json = serde_json::to_vec(&ours).unwrap();
        put(&mut set, b"/p/a%2Fb/x", &json, None);
        let seen = taken(&mut set);
        assert_eq!(seen.instances(), [Arc::new(ours)]);
        assert_eq!(seen.skipped()[0].key, "/p/a/b/x");
        set.delete(b"/p/a%2Fb/x");
        let left = taken(&mut set);
        assert_eq!(left.instances()[0].endpoint().port(), Some(2));
        assert_eq!(left.skipped(), []);
    }

    /// Of a key: what is stored there, or nothing; and whether a set is taken then.
    fn steps() -> impl Strategy<Value = Vec<(String, Option<Vec<u8>>, bool)>> {
        let instance = |id: &str, port: u16| {
            let id = InstanceId::new(id).unwrap();
            let instance = Instance::new("a/b", format!("h:{port}")).unwrap();
            let instance = instance
                .with_id(id)
                .with_incarnation(Incarnation::from_u64(1));
            serde_json::to_vec(&instance).unwrap()
        };
        let overriding = |said| {
            let (incarnation, created) = (Incarnation::from_u64(1), 1);
            let stored = StoredOverride {
                said,
                incarnation,
                created,
            };
            overrides::encode(&stored).unwrap()
        };
        let entry = (0..3u8, "[xyz]", 1..3u16).prop_map(move |(kind, id, port)| match kind {
            // One of our ids under any of our keys.
            0 => (
                format!("/p/a%2Fb/{}", ["x", "y"][usize::from(port - 1)]),
                instance(&id, port),
            ),
            1 => (format!("/p/a/b/{id}"), format!("h:{port}").into_bytes()),
            _ if port == 1 => (
                format!("/p/a%2Fb//override/{id}"),
                overriding(Override::Draining),
            ),
            _ => (
                format!("/p/a%2Fb//override/{id}"),
                overriding(Override::Unready),
            ),
        });
        let step = (entry, prop::bool::weighted(0.7), any::<bool>());
        let step =
            step.prop_map(|((key, value), is_put, takes)| (key, is_put.then_some(value), takes));
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn whatever_changes_the_set_is_what_is_stored(steps in steps()) {
            let mut followed = of("a/b");
            let mut stored = BTreeMap::new();
            for (key, value, takes) in steps {
                if let Some(value) = value {
                    put(&mut followed, key.as_bytes(), &value, None);
                    stored.insert(key, value);
                } else {
                    followed.delete(key.as_bytes());
                    stored.remove(&key);
                }
                if takes {
                    let mut read = of("a/b");
                    for (key, value) in &stored {
                        put(&mut read, key.as_bytes(), value, None);
                    }
                    let (seen, expected) = (taken(&mut followed), taken(&mut read));
                    prop_assert!(seen.is_same_set(&expected), "{seen:?} {expected:?}");
                }
            }
        }
    }
}
