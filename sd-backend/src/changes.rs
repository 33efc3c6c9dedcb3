//! From single changes of a service's records to its next set.

use std::collections::BTreeMap;
use std::sync::Arc;

use sd_core::clock::Moment;
use sd_core::{Instance, InstanceId, Revision, ServiceName, Snapshot};

/// What has changed among the records of a service since its last set. For readers that are told single changes: the next set is made of
/// the last one and of these. The other records are not looked at, which would take longer than all else where there are thousands.
#[derive(Debug, Default)]
pub struct Changes {
    /// `None` as long as there is none in which each record has an id of its own.
    last: Option<Snapshot>,
    changed: BTreeMap<InstanceId, Option<(Arc<Instance>, u64)>>,
}

impl Changes {
    /// Notes a record, and its place in the order in which records were made.
    pub fn put(&mut self, instance: Arc<Instance>, made: u64) {
        if self.last.is_some() {
            let id = instance.id().clone();
            self.changed.insert(id, Some((instance, made)));
        }
    }

    /// Notes that a record is gone.
    pub fn remove(&mut self, instance: &Instance) {
        if self.last.is_some() {
            self.changed.insert(instance.id().clone(), None);
        }
    }

    /// The set of all `count` records that there are now. `read_all` gives them in an order in which the last of several with one id
    /// counts. It is asked for the first set, and where several have one id.
    pub fn next_set(
        &mut self,
        service: &ServiceName,
        (revision, as_of): (Revision, Moment),
        count: usize,
        read_all: impl FnOnce() -> Vec<(Arc<Instance>, u64)>,
    ) -> Snapshot {
        let changed = std::mem::take(&mut self.changed);
        let next = self.last.take().map(|last| last.with_changes(changed));
        // It holds no id that no record has, and one that several have at most once: so it is complete if it is as large.
        let set = match next.filter(|next| next.len() == count) {
            Some(next) => next.with_position(revision, as_of),
            None => Snapshot::ordered(service.clone(), revision, as_of, read_all()),
        };
        self.last = (set.len() == count).then(|| set.clone());
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Records = BTreeMap<u8, (Arc<Instance>, u64)>;

    fn instance(id: u8, port: u16) -> Arc<Instance> {
        let id = InstanceId::new(format!("i{id}")).unwrap();
        Arc::new(Instance::new("s", format!("h:{port}")).unwrap().with_id(id))
    }

    fn at(value: u64) -> (Revision, Moment) {
        (Revision::new("d", value), Moment::ZERO)
    }

    fn service() -> ServiceName {
        ServiceName::new("s").unwrap()
    }

    fn read_all(records: &Records) -> Vec<(Arc<Instance>, u64)> {
        records.values().cloned().collect()
    }

    #[test]
    fn records_are_read_for_the_first_set_and_where_two_have_one_id() {
        let mut changes = Changes::default();
        let first = vec![(instance(1, 1), 1), (instance(2, 2), 2)];
        changes.next_set(&service(), at(1), 2, || first.clone());
        let third = instance(3, 3);
        changes.put(Arc::clone(&third), 3);
        changes.remove(&first[0].0);
        let set = changes.next_set(&service(), at(2), 2, || unreachable!());
        assert_eq!(set.instances(), [Arc::clone(&first[1].0), third]);
        assert_eq!(
            (set.revision(), set.run_order(set.instances()[1].id())),
            (&at(2).0, Some(3))
        );
        let rival = instance(3, 4);
        changes.put(Arc::clone(&rival), 4);
        let both = || {
            vec![
                first[1].clone(),
                (instance(3, 3), 3),
                (Arc::clone(&rival), 4),
            ]
        };
        let set = changes.next_set(&service(), at(3), 3, both);
        assert_eq!(set.instances(), [Arc::clone(&first[1].0), rival]);
    }

    /// Which record is put or removed, its id and port, and whether a set is made of them then.
    type Step = (u8, Option<(u8, u16)>, bool);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let record = prop::option::weighted(0.7, (0..6u8, 1..4u16));
        prop::collection::vec((0..5u8, record, any::<bool>()), 0..40)
    }

    proptest! {
        #[test]
        fn whatever_changes_the_set_is_that_of_all_records(steps in steps()) {
            let mut records = Records::new();
            let mut changes = Changes::default();
            for (made, (record, now, makes_set)) in (0..).zip(steps) {
                if let Some((gone, _)) = records.remove(&record) {
                    changes.remove(&gone);
                }
                if let Some((id, port)) = now {
                    let instance = instance(id, port);
                    changes.put(Arc::clone(&instance), made);
                    records.insert(record, (instance, made));
                }
                if makes_set {
                    let (revision, as_of) = at(made);
                    let expected = Snapshot::ordered(service(), revision, as_of, read_all(&records));
                    let set = changes.next_set(&service(), at(made), records.len(), || read_all(&records));
                    prop_assert!(set.is_same_set(&expected));
                    for instance in set.instances() {
                        let id = instance.id();
                        prop_assert_eq!(set.run_order(id), expected.run_order(id));
                    }
                }
            }
        }
    }
}
