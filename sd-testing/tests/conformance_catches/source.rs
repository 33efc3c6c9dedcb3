//! What the source is like that a flawed backend shows: what it lacks, and how late its reads are.

use std::time::Duration;

use sd_core::{Error, ErrorKind, Result};
use sd_testing::Ability;

#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) lacks: Vec<Ability>,
    pub(crate) late: Duration,
}

impl Source {
    fn lacking(lacks: &[Ability]) -> Self {
        Self {
            lacks: lacks.to_vec(),
            late: Duration::ZERO,
        }
    }

    /// As etcd: a lease for each record.
    pub(crate) fn on_leases() -> Self {
        Self::lacking(&[Ability::Sessions, Ability::PermanentRecords])
    }

    /// As ZooKeeper: a session for all records of a client.
    pub(crate) fn on_sessions() -> Self {
        Self::lacking(&[
            Ability::Leases,
            Ability::PermanentRecords,
            Ability::Release,
            Ability::Operators,
            Ability::ReadyOverrides,
        ])
    }

    /// As Cloud Map.
    pub(crate) fn with_permanent_records() -> Self {
        Self::lacking(&[
            Ability::Leases,
            Ability::Sessions,
            Ability::Expiry,
            Ability::Operators,
            Ability::ReadyOverrides,
        ])
    }

    /// One that tells addresses to those who watch it, as long as the connections last that brought them.
    pub(crate) fn with_addresses_alone() -> Self {
        Self::lacking(&[
            Ability::Ids,
            Ability::Metadata,
            Ability::UniqueIds,
            Ability::UpdateInPlace,
            Ability::ReadOnDemand,
            Ability::RunOrder,
            Ability::Services,
            Ability::Withdrawals,
            Ability::UnreadableEntries,
            Ability::Removal,
            Ability::Release,
            Ability::Operators,
            Ability::ReadyOverrides,
            Ability::Leases,
            Ability::PermanentRecords,
        ])
    }

    /// Leases, and reads that see a write late.
    pub(crate) fn with_late_reads() -> Self {
        Self {
            late: Duration::from_millis(300),
            ..Self::lacking(&[
                Ability::Sessions,
                Ability::PermanentRecords,
                Ability::Operators,
                Ability::ReadyOverrides,
            ])
        }
    }

    pub(crate) fn has(&self, ability: Ability) -> bool {
        !self.lacks.contains(&ability)
    }

    /// Fails with `Unsupported` without this.
    pub(crate) fn check(&self, ability: Ability, op: &'static str) -> Result<()> {
        if self.has(ability) {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Unsupported, op))
        }
    }
}
