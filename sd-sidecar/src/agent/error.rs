//! What can go wrong between a process and its agent.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sd_core::{Printable, brief};

/// The result of what concerns the agent.
pub type Result<T, E = AgentError> = std::result::Result<T, E>;

/// Why something did not work between a process and its agent. Text from outside is cut and escaped.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// There is no address to watch the agent at.
    #[error("watch url is required")]
    WatchUrlRequired,
    /// The agent has ended the stream.
    #[error("watch stream closed")]
    WatchStreamClosed,
    /// The stream said nothing, not even a heartbeat.
    #[error("watch stream silent for {after:?}: the agent hangs, or the connection is lost")]
    WatchStreamSilent {
        /// For so long.
        after: Duration,
    },
    /// The agent refused the stream.
    #[error("watch stream refused: {status}")]
    WatchHttpStatus {
        /// The status.
        code: u16,
        /// The status with its words.
        status: String,
    },
    /// An event of the stream cannot be read.
    #[error("watch event cannot be read: event={event_type} id={event_id}: {reason}: {payload}")]
    WatchEventParse {
        /// The name of the event.
        event_type: String,
        /// Its id.
        event_id: String,
        /// The beginning of what it said.
        payload: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The agent did not register a service after a connection to it began, or after the service changed.
    #[error("register replay failed{}: {error}", Named { service_name, service_port: *service_port })]
    RegisterReplay {
        /// The service.
        service_name: String,
        /// Its port.
        service_port: u16,
        /// Why.
        #[source]
        error: Arc<AgentError>,
    },
    /// The agent answered that it did not do what it was asked.
    #[error("sidecar api request failed: {0}")]
    Api(ApiFailure),
    /// The agent was not reached, or did not answer in words of its protocol.
    #[error("{what}: {reason}")]
    Transport {
        /// What was tried, and where.
        what: String,
        /// What went wrong.
        reason: String,
    },
    /// Something did not end in its time.
    #[error("{what} did not end within {after:?}")]
    TimedOut {
        /// What was tried.
        what: String,
        /// The time it had.
        after: Duration,
    },
    /// What the process said of itself, or how it was configured, is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The registry, where there is no agent between it and the process.
    #[error("{}", .0.report())]
    Registry(#[source] sd_core::Error),
    /// What the process itself runs has failed.
    #[error("{0}")]
    Own(#[source] Arc<dyn StdError + Send + Sync>),
}

impl AgentError {
    /// An error of the process itself.
    pub fn own(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Own(Arc::from(error.into()))
    }

    /// The agent does not have the service. Those of the first generation only say so in words, and so does a registry in its place.
    pub(crate) fn is_not_found(&self) -> bool {
        const WORDS: &str = "local service not found";
        match self {
            Self::Api(failure) => {
                failure.code == "service_not_found" || failure.message.starts_with(WORDS)
            }
            Self::Invalid(what) => what.starts_with(WORDS),
            _ => false,
        }
    }

    pub(crate) fn transport(what: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self::Transport {
            what: what.to_string(),
            reason: printable(reason),
        }
    }

    /// A stable name, as [`Status::last_error_kind`](super::Status::last_error_kind) has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::WatchStreamClosed => "watch_stream_closed",
            Self::WatchStreamSilent { .. } => "watch_stream_silent",
            Self::WatchHttpStatus { .. } => "watch_http_status",
            Self::WatchEventParse { .. } => "watch_event_parse",
            Self::RegisterReplay { .. } => "register_replay",
            Self::Api(_) => "sidecar_api",
            _ => "runtime_error",
        }
    }
}

/// At most 256 bytes, escaped.
pub(crate) fn printable(text: impl fmt::Display) -> String {
    brief(Printable(&brief(text)))
}

/// The service of an error, as far as it is known.
struct Named<'a> {
    service_name: &'a str,
    service_port: u16,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.service_name.is_empty() || self.service_port > 0 {
            f.write_str(":")?;
        }
        if !self.service_name.is_empty() {
            write!(f, " service={}", Printable(self.service_name))?;
        }
        if self.service_port > 0 {
            write!(f, " port={}", self.service_port)?;
        }
        Ok(())
    }
}

/// An answer of the agent that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiFailure {
    /// The method of the request.
    pub method: &'static str,
    /// The path of the request.
    pub path: String,
    /// The status.
    pub status_code: u16,
    /// The status in words.
    pub status: String,
    /// The agent's code, such as `register_failed`. Empty if it has sent none.
    pub code: String,
    /// What the agent says. Empty if it has said nothing.
    pub message: String,
}

