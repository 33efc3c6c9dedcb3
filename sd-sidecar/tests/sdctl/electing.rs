//! Runs `sdctl elect`, and reads what it tells.

use std::time::Duration;

use sd_core::clock::Moment;
use serde_json::Value;

use crate::beating::Beating;
use crate::running::Running;

pub(crate) const ELECTION: &str = "reports/nightly";

/// A candidate whose command beats while it leads.
pub(crate) fn elect(registry: &str, value: &str, ttl: Duration, beating: &Beating) -> Running {
    let ttl = format!("{}s", ttl.as_secs());
    let elect = [
        "elect", ELECTION, "--value", value, "--ttl", &ttl, "--json", "--",
    ];
    Running::start(registry, &beating.after(&elect))
}

pub(crate) fn is(event: &'static str) -> impl Fn(&Value) -> bool {
    move |told| told["event"] == event
}

/// When it was told.
pub(crate) fn time(told: &Value) -> Moment {
    let nanos = told["t_boottime_ns"].as_u64().unwrap();
    Moment::from_start(Duration::from_nanos(nanos))
}
