//! How a process finds its agent, and what it does at its end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::address::without_user;
use super::error::{AgentError, Result};
use super::parts::ErrorHandler;
use super::watch_source::WatchSource;
#[cfg(feature = "tls")]
use crate::tls::ClientTls;
use crate::wire::dialect::Dialect;

/// Where the reference system's agents listen.
pub const DEFAULT_BASE_URL: &str = "http://127.0.0.1:15010";
/// The path of an agent's stream.
pub const DEFAULT_WATCH_PATH: &str = "/watch";
/// What a request may take: longer than an agent takes to say that the registry does not answer.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest pause before the next attempt to connect.
pub const DEFAULT_RECONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// How a process finds its agent. As JSON or the like, spans of time are text such as `3s`.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    pub(crate) base_url: String,
    pub(crate) watch_url: String,
    token: Option<String>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<ClientTls>,
    #[serde(with = "humantime_serde")]
    pub(crate) grace_period: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) request_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) reconnect_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) silence: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) shutdown_within: Duration,
    #[serde(with = "humantime_serde")]
    pub(crate) deregister_within: Duration,
    #[serde(skip)]
    pub(crate) dialect: Dialect,
    pub(crate) on_lifecycle_failure: OnLifecycleFailure,
}

/// What a failure to watch the agent does to a process that [runs](super::Agent::run). One that the next attempt may mend is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLifecycleFailure {
    /// The process goes on serving, and the agent is watched again after a pause.
    #[default]
    KeepServing,
    /// The process ends in order.
    Exit,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self::new("")
    }
}

impl AgentConfig {
    /// What the process's own end may take by default.
    pub const DEFAULT_SHUTDOWN_WITHIN: Duration = Duration::from_secs(10);
    /// What leaving the registry may take by default.
    pub const DEFAULT_DEREGISTER_WITHIN: Duration = Duration::from_secs(5);

    /// The agent at `base_url`: `http://host:port`, `unix:/path`, or with the feature `tls` `https://host:port`. Blank, it is [`DEFAULT_BASE_URL`].
    pub fn new(base_url: &str) -> Self {
        Self {
            base_url: base_url.to_owned(),
            watch_url: String::new(),
            token: None,
            #[cfg(feature = "tls")]
            tls: None,
            grace_period: None,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
            reconnect_interval: DEFAULT_RECONNECT_INTERVAL,
            silence: WatchSource::DEFAULT_SILENCE,
            shutdown_within: Self::DEFAULT_SHUTDOWN_WITHIN,
            deregister_within: Self::DEFAULT_DEREGISTER_WITHIN,
            dialect: Dialect::default(),
            on_lifecycle_failure: OnLifecycleFailure::default(),
        }
        .normalized()
    }

    /// Blanks and zeros stand for the defaults.
    pub(crate) fn normalized(mut self) -> Self {
        let base = self.base_url.trim().trim_end_matches('/');
        self.base_url = match base {
            "" => DEFAULT_BASE_URL,
            base => base,
        }
        .to_owned();
        self.watch_url = self.watch_url.trim().to_owned();
        self.grace_period = self.grace_period.filter(|grace| !grace.is_zero());
        for (span, default) in [
            (&mut self.request_timeout, DEFAULT_REQUEST_TIMEOUT),
            (&mut self.reconnect_interval, DEFAULT_RECONNECT_INTERVAL),
            (&mut self.silence, WatchSource::DEFAULT_SILENCE),
            (&mut self.shutdown_within, Self::DEFAULT_SHUTDOWN_WITHIN),
            (&mut self.deregister_within, Self::DEFAULT_DEREGISTER_WITHIN),
        ] {
            if span.is_zero() {
                *span = default;
            }
        }
        self
    }

    /// Sets the URL of the stream. By default it is [`DEFAULT_WATCH_PATH`] at the base URL.
    #[must_use]
    pub fn with_watch_url(mut self, url: &str) -> Self {
        url.clone_into(&mut self.watch_url);
        self
    }

    /// Sets the token that the agent asks for.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets whom to trust over TLS, and what to show. By default what [`ClientTls`] says. It is refused beside an address with `http://`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets how long the process goes on serving at its end, so that others hear that it wants no more calls. Without it, the default,
    /// it is deregistered without a drain.
    #[must_use]
    pub fn with_grace_period(mut self, grace: Duration) -> Self {
        self.grace_period = Some(grace);
        self
    }

    /// Sets what one request may take. Default 3 s.
    #[must_use]
    pub fn with_request_timeout(mut self, within: Duration) -> Self {
        self.request_timeout = within;
        self
    }

    /// Sets the shortest pause before the next attempt to connect. Default 1 s. Pauses grow up to 30 s.
    #[must_use]
    pub fn with_reconnect_interval(mut self, interval: Duration) -> Self {
        self.reconnect_interval = interval;
        self
    }

    /// Sets how long the stream may be silent before it counts as lost. Default 15 s, three heartbeats.
    #[must_use]
    pub fn with_silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Sets what the process's own end may take. Default 10 s.
    #[must_use]
    pub fn with_shutdown_within(mut self, within: Duration) -> Self {
        self.shutdown_within = within;
        self
    }

    /// Sets what a drain and what leaving the registry may take, each. Default 5 s.
    #[must_use]
    pub fn with_deregister_within(mut self, within: Duration) -> Self {
        self.deregister_within = within;
        self
    }

