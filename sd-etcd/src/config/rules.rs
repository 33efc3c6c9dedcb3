//! What the settings are called in errors, what they are by default, and within which bounds they lie.

use std::ops::RangeInclusive;
use std::time::Duration;

use sd_backend::Rules;

/// Names the setting in each error.
pub(crate) const RULES: Rules = Rules::new("etcd: configuration");

/// The settings that name files.
pub(crate) const FILES: &str = "password_file, ca, cert and key";

/// The schemes of registry URLs for etcd. The second one asks for TLS.
pub const URL_SCHEMES: [&str; 2] = ["etcd", "etcds"];
/// The default key prefix of records; go-kit's examples use the same.
pub const DEFAULT_PREFIX: &str = "/services";
/// The default key prefix of elections.
pub const DEFAULT_ELECTION_PREFIX: &str = "/elections";
/// The port of an endpoint without one.
pub const DEFAULT_PORT: u16 = 2379;
/// The default time limit for connecting to one endpoint.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The default time limit for one request.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The default time limit for reading one service, or the list of services, with all its pages.
pub const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection in use may be silent by default before it is pinged.
pub const DEFAULT_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);
/// The default time limit for the answer to that ping.
pub const DEFAULT_KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) const MAX_PREFIX_BYTES: usize = 512;
pub(crate) const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
pub(crate) const READ_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(600);
pub(crate) const KEEP_ALIVE_INTERVALS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);
