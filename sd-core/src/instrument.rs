//! The metrics that this crate emits through the `metrics` facade. Names and labels are stable.
//!
//! Gauges of a subscription go to zero when its last handle is dropped. Two subscriptions of one service in one process, for
//! example at two registries, share the label and therefore the gauges: the last writer wins. If that matters, make them one
//! subscription, for example with a [`Merge`](crate::combine::Merge).

use metrics::{counter, gauge};

use crate::ServiceName;
use crate::model::snapshot::Snapshot;
use crate::registration::event::RegistrationEvent;

/// Gauge, label `service`: instances in the published set.
pub const INSTANCES: &str = "sd_instances";
/// Gauge, label `service`: published instances that the source no longer lists (mass-loss hold).
pub const INSTANCES_HELD: &str = "sd_instances_held";
/// Gauge, label `service`: entries that could not be read.
pub const INSTANCES_SKIPPED: &str = "sd_instances_skipped";
/// Gauge, label `service`: 1 while the set is stale or has not been read yet, else 0.
pub const STALE: &str = "sd_stale";
/// Counter, label `service`: published sets that differ from the one before.
pub const CHANGES: &str = "sd_changes_total";
/// Counter, label `service`: feeds that ended with an error.
pub const FEED_ERRORS: &str = "sd_feed_errors_total";
/// Gauge, label `service`: index of the source that a `Fallback` uses, 0 for the preferred one.
pub const FALLBACK_SOURCE: &str = "sd_fallback_source";
/// Counter, label `service`: attempts of endpoint caches to make a value that failed.
pub const ENDPOINT_FAILURES: &str = "sd_endpoint_failures_total";
/// Counter, labels `service` and `event`: events of registrations.
pub const REGISTRATION_EVENTS: &str = "sd_registration_events_total";

fn label(service: &ServiceName) -> String {
    service.as_str().to_owned()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating point; sets stay far below 2^52"
)]
pub(crate) fn published(snapshot: &Snapshot, changed: bool, is_live: bool) {
    let service = snapshot.service();
    if changed {
        counter!(CHANGES, "service" => label(service)).increment(1);
    }
    // Set without a change too: a subscription that has just ended may have set them to zero.
    gauge!(STALE, "service" => label(service)).set(if is_live { 0.0 } else { 1.0 });
    gauge!(INSTANCES, "service" => label(service)).set(snapshot.len() as f64);
    gauge!(INSTANCES_HELD, "service" => label(service)).set(snapshot.held().len() as f64);
    gauge!(INSTANCES_SKIPPED, "service" => label(service)).set(snapshot.skipped_count() as f64);
}

/// The service has no reader any more.
pub(crate) fn ended(service: &ServiceName) {
    for name in [STALE, INSTANCES, INSTANCES_HELD, INSTANCES_SKIPPED] {
        gauge!(name, "service" => label(service)).set(0.0);
    }
}

pub(crate) fn stale(snapshot: &Snapshot) {
    gauge!(STALE, "service" => label(snapshot.service())).set(1.0);
}

#[expect(clippy::cast_precision_loss, reason = "there are never 2^52 sources")]
pub(crate) fn fallback_source(service: &ServiceName, index: usize) {
    gauge!(FALLBACK_SOURCE, "service" => label(service)).set(index as f64);
}

pub(crate) fn endpoint_failure(service: &ServiceName) {
    counter!(ENDPOINT_FAILURES, "service" => label(service)).increment(1);
}

pub(crate) fn feed_error(service: &ServiceName) {
    counter!(FEED_ERRORS, "service" => label(service)).increment(1);
}

pub(crate) fn registration(service: &ServiceName, event: &RegistrationEvent) {
    counter!(REGISTRATION_EVENTS, "service" => label(service), "event" => event.as_str())
        .increment(1);
}
