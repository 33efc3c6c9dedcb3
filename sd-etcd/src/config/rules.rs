//! What the settings are called in errors, what they are by default, and within which bounds they lie.

use std::ops::RangeInclusive;
use std::time::Duration;

use sd_core::config::Rules;

/// Names the setting in each error.
pub(crate) const RULES: Rules = Rules::new("etcd: configuration");

/// What a registry URL for etcd begins with.
pub const URL_SCHEME: &str = "etcd";
/// Where records are kept by default: go-kit's examples use the same.
pub const DEFAULT_PREFIX: &str = "/services";
/// Where elections are held by default.
pub const DEFAULT_ELECTION_PREFIX: &str = "/elections";
/// The port of an endpoint that names none.
pub const DEFAULT_PORT: u16 = 2379;
/// How long connecting to one endpoint may take by default.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one request may take by default.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection in use may be silent by default before the server is asked for a sign of life.
pub const DEFAULT_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);
/// How long that sign of life may take by default.
pub const DEFAULT_KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) const MAX_PREFIX_BYTES: usize = 512;
pub(crate) const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(1);
pub(crate) const KEEP_ALIVE_INTERVALS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(1);