    /// Sends the bodies of one generation instead of those that all understand.
    #[must_use]
    pub fn with_dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Sets what a failure to watch the agent does to the process. Default [`KeepServing`](OnLifecycleFailure::KeepServing).
    #[must_use]
    pub fn with_on_lifecycle_failure(mut self, policy: OnLifecycleFailure) -> Self {
        self.on_lifecycle_failure = policy;
        self
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

impl fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("AgentConfig");
        #[cfg(feature = "tls")]
        shown.field("tls", &self.tls);
        shown
            .field("base_url", &without_user(&self.base_url))
            .field("watch_url", &without_user(&self.watch_url))
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("grace_period", &self.grace_period)
            .field("request_timeout", &self.request_timeout)
            .field("reconnect_interval", &self.reconnect_interval)
            .field("silence", &self.silence)
            .field("shutdown_within", &self.shutdown_within)
            .field("deregister_within", &self.deregister_within)
            .field("dialect", &self.dialect)
            .field("on_lifecycle_failure", &self.on_lifecycle_failure)
            .finish()
    }
}

pub(crate) type Work = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// What a process does besides, between [`Agent::run`](super::Agent::run) and its end.
#[derive(Default)]
pub struct RunConfig {
    pub(crate) serve: Option<Box<dyn FnOnce(CancellationToken) -> Work + Send>>,
    pub(crate) shutdown: Option<Box<dyn FnOnce() -> Work + Send>>,
    pub(crate) idle: Option<Work>,
    pub(crate) on_error: Option<ErrorHandler>,
    pub(crate) grace_period: Option<Duration>,
}

impl RunConfig {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the process's own work. It should end when its token is cancelled, which happens after the drain. When it ends by itself, so
    /// does the run.
    #[must_use]
    pub fn with_serve<F, E>(
        mut self,
        serve: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = std::result::Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.serve = Some(Box::new(|stop| own(serve(stop))));
        self
    }

    /// Sets what ends the process's own work, besides the token.
    #[must_use]
    pub fn with_shutdown<F, E>(mut self, shutdown: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = std::result::Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.shutdown = Some(Box::new(|| own(shutdown())));
        self
    }

    /// Sets what ends once no call is under way. After a drain the process goes on until then, and for the grace period at most. Without
    /// it, the whole grace period passes.
    #[must_use]
    pub fn with_idle(mut self, idle: impl Future<Output = ()> + Send + 'static) -> Self {
        self.idle = Some(Box::pin(async {
            idle.await;
            Ok(())
        }));
        self
    }

    /// Sets what hears of errors in the background. See [`ErrorHandler`].
    #[must_use]
    pub fn with_on_error(mut self, handler: impl Fn(&AgentError) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(handler));
        self
    }

    /// Sets another [grace period](AgentConfig::with_grace_period).
    #[must_use]
    pub fn with_grace_period(mut self, grace: Duration) -> Self {
        self.grace_period = Some(grace);
        self
    }

    /// Takes over what `newer` sets.
    pub(crate) fn merge(&mut self, newer: Self) {
        let Self {
            serve,
            shutdown,
            idle,
            on_error,
            grace_period,
        } = newer;
        self.serve = serve.or(self.serve.take());
        self.shutdown = shutdown.or(self.shutdown.take());
        self.idle = idle.or(self.idle.take());
        self.on_error = on_error.or(self.on_error.take());
        self.grace_period = grace_period.or(self.grace_period);
    }
}

fn own<E>(work: impl Future<Output = std::result::Result<(), E>> + Send + 'static) -> Work
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Box::pin(async { work.await.map_err(AgentError::own) })
}

impl fmt::Debug for RunConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunConfig")
            .field("serve", &self.serve.is_some())
            .field("shutdown", &self.shutdown.is_some())
            .field("idle", &self.idle.is_some())
            .field("on_error", &self.on_error.is_some())
            .field("grace_period", &self.grace_period)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_zeros_stand_for_the_defaults() {
        for (base, normal) in [
            ("", DEFAULT_BASE_URL),
            ("  ", DEFAULT_BASE_URL),
            (" http://a:1// ", "http://a:1"),
            ("http://a:1", "http://a:1"),
        ] {
            assert_eq!(AgentConfig::new(base).base_url, normal);
        }
        let config = AgentConfig::new("")
            .with_watch_url(" http://b:2/w ")
            .with_request_timeout(Duration::ZERO)
            .with_reconnect_interval(Duration::ZERO)
            .with_grace_period(Duration::ZERO)
            .normalized();
        assert_eq!(config.watch_url, "http://b:2/w");
        assert_eq!(config.request_timeout, DEFAULT_REQUEST_TIMEOUT);
        assert_eq!(config.reconnect_interval, Duration::from_secs(1));
        assert_eq!(
            (config.silence, config.grace_period),
            (Duration::from_secs(15), None)
        );
    }

    #[test]
    fn a_file_may_hold_it_and_its_token_is_not_shown() {
        let json = r#"{"base_url":"unix:/run/a.sock","token":"hunter2","grace_period":"1m30s","on_lifecycle_failure":"exit"}"#;
        let config: AgentConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config.grace_period, Some(Duration::from_secs(90)));
        assert_eq!(config.on_lifecycle_failure, OnLifecycleFailure::Exit);
        assert_eq!(config.token(), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
        let refused = AgentConfig::new("http://u:hunter2@a:1").with_watch_url("http://u:hunter2@a");
        assert!(!format!("{refused:?}").contains("hunter2"));
        assert!(serde_json::from_str::<AgentConfig>(r#"{"url":"x"}"#).is_err());
    }
}
