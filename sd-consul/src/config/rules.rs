//! What holds for settings: their defaults, their bounds, and what a refusal begins with.

use std::ops::RangeInclusive;
use std::time::Duration;

use sd_core::Result;
use sd_core::config::Rules;

pub(crate) const RULES: Rules = Rules::new("consul: configuration");

/// What a registry URL for Consul begins with.
pub const URL_SCHEME: &str = "consul";
/// The agent that is spoken to if none is named: the one on this machine.
pub const DEFAULT_ENDPOINT: &str = "127.0.0.1:8500";
/// The port of an endpoint that names none and speaks no TLS.
pub const DEFAULT_PORT: u16 = 8500;
/// The port of an endpoint that names none and speaks TLS.
pub const DEFAULT_TLS_PORT: u16 = 8501;
/// How long connecting to one endpoint may take by default.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one request may take by default, and a blocking query beyond the time that it was asked to wait.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server is asked by default to wait for a change.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(55);
/// How old an answer of a server or cache that does not lead may be by default.
pub const DEFAULT_MAX_STALE: Duration = Duration::from_secs(10);
/// After how long in a critical state Consul is asked by default to remove a registration.
pub const DEFAULT_DEREGISTER_CRITICAL_AFTER: Duration = Duration::from_mins(1);
/// The key of a node's metadata that names its zone by default.
pub const DEFAULT_ZONE_META: &str = "zone";
/// Under which key elections are held by default.
pub const DEFAULT_ELECTION_PREFIX: &str = "elections";
/// How long by default nobody may lead after a leader was lost: Consul's own default.
pub const DEFAULT_LOCK_DELAY: Duration = Duration::from_secs(15);

pub(crate) const MAX_TEXT_BYTES: usize = 512;
pub(crate) const MAX_FILTER_BYTES: usize = 4096;
pub(crate) const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(1);
/// Consul waits 10 min at most, whatever it is asked.
pub(crate) const WAITS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(10);
pub(crate) const AGES: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_hours(24);
/// Consul raises what is shorter.
pub(crate) const DEREGISTER_AFTER: RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(7 * 24);
pub(crate) const LOCK_DELAYS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(1);

/// A token goes into a header. It is not repeated when it is refused.
pub(crate) fn check_token(key: &str, token: &str) -> Result<()> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(RULES.broken(
            key,
            "must be printable ASCII characters without white space",
        ));
    }
    Ok(())
}
