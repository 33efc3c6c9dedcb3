//! What not every source can do.

use std::fmt;

/// Something that not every source can do. A [`Fixture`](crate::Fixture) states what its source lacks. The cases that need it are then
/// skipped, and the report names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Ability {
    /// Readers see the id and the incarnation that a record was registered with. Without it they know records by their addresses.
    Ids,
    /// Readers see more than id and address: readiness, weight, priority, zone, version, tags and metadata.
    Metadata,
    /// An id belongs to one run at a time: another one is refused with `Conflict` while the first lives.
    UniqueIds,
    /// An update replaces a record without its being absent in between.
    UpdateInPlace,
    /// `list` reads the source. Without it the source only tells what it is watched for.
    ReadOnDemand,
    /// The source says in what order records were made, as [`Snapshot::run_order`](sd_core::Snapshot::run_order).
    RunOrder,
    /// The source lists its services.
    Services,
    /// Readers learn that a record was withdrawn on purpose.
    Withdrawals,
    /// The source may hold entries that are no records: [`Fixture::write_garbage`](crate::Fixture::write_garbage).
    UnreadableEntries,
    /// An operator can delete a record: [`Fixture::remove_record`](crate::Fixture::remove_record).
    Removal,
    /// A record can be left to another client: [`Registrar::release`](sd_core::Registrar::release).
    Release,
    /// Operators can override and remove records: [`Backend::operator`](sd_core::Backend::operator).
    Operators,
    /// An operator can make ready what its owner says is not.
    ReadyOverrides,
    /// A record goes when its owner has gone without withdrawing it.
    Expiry,
    /// Each record, and each entry of an election, has a lease of its own, which ends unless it is renewed.
    Leases,
    /// One session keeps all records of a client, or all entries of an elector, by itself. They end together with it.
    Sessions,
    /// A record stays until it is withdrawn, whatever becomes of its owner.
    PermanentRecords,
    /// Candidates lead in the order in which they joined, as [`Safety::fair`](sd_core::port::Safety::fair).
    FairElections,
    /// The elector is a [`StrictElector`](sd_core::port::StrictElector). The other ones are best effort: while their server fails over, two
    /// terms may be believed in at once. On a server that is well they behave as strict ones do, so every case of the suite is for them,
    /// too. Cases of [`faults`](crate::faults) may need this.
    StrictElections,
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
