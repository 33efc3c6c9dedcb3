//! What is worth counting in a history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::simulation::history::{Record, What};
use crate::simulation::schedule::Schedule;

/// What is worth counting in a history, to see that the schedules come to the point.
#[derive(Clone, Debug, Default)]
pub(in crate::simulation) struct Facts {
    pub(in crate::simulation) terms: u64,
    /// The shortest time between two nodes' beliefs, where they must not overlap.
    pub(in crate::simulation) gap: Option<Duration>,
    /// How often each kind of thing happened.
    pub(in crate::simulation) counts: BTreeMap<&'static str, u64>,
}

pub(super) fn count(schedule: &Schedule, records: &[Record]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for record in records {
        let name = match &record.what {
            What::Stalled { .. } => "stops at a reading of a clock",
            What::Stopped { .. } => "nodes stopped",
            What::Killed => "nodes killed",
            What::CutOff(_) => "nodes cut off",
            What::ServerDown => "server down",
            What::ServerUp {
                leases_restarted: true,
            } => "leases restarted",
            What::ServerFrozen { .. } => "server frozen",
            What::Storm => "storms",
            What::EntryRemoved { .. } => "entries removed",
            What::LeaseEnded { .. } => "leases ended",
            What::Expired { .. } => "leases that ended early",
            What::CampaignDropped => "campaigns dropped",
            What::Joined { id } if !seen.insert(*id) => "joins that came again",
            _ => continue,
        };
        *counts.entry(name).or_default() += 1;
    }
    counts.insert(schedule.class.as_str(), 1);
    counts
}
