//! What a channel's owner may set.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use sd_core::balance::Selection;
use sd_core::{Error, Result};

use crate::labels::CallLabels;
use crate::options::AnsweredBy;
use crate::throttle::RetryThrottle;

/// How a channel connects, waits and retries.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ChannelConfig {
    /// Which instances are connected, and which of them are preferred. Default all.
    pub selection: Selection,
    /// How long opening a connection may take: dialing, TLS and the server's SETTINGS together. Must not be
    /// zero. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// The delay before the first reconnect after a failure; each further failure doubles it. All delays have full jitter. A
    /// connection that was good is replaced at once: it answered a call, or lasted [`good_after`](Self::good_after), or lasted
    /// this long and ended with a GOAWAY without an error. Default 200 ms.
    #[serde(with = "humantime_serde")]
    pub reconnect_first: Duration,
    /// The longest delay between attempts to connect to one endpoint. Default 20 s.
    #[serde(with = "humantime_serde")]
    pub reconnect_cap: Duration,
    /// How long a connection that answered no call must last to count as good, which resets the delay. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub good_after: Duration,
    /// How many connections may be opening at once, at least 1. Default 100.
    pub connect_parallelism: usize,
    /// How long a call waits while the set is unknown or its endpoints are connecting; a shorter deadline applies first.
    /// Default 3 s.
    #[serde(with = "humantime_serde")]
    pub connect_wait: Duration,
    /// How many calls may wait for an endpoint at once; further calls fail with `RESOURCE_EXHAUSTED`. Default 10 000.
    pub max_waiting: usize,
    /// Whether a call waits until its deadline for an endpoint instead of failing when there is none. Default false;
    /// [`WaitForReady`](crate::WaitForReady) sets it for one call.
    pub wait_for_ready: bool,
    /// The deadline of calls that set none, counted from their start. Must not be zero. Default none.
    #[serde(with = "humantime_serde")]
    pub default_deadline: Option<Duration>,
    /// How long an attempt of an idempotent call may wait for the response's first message, or for what
    /// [`answered_by`](Self::answered_by) says instead, before the call moves to another endpoint. The last attempt may use
    /// all the time that is left. Must not be zero. Default none.
    #[serde(with = "humantime_serde")]
    pub attempt_timeout: Option<Duration>,
    /// How many attempts an idempotent call may make, at least 1. Requests that were never sent do not count, nor does the
    /// first one that a server refuses. Default 5.
    pub max_attempts: u32,
    /// The delay before the first retry; each further retry doubles it. All delays have full jitter. Default 50 ms.
    #[serde(with = "humantime_serde")]
    pub retry_first: Duration,
    /// The longest delay between attempts. Default 1 s.
    #[serde(with = "humantime_serde")]
    pub retry_cap: Duration,
    /// Stops retries while most calls fail.
    pub retry_throttle: RetryThrottle,
    /// How many bytes the channel may keep for resending streamed requests: over all of them, with at most 64 KiB for one. A
    /// request beyond that is sent only once. Default 16 MiB.
    pub replay_budget: usize,
    /// Paths of methods that are safe to execute twice, such as `/greeter.Greeter/SayHello`; each starts with `/`.
    /// [`Idempotent`](crate::Idempotent) marks one call. [`AnsweredBy`] says what this means for streamed responses. Default
    /// none.
    pub idempotent_methods: BTreeSet<String>,
    /// Which part of the response answers an idempotent call, by method path, where it is not the first message. An
    /// [`AnsweredBy`] in a request overrides this for one call. Default none.
    pub answered_by: BTreeMap<String, AnsweredBy>,
    /// After how many calls in a row that timed out or were dropped, without a sign of life from the server, it is asked by an
    /// HTTP/2 PING whether it is there. If it does not answer within 1 s, the connection counts as silent: it is replaced and
    /// gets no more calls. Calls that overlap count as one; calls that waited less than 100 ms do not count. 0 means never.
    /// Default 3.
    pub silent_after: u32,
    /// After how many calls in a row that were turned away an endpoint is ejected: it gets no calls for 1 s, and then twice as
    /// long each time that its next call is turned away, at most 1 min. A call is turned away by UNAVAILABLE, by a reset, or by
    /// an answer that is not gRPC's. At most half of the connected endpoints are ejected: when more would be, because others
    /// broke or were removed, the ones whose time is over first get calls again. 0 means never. Default 5.
    pub eject_after: u32,
    /// HTTP/2 pings that detect dead connections. Default none, because many servers close a connection that is pinged more
    /// often than their policy allows, which is often every 5 minutes.
    pub keep_alive: Option<KeepAlive>,
    /// How many connections an endpoint may have when it allows too few streams on one, at least 1. Default 4.
    pub max_connections: usize,
    /// Which share of the process's file descriptors the connections of the channel may take, those that are opening or ending included:
    /// more than 0 and at most 1, and always one connection. The limit is `RLIMIT_NOFILE` as it is when a connection is to be opened.
    /// Endpoints beyond it count as failing, and are tried again as after a failure. The last tenth, at least one connection, is kept for
    /// endpoints that have none; an endpoint that moves may exceed it by one. `None` for connectors that use no descriptors.
    /// Does nothing where there is no such limit, such as on Windows. Default 0.5.
    pub descriptor_share: Option<f64>,
    /// How many streams a connection may carry at once, at least 1; the server's own limit also applies. Default none.
    pub max_streams: Option<u32>,
    /// How large the headers or trailers of a response may be, in bytes as HTTP/2 counts them: names, values and 32 for each
    /// field. A larger response fails its call with INTERNAL, and the call is tried nowhere else. At least 16 KiB. Default 1 MiB.
    pub max_header_list_size: u32,
    /// How many bytes of one response may have come without being read, from 64 KiB to 2 GiB. Default 2 MiB.
    pub stream_window: u32,
    /// How many bytes of all responses on one connection may have come without being read, from
    /// [`stream_window`](Self::stream_window) to 2 GiB. Should be far larger than that: once so many responses are not read that
    /// they fill it, no call on this connection gets an answer. Default 64 MiB.
    pub connection_window: u32,
    /// How long a connection beyond an endpoint's first stays open without calls. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub close_idle_after: Duration,
    /// How long calls in flight may continue after their endpoint is removed or the channel is closed. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// Which labels the [durations of calls](crate::instrument::CALL_DURATION) have. Default the first 100 methods, and no endpoints.
    pub call_labels: CallLabels,
}

