//! What readers of a source see of a record.

use std::borrow::Cow;

use sd_core::{Incarnation, Instance, InstanceId, Snapshot};

use crate::{Ability, Fixture};

/// Which part of a record readers see. All comparisons of the suites are about this part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    ids: bool,
    metadata: bool,
}

impl Sight {
    pub(super) fn of(fixture: &dyn Fixture) -> Self {
        Self {
            ids: fixture.has(Ability::Ids),
            metadata: fixture.has(Ability::Metadata),
        }
    }

    /// Whether the set holds exactly these records.
    pub(super) fn holds(self, set: &Snapshot, expected: &[Instance]) -> bool {
        let seen = set.instances().iter().map(AsRef::as_ref);
        self.sorted(seen) == self.sorted(expected.iter())
    }

    /// Whether this record is in the set.
    pub(super) fn finds(self, set: &Snapshot, record: &Instance) -> bool {
        let mut seen = set.instances().iter();
        seen.any(|seen| self.seen(seen) == self.seen(record))
    }

    fn sorted<'a>(self, records: impl Iterator<Item = &'a Instance>) -> Vec<Cow<'a, Instance>> {
        let mut seen: Vec<_> = records.map(|record| self.seen(record)).collect();
        seen.sort_by(|a, b| (a.id(), a.endpoint()).cmp(&(b.id(), b.endpoint())));
        seen
    }

    /// The record without what readers do not see.
    fn seen(self, record: &Instance) -> Cow<'_, Instance> {
        let mut seen = Cow::Borrowed(record);
        if !self.metadata {
            let (service, id) = (record.service().clone(), record.id().clone());
            let endpoint = record.endpoint().clone();
            seen = Cow::Owned(Instance::of_run(
                service,
                id,
                record.incarnation(),
                endpoint,
            ));
        }
        if !self.ids
            && let Ok(any) = InstanceId::new("any")
        {
            let seen_by_address = seen.into_owned().with_id(any);
            seen = Cow::Owned(seen_by_address.with_incarnation(Incarnation::from_u64(0)));
        }
        seen
    }
}
