//! A record as it is stored, and whose it is. For servers that keep records as values, with room for a mark of their withdrawal.

use sd_core::{Error, ErrorKind, Holder, Instance, RecordId, Result};

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// In service.
    Live(Instance),
    /// About to be deleted, on purpose: readers do not count it as a loss.
    Withdrawn(Instance),
}

/// Who holds the place of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The run that is asked about.
    Us,
    /// Another run, which is withdrawing it.
    Free,
    /// Another run.
    Run(Holder),
    /// Something that is no record, for this reason.
    NoRecord(String),
}

impl Record {
    /// The record of an instance, marked as withdrawn or not.
    pub fn new(instance: Instance, is_withdrawn: bool) -> Self {
        if is_withdrawn {
            Self::Withdrawn(instance)
        } else {
            Self::Live(instance)
        }
    }

    /// What it says.
    pub fn instance(&self) -> &Instance {
        match self {
            Self::Live(instance) | Self::Withdrawn(instance) => instance,
        }
    }
}

impl Owner {
    /// Who holds the place of `record`, given what is stored there, or why that cannot be understood.
    pub fn of(stored: &Result<Record, String>, record: &RecordId) -> Self {
        match stored {
            Ok(stored) if stored.instance().incarnation() == record.incarnation => Self::Us,
            Ok(Record::Withdrawn(_)) => Self::Free,
            Ok(Record::Live(instance)) => Self::Run(instance.into()),
            Err(reason) => Self::NoRecord(reason.clone()),
        }
    }

    /// Checks that the record may be written to this place.
    ///
    /// # Errors
    /// `Conflict` says who holds the place, and what to do.
    pub fn check_writable(self, op: &'static str, place: &str) -> Result<()> {
        let conflict = Error::new(ErrorKind::Conflict, op);
        match self {
            Self::Us | Self::Free => Ok(()),
            Self::Run(holder) => Err(conflict.held_by(holder).because(format!(
                "{place} is taken: give this instance another id, or wait until the other record is gone"
            ))),
            Self::NoRecord(reason) => Err(conflict.because(format!(
                "{place} holds something that is not a record ({reason}): give this instance another id, or remove that"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use sd_core::Incarnation;

    use super::*;

    #[test]
    fn a_place_is_ours_by_its_incarnation_and_free_while_another_run_withdraws() {
        let ours = Instance::new("s", "h:1").unwrap();
        let record = ours.record_id();
        let other = ours.clone().with_incarnation(Incarnation::from_u64(1));
        let owner = |stored: Result<Record, String>| Owner::of(&stored, &record);
        let holder = Owner::Run(Holder::from(&other));
        for (stored, is_withdrawn, expected) in [
            (&ours, false, Owner::Us),
            (&ours, true, Owner::Us),
            (&other, true, Owner::Free),
            (&other, false, holder.clone()),
        ] {
            let stored = Record::new(stored.clone(), is_withdrawn);
            assert_eq!(owner(Ok(stored)), expected);
        }
        Owner::Free.check_writable("test", "/p").unwrap();
        let nothing = owner(Err("the reason".to_owned()));
        for (refused, why) in [(nothing, "(the reason)"), (holder, "is taken")] {
            let error = refused.check_writable("test", "/p").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            let report = error.report().to_string();
            assert!(report.contains("/p") && report.contains(why), "{report}");
        }
    }
}