/// HTTP/2 keep-alive pings. The interval doubles when a server complains of too many pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct KeepAlive {
    /// How long the server must be silent before a ping is sent, at least 1 s.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How long the server may take to answer a ping.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Whether to ping while no call is in flight.
    #[serde(default)]
    pub while_idle: bool,
}

impl KeepAlive {
    /// Pings after `interval` of silence, at least 1 s, and waits `timeout` for the answer. Not while no call is in flight.
    pub fn new(interval: Duration, timeout: Duration) -> Self {
        Self {
            interval,
            timeout,
            while_idle: false,
        }
    }

    /// Sets whether to ping while no call is in flight.
    #[must_use]
    pub fn with_while_idle(mut self, ping: bool) -> Self {
        self.while_idle = ping;
        self
    }
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
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
            eject_after: 5,
            keep_alive: None,
            max_connections: 4,
            descriptor_share: Some(0.5),
            max_streams: None,
            max_header_list_size: 1024 * 1024,
            stream_window: 2 * 1024 * 1024,
            connection_window: 64 * 1024 * 1024,
            close_idle_after: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            call_labels: CallLabels::default(),
        }
    }
}

/// What HTTP/2 allows.
const MOST_WINDOW: u32 = (1 << 31) - 1;

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
                self.descriptor_share
                    .is_some_and(|share| !(share > 0.0 && share <= 1.0)),
                "descriptor_share must be more than 0 and at most 1",
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
                self.max_header_list_size < 16 * 1024,
                "max_header_list_size must be at least 16 KiB",
            ),
            (
                !(64 * 1024..=MOST_WINDOW).contains(&self.stream_window),
                "stream_window must be between 64 KiB and 2 GiB - 1",
            ),
            (
                !(self.stream_window..=MOST_WINDOW).contains(&self.connection_window),
                "connection_window must be between stream_window and 2 GiB - 1",
            ),
            (
                !are_paths(self.idempotent_methods.iter()),
                "idempotent_methods must hold paths such as /package.Service/Method",
            ),
            (
                !are_paths(self.answered_by.keys()),
                "answered_by must hold paths such as /package.Service/Method",
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
