//! What a channel's owner may set.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sd_core::{Error, Result};

use crate::options::AnsweredBy;
use crate::throttle::RetryThrottle;

/// How a channel connects, waits and retries.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChannelConfig {
    /// How long opening a connection may take: dialling, TLS and the server's SETTINGS together. Default 10 s.
    pub connect_timeout: Duration,
    /// The first delay after a failed connection; later ones double, all with full jitter. A connection that was good for
    /// [`good_after`](Self::good_after) and breaks is replaced at once. Default 200 ms.
    pub reconnect_first: Duration,
    /// The longest delay between attempts to connect to one endpoint. Default 20 s.
    pub reconnect_cap: Duration,
    /// How long a connection must last to count as good, which resets the delay. Default 5 s.
    pub good_after: Duration,
    /// How many connections are being opened at once, at least 1. Default 100.
    pub connect_parallelism: usize,
    /// How long a call waits while the set is unknown or its endpoints are being connected. A deadline may be shorter.
    /// Default 3 s.
    pub connect_wait: Duration,
    /// How many calls may wait for an endpoint at once; further ones fail with `RESOURCE_EXHAUSTED`. Default 10 000.
    pub max_waiting: usize,
    /// Whether calls wait until their deadline for an endpoint instead of failing when there is none. Default false;
    /// [`WaitForReady`](crate::WaitForReady) sets it for one call.
    pub wait_for_ready: bool,
    /// The deadline of calls that bring none. Default none.
    pub default_deadline: Option<Duration>,
    /// How long an attempt of an idempotent call may wait for the response's first message, or for what
    /// [`answered_by`](Self::answered_by) says instead, before the call moves elsewhere. The last attempt may take all the time
    /// that is left. Default none.
    pub attempt_timeout: Option<Duration>,
    /// How many attempts an idempotent call has, at least 1. What was never sent does not count. Default 5.
    pub max_attempts: u32,
    /// The first delay between attempts; later ones double, all with full jitter. Default 50 ms.
    pub retry_first: Duration,
    /// The longest delay between attempts. Default 1 s.
    pub retry_cap: Duration,
    /// What stops retries while most calls fail.
    pub retry_throttle: RetryThrottle,
    /// How many bytes of all streamed requests together are kept for sending them again, of one at most 64 KiB. Beyond that
    /// they are sent once. Default 16 MiB.
    pub replay_budget: usize,
    /// Paths of methods that may be executed twice, such as `/greeter.Greeter/SayHello`.
    /// [`Idempotent`](crate::Idempotent) marks one call, and says what the mark does to methods that answer with a stream.
    /// Default none.
    pub idempotent_methods: BTreeSet<String>,
    /// What answers the calls of idempotent methods, by path, where it is not the first message.
    /// [`AnsweredBy`](crate::AnsweredBy) in a request says so of one call. Default none.
    pub answered_by: BTreeMap<String, AnsweredBy>,
    /// After how many time-outs one after another, without a single byte from the server, its connection counts as silent:
    /// it is replaced and gets no more calls. Attempts that time out together count as one, and those that waited less than
    /// 100 ms not at all. 0 for never. Default 3.
    pub silent_after: u32,
    /// HTTP/2 pings that find dead connections. Default none, because many servers answer pings more frequent than their
    /// policy, often 5 minutes, by closing the connection.
    pub keep_alive: Option<KeepAlive>,
    /// How many connections one endpoint may have when it allows too few streams on one, at least 1. Default 4.
    pub max_connections: usize,
    /// How many streams a connection may have at once, beside what the server allows. Default none.
    pub max_streams: Option<u32>,
    /// When a connection beyond an endpoint's first one is closed for want of calls. Default 30 s.
    pub close_idle_after: Duration,
    /// How long calls in flight may go on when their endpoint is removed or the channel closed. Default 30 s.
    pub drain_timeout: Duration,
}

/// HTTP/2 keep-alive pings. The interval doubles when a server answers that there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// How long the server must be silent before it is asked, at least 1 s.
    pub interval: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
    /// Whether to ask while no call is in flight.
    pub while_idle: bool,
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            reconnect_first: Duration::from_millis(200),
            reconnect_cap: Duration::from_secs(20),
            good_after: Duration::from_secs(5),
            connect_parallelism: 100,
            connect_wait: Duration::from_secs(3),
            max_waiting: 10_000,
            wait_for_ready: false,
            default_deadline: None,
            attempt_timeout: None,
            max_attempts: 5,
            retry_first: Duration::from_millis(50),
            retry_cap: Duration::from_secs(1),
            retry_throttle: RetryThrottle::default(),
            replay_budget: 16 * 1024 * 1024,
            idempotent_methods: BTreeSet::new(),
            answered_by: BTreeMap::new(),
            silent_after: 3,
            keep_alive: None,
            max_connections: 4,
            max_streams: None,
            close_idle_after: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl ChannelConfig {
    /// Checks what the types cannot.
    pub(crate) fn check(&self) -> Result<()> {
        let ratio = self.retry_throttle.token_ratio;
        let rules = [
            (
                self.connect_timeout.is_zero(),
                "connect_timeout must not be zero",
            ),
            (
                self.connect_parallelism == 0,
                "connect_parallelism must be at least 1",
            ),
            (self.max_attempts == 0, "max_attempts must be at least 1"),
            (
                self.max_connections == 0,
                "max_connections must be at least 1",
            ),
            (
                self.max_streams == Some(0),
                "max_streams must be at least 1",
            ),
            (
                self.attempt_timeout == Some(Duration::ZERO),
                "attempt_timeout must not be zero",
            ),
            (
                self.default_deadline == Some(Duration::ZERO),
                "default_deadline must not be zero",
            ),
            (
                !(0.0..=1.0).contains(&ratio),
                "retry_throttle.token_ratio must be between 0 and 1",
            ),
            (
                self.keep_alive
                    .is_some_and(|keep| keep.interval < Duration::from_secs(1)),
                "keep_alive.interval must be at least 1 s",
            ),
            (
                !are_paths(self.idempotent_methods.iter()),
                "idempotent_methods holds paths such as /package.Service/Method",
            ),
            (
                !are_paths(self.answered_by.keys()),
                "answered_by holds paths such as /package.Service/Method",
            ),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err(Error::invalid_input("build channel", rule)),
            None => Ok(()),
        }
    }
}

fn are_paths<'a>(mut methods: impl Iterator<Item = &'a String>) -> bool {
    methods.all(|path| path.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_a_broken_rule_is_named() {
        assert!(ChannelConfig::default().check().is_ok());
        let config = ChannelConfig {
            max_attempts: 0,
            ..ChannelConfig::default()
        };
        let error = config.check().unwrap_err().report().to_string();
        assert!(error.contains("max_attempts"), "{error}");
    }
}
