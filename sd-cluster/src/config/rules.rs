//! What the settings are called in errors, what they are by default, and within which bounds they lie.

use std::ops::RangeInclusive;
use std::time::Duration;

use sd_backend::Rules;

/// Names the setting in each error.
pub(crate) const RULES: Rules = Rules::new("cluster: configuration");

/// The settings that name files.
pub(crate) const FILES: &str = "ca, cert and key";

/// The schemes of registry URLs for isp-config-service. The second one asks for TLS.
pub const URL_SCHEMES: [&str; 2] = ["isp", "isps"];
/// The port of an endpoint without one.
pub const DEFAULT_PORT: u16 = 9001;
/// How long a connection may take by default, until it is a WebSocket.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the exchange that begins a session may take by default, with its connection.
pub const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the service is asked for a sign of life by default.
pub const DEFAULT_PING_INTERVAL: Duration = Duration::from_secs(2);
/// What a module is called that names no version.
pub const DEFAULT_VERSION: &str = "0.0.0";

/// A session is over when nothing has come for so many ping intervals.
pub(crate) const SILENT_INTERVALS: u32 = 3;
pub(crate) const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
pub(crate) const PING_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(20);
