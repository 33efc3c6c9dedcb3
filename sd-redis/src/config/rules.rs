//! What the settings are called in errors, what they are by default, and within which bounds they lie.

use std::ops::RangeInclusive;
use std::time::Duration;

use sd_backend::Rules;

/// Names the setting in each error.
pub(crate) const RULES: Rules = Rules::new("redis: configuration");

/// The settings that name files.
pub(crate) const FILES: &str = "password_file, sentinel_password_file, ca, cert and key";

/// The setting that names where heartbeats are read.
pub(crate) const READ_ENDPOINTS: &str = "read_endpoints";

/// The schemes of registry URLs for Redis and Valkey. Those that begin with `rediss` ask for TLS.
pub const URL_SCHEMES: [&str; 6] = [
    "redis",
    "rediss",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
];
/// How the keys and channels of records begin by default.
pub const DEFAULT_PREFIX: &str = "services";
/// How the keys and channels of elections begin by default.
pub const DEFAULT_ELECTION_PREFIX: &str = "elections";
/// The port of an endpoint without one.
pub const DEFAULT_PORT: u16 = 6379;
/// The port of a Sentinel without one.
pub const DEFAULT_SENTINEL_PORT: u16 = 26379;
/// The name under which Sentinels watch the primary by default.
pub const DEFAULT_PRIMARY: &str = "mymaster";
/// The user of a password without one: the one that every server has.
pub const DEFAULT_USER: &str = "default";
/// How long a process may be silent by default with [`Format::Heartbeat`](crate::Format::Heartbeat).
pub const DEFAULT_HEARTBEAT_TTL: Duration = Duration::from_secs(45);
/// The default time limit for connecting to one server.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The default time limit for one request.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often readers ask by default whether anything has changed that they were not told.
pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(10);
/// How long the connection that tells of changes may be silent by default before it is pinged.
pub const DEFAULT_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) const MAX_PREFIX_BYTES: usize = 128;
pub(crate) const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
pub(crate) const HEARTBEAT_TTLS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);
pub(crate) const POLL_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);
pub(crate) const KEEP_ALIVE_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(3600);
