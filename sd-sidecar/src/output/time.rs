//! Times of day, as people and programs read them: RFC 3339.

use std::time::SystemTime;

use sd_core::clock::{Clock, Moment};

/// The time of day now.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

pub(crate) fn time_of(moment: Moment, clock: &dyn Clock) -> String {
    let age = clock.now().since(moment);
    let time = SystemTime::now()
        .checked_sub(age)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_millis(time).to_string()
}
