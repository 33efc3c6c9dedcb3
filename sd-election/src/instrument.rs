//! The metrics that this crate emits through the `metrics` facade. Names and labels are stable.

use metrics::{counter, gauge};
use sd_core::ElectionName;

use crate::event::ElectionEvent;

/// Gauge, label `election`: terms of this process that are running, as far as their drivers know. More than 1 is a bug.
pub const LEADING: &str = "sd_election_leading";
/// Counter, labels `election` and `event`: steps of this process's candidates.
pub const EVENTS: &str = "sd_election_events_total";
/// Counter, labels `election` and `reason`: terms of this process that ended.
pub const TERMS_ENDED: &str = "sd_election_terms_ended_total";

fn label(name: &ElectionName) -> String {
    name.as_str().to_owned()
}

pub(crate) fn event(name: &ElectionName, event: &ElectionEvent) {
    counter!(EVENTS, "election" => label(name), "event" => event.as_str()).increment(1);
    match event {
        ElectionEvent::Elected { .. } => gauge!(LEADING, "election" => label(name)).increment(1.0),
        ElectionEvent::Ended { reason, .. } => {
            gauge!(LEADING, "election" => label(name)).decrement(1.0);
            counter!(TERMS_ENDED, "election" => label(name), "reason" => reason.as_str())
                .increment(1);
        }
        _ => {}
    }
}
