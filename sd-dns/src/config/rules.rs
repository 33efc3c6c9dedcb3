//! What the settings are called in errors, what they are by default, and within which bounds they lie.

use std::ops::RangeInclusive;
use std::time::Duration;

use sd_backend::Rules;

/// Names the setting in each error.
pub(crate) const RULES: Rules = Rules::new("dns: configuration");

/// The schemes of registry URLs for DNS. The second one asks for SRV records.
pub const URL_SCHEMES: [&str; 2] = ["dns", "dns+srv"];
/// The port of a resolver without one.
pub const DEFAULT_PORT: u16 = 53;
/// The port of a resolver without one that is spoken to over TLS (RFC 7858).
pub const DEFAULT_TLS_PORT: u16 = 853;
/// The name that is asked for a service by default, before the domain.
pub const DEFAULT_NAME: &str = "{service}";
/// After how many answers without it an address goes by default.
pub const DEFAULT_KEEP_ABSENT: u32 = 1;
/// The shortest time from one read of a name to the next by default, whatever its time-to-live.
pub const DEFAULT_MIN_INTERVAL: Duration = Duration::from_secs(5);
/// The longest time from one read of a name to the next by default, whatever its time-to-live.
pub const DEFAULT_MAX_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// How long one resolver may take for one answer by default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// What stands for the service in the name that is asked.
pub(crate) const SERVICE: &str = "{service}";
pub(crate) const INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60 * 60);
pub(crate) const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(10);
pub(crate) const KEEP_ABSENT: RangeInclusive<u32> = 1..=1000;
