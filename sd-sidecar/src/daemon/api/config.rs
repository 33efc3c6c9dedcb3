//! What the API is told about itself.

use std::time::Duration;

use serde::Deserialize;

/// Bounds and times of the API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ApiConfig {
    /// The largest body of a request, in bytes. Default 1 MiB.
    pub most_body_bytes: usize,
    /// How long a request's body may take to arrive. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub body_within: Duration,
    /// How many streams and long polls may be open. Default 4 096.
    pub most_streams: usize,
    /// How many services are followed at once for those who read them. Default 1 024.
    pub most_followed: usize,
    /// For how long a service is followed after its last reader has gone. Default 1 min.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How long an answer waits for the first read of a service. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub first_read_within: Duration,
    /// The longest `wait` of a long poll. Default 5 min.
    #[serde(with = "humantime_serde")]
    pub longest_wait: Duration,
    /// From one sign of life of a stream to the next. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How long a drain lasts that names no time. Default 20 s.
    #[serde(with = "humantime_serde")]
    pub default_grace: Duration,
    /// How long `POST /register`, `/drain` and `/deregister` wait for the registry to confirm. Default 2 s: clients of the reference system give
    /// up after 3 s, and ask again.
    #[serde(with = "humantime_serde")]
    pub legacy_within: Duration,
    /// Whether `POST /deregister` of what is not registered is an error, as it is in the reference system. Default false.
    pub strict_deregister: bool,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            most_body_bytes: 1024 * 1024,
            body_within: Duration::from_secs(10),
            most_streams: 4096,
            most_followed: 1024,
            linger: Duration::from_secs(60),
            first_read_within: Duration::from_secs(5),
            longest_wait: Duration::from_secs(5 * 60),
            heartbeat: Duration::from_secs(5),
            default_grace: Duration::from_secs(20),
            legacy_within: Duration::from_secs(2),
            strict_deregister: false,
        }
    }
}
