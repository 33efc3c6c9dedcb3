//! What the settings are called in errors, what they are by default, and within which bounds they lie.

use std::ops::RangeInclusive;
use std::time::Duration;

use sd_backend::Rules;
use sd_core::RegistrationConfig;

/// Names the setting in each error.
pub(crate) const RULES: Rules = Rules::new("zk: configuration");

/// The settings that name files.
pub(crate) const FILES: &str = "password_file, ca, cert and key";

/// The schemes of registry URLs for ZooKeeper. The second one asks for TLS. The hosts of the third one are Exhibitors.
pub const URL_SCHEMES: [&str; 3] = ["zk", "zks", "zk+exhibitor"];
/// The default path of services: Curator's base path.
pub const DEFAULT_PREFIX: &str = "/services";
/// The default path of elections.
pub const DEFAULT_ELECTION_PREFIX: &str = "/elections";
/// The port of an endpoint without one.
pub const DEFAULT_PORT: u16 = 2181;
/// The port of an Exhibitor without one.
pub const DEFAULT_EXHIBITOR_PORT: u16 = 8080;
/// How often an Exhibitor is asked for the servers, by default.
pub const DEFAULT_EXHIBITOR_INTERVAL: Duration = Duration::from_secs(30);
/// For how long ZooKeeper keeps a session without a sign of life, by default.
pub const DEFAULT_SESSION_TIMEOUT: Duration = RegistrationConfig::DEFAULT_TTL;
/// The default time limit for one request.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) const MAX_PREFIX_BYTES: usize = 512;
/// Each has a share of the time in which one of them has to answer.
pub(crate) const MOST_EXHIBITORS: usize = 16;
pub(crate) const EXHIBITOR_INTERVALS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);
pub(crate) const REQUEST_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
pub(crate) const SESSION_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
