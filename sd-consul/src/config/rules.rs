//! Defaults and bounds of the settings, and the prefix of their errors.

use std::ops::RangeInclusive;
use std::time::Duration;

use sd_backend::Rules;
use sd_core::Result;

pub(crate) const RULES: Rules = Rules::new("consul: configuration");
/// The settings that name files.
pub(crate) const FILES: &str = "token_file, ca, cert and key";

/// The schemes of registry URLs for Consul. The second one asks for TLS.
pub const URL_SCHEMES: [&str; 2] = ["consul", "consul+https"];
/// The default agent: the one on this machine.
pub const DEFAULT_ENDPOINT: &str = "127.0.0.1:8500";
/// The default port of endpoints without TLS.
pub const DEFAULT_PORT: u16 = 8500;
/// The default port of endpoints with TLS.
pub const DEFAULT_TLS_PORT: u16 = 8501;
/// The default limit for connecting to one endpoint.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The default limit for one request, and for a blocking query beyond its wait.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a blocking query waits for a change by default.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(55);
/// The default limit for the age of answers from caches and from servers that do not lead.
pub const DEFAULT_MAX_STALE: Duration = Duration::from_secs(10);
/// After how long in a critical state Consul removes a registration by default.
pub const DEFAULT_DEREGISTER_CRITICAL_AFTER: Duration = Duration::from_secs(60);
/// The default key of a node's metadata that names its zone.
pub const DEFAULT_ZONE_META: &str = "zone";
/// The default key prefix of elections.
pub const DEFAULT_ELECTION_PREFIX: &str = "elections";
/// The default lock-delay, during which no candidate may lead after a leader was lost. It is Consul's own default.
pub const DEFAULT_LOCK_DELAY: Duration = Duration::from_secs(15);

pub(crate) const MAX_TEXT_BYTES: usize = 512;
pub(crate) const MAX_FILTER_BYTES: usize = 4096;
pub(crate) const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
/// Consul waits 10 min at most, whatever it is asked.
pub(crate) const WAITS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(10 * 60);
pub(crate) const AGES: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 3600);
/// Consul raises what is shorter.
pub(crate) const DEREGISTER_AFTER: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 3600);
pub(crate) const LOCK_DELAYS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);

/// A token goes into a header. It is not repeated when it is refused.
pub(crate) fn check_token(key: &str, token: &str) -> Result<()> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(RULES.broken(
            key,
            "must consist of printable ASCII characters without white space",
        ));
    }
    Ok(())
}
