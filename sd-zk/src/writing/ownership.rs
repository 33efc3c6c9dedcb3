//! Whose record a node is. Pure functions.

use sd_core::{Holder, RecordId};

use crate::codec::Record;

/// Who holds a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The run that is asked about, in this session or an earlier one.
    Us,
    /// Another run, which is withdrawing it.
    Free,
    /// Another run.
    Run(Holder),
    /// Something that is no record, for this reason.
    NoRecord(String),
}

impl Owner {
    /// Who holds a node under the id of `record`, given what is stored there, and whether this client made the node for that record.
    pub(crate) fn of(stored: &Result<Record, String>, record: &RecordId, is_claimed: bool) -> Self {
        match stored {
            _ if is_claimed => Self::Us,
            Ok(stored) if stored.instance().incarnation() == record.incarnation => Self::Us,
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
    fn a_node_is_ours_by_its_incarnation_or_because_we_made_it() {
        let ours = Instance::new("s", "h:1").unwrap();
        let record = ours.record_id();
        let other = ours.clone().with_incarnation(Incarnation::from_u64(1));
        let owner = |stored, is_claimed| Owner::of(&stored, &record, is_claimed);
        assert_eq!(owner(Ok(Record::Live(ours.clone())), false), Owner::Us);
        assert_eq!(owner(Ok(Record::Withdrawn(ours)), false), Owner::Us);
        assert_eq!(
            owner(Ok(Record::Withdrawn(other.clone())), false),
            Owner::Free
        );
        let holder = Holder::from(&other);
        assert_eq!(
            owner(Ok(Record::Live(other.clone())), false),
            Owner::Run(holder)
        );
        assert_eq!(owner(Ok(Record::Live(other)), true), Owner::Us);
        let reason = "the reason".to_owned();
        assert_eq!(
            owner(Err(reason.clone()), false),
            Owner::NoRecord(reason.clone())
        );
        assert_eq!(owner(Err(reason), true), Owner::Us);
    }
}
