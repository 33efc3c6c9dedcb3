//! Whose record lies under a key. Pure functions.

use etcd_client::KeyValue;
use sd_core::{Holder, RecordId};

use crate::codec::{Layout, Record, decode};

/// Who holds a key that hangs on another lease than ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Us,
    /// Another run, which is withdrawing it.
    Free,
    /// Another run.
    Run(Holder),
    /// Something that is no record, for this reason.
    NoRecord(String),
}

/// What is stored under the key of a record, or why it cannot be understood.
pub(crate) fn stored_in(
    layout: &Layout,
    found: &KeyValue,
    record: &RecordId,
) -> Result<Record, String> {
    let suffix = layout.suffix(&record.id);
    decode(&record.service, &suffix, found.value(), found.into())
}

impl Owner {
    /// Who holds the key of `record`, given what is [stored](stored_in) there.
    pub(crate) fn of(stored: &Result<Record, String>, record: &RecordId) -> Self {
        match stored {
            Ok(Record::Live(instance) | Record::Withdrawn(instance))
                if instance.incarnation() == record.incarnation =>
            {
                Self::Us
            }
            Ok(Record::Withdrawn(_)) => Self::Free,
            Ok(Record::Live(instance)) => Self::Run(instance.into()),
            Err(reason) => Self::NoRecord(reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use sd_core::{Incarnation, Instance};

    use super::*;

    #[test]
    fn a_key_is_ours_by_its_incarnation_and_free_while_another_withdraws() {
        let ours = Instance::new("s", "h:1").unwrap();
        let record = ours.record_id();
        let other = Instance::of_run(
            ours.service().clone(),
            ours.id().clone(),
            Incarnation::from_u64(1),
            "h:2".parse().unwrap(),
        );
        let owner = |stored| Owner::of(&stored, &record);
        assert_eq!(owner(Ok(Record::Live(ours.clone()))), Owner::Us);
        assert_eq!(owner(Ok(Record::Withdrawn(ours))), Owner::Us);
        assert_eq!(owner(Ok(Record::Withdrawn(other.clone()))), Owner::Free);
        let holder = Holder::from(&other);
        assert_eq!(owner(Ok(Record::Live(other))), Owner::Run(holder));
        let reason = "the reason".to_owned();
        assert_eq!(owner(Err(reason.clone())), Owner::NoRecord(reason));
    }
}