impl fmt::Display for ApiFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} returned {}",
            self.method, self.path, self.status_code
        )?;
        if self.code.is_empty() {
            if !self.status.is_empty() {
                write!(f, " {}", self.status)?;
            }
        } else {
            write!(f, " ({})", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// At what stage of a run something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Watching the agent.
    Lifecycle,
    /// The process's own work.
    Serve,
    /// The end of the process's own work.
    Shutdown,
    /// Draining and deregistering at the agent.
    AgentShutdown,
}

impl Stage {
    /// The name of the stage.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lifecycle => "lifecycle",
            Self::Serve => "serve",
            Self::Shutdown => "shutdown",
            Self::AgentShutdown => "agent_shutdown",
        }
    }
}

/// What failed in a run, or at the end of one: all of it, in the order in which it happened. There is at least one failure.
#[derive(Clone, Debug)]
pub struct AgentRunError {
    failures: Vec<(Stage, AgentError)>,
}

impl AgentRunError {
    /// `Ok` if nothing failed.
    pub(crate) fn check(failures: Vec<(Stage, AgentError)>) -> std::result::Result<(), Self> {
        if failures.is_empty() {
            return Ok(());
        }
        Err(Self { failures })
    }

    /// The stage of what failed first.
    pub fn stage(&self) -> Stage {
        self.failures
            .first()
            .map_or(Stage::Serve, |(stage, _)| *stage)
    }

    /// All that failed.
    pub fn failures(&self) -> &[(Stage, AgentError)] {
        &self.failures
    }
}

impl fmt::Display for AgentRunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (stage, error)) in self.failures.iter().enumerate() {
            let before = if n > 0 { "; " } else { "" };
            write!(f, "{before}agent {} failed: {error}", stage.as_str())?;
        }
        Ok(())
    }
}

impl StdError for AgentRunError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let (_, error) = self.failures.first()?;
        Some(error)
    }
}

/// The agent is not watched any more.
#[derive(Clone, Debug, thiserror::Error)]
#[error("agent lifecycle run failed: {0}")]
pub struct LifecycleRunError(#[source] pub AgentError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_are_those_of_the_reference_system() {
        let api = |code: &str, message: &str| {
            AgentError::Api(ApiFailure {
                method: "POST",
                path: "/register".into(),
                status_code: 502,
                status: "Bad Gateway".into(),
                code: code.into(),
                message: message.into(),
            })
        };
        let begin = "sidecar api request failed: POST /register returned 502";
        assert_eq!(
            api("register_failed", "no").to_string(),
            format!("{begin} (register_failed): no")
        );
        assert_eq!(
            api("register_failed", "").to_string(),
            format!("{begin} (register_failed)")
        );
        assert_eq!(api("", "").to_string(), format!("{begin} Bad Gateway"));

        let replay = |service_name: &str, service_port| {
            let error = Arc::new(AgentError::WatchUrlRequired);
            AgentError::RegisterReplay {
                service_name: service_name.into(),
                service_port,
                error,
            }
        };
        assert_eq!(
            replay("auth", 9090).to_string(),
            "register replay failed: service=auth port=9090: watch url is required"
        );
        assert_eq!(
            replay("", 0).to_string(),
            "register replay failed: watch url is required"
        );
        assert!(replay("auth", 0).source().is_some());
    }

    #[test]
    fn each_error_has_the_kind_of_the_reference_system() {
        let parse = AgentError::WatchEventParse {
            event_type: String::new(),
            event_id: String::new(),
            payload: String::new(),
            reason: String::new(),
        };
        let status = AgentError::WatchHttpStatus {
            code: 503,
            status: String::new(),
        };
        let replay = AgentError::RegisterReplay {
            service_name: String::new(),
            service_port: 0,
            error: Arc::new(AgentError::WatchStreamClosed),
        };
        for (error, kind) in [
            (AgentError::WatchStreamClosed, "watch_stream_closed"),
            (status, "watch_http_status"),
            (parse, "watch_event_parse"),
            (replay, "register_replay"),
            (AgentError::own("no"), "runtime_error"),
            (AgentError::WatchUrlRequired, "runtime_error"),
        ] {
            assert_eq!(error.kind(), kind);
        }
    }

    #[test]
    fn a_run_tells_all_that_failed_with_its_stage() {
        let failures = vec![
            (Stage::Shutdown, AgentError::own("stuck")),
            (Stage::AgentShutdown, AgentError::WatchStreamClosed),
        ];
        let error = AgentRunError::check(failures).unwrap_err();
        assert_eq!(
            error.to_string(),
            "agent shutdown failed: stuck; agent agent_shutdown failed: watch stream closed"
        );
        assert_eq!(error.stage(), Stage::Shutdown);
        assert!(error.source().is_some());
        assert!(AgentRunError::check(Vec::new()).is_ok());
        let lifecycle = LifecycleRunError(AgentError::WatchUrlRequired);
        assert_eq!(
            lifecycle.to_string(),
            "agent lifecycle run failed: watch url is required"
        );
    }
}
