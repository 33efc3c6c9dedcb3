//! How a module's session and its configuration are.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sd_core::{Error, ErrorKind, Result};
use serde::Serialize;

/// How the session of a module is, which brings its configuration, the routes and the addresses of other modules. From
/// [`Module::health`](crate::Module::health). Serializes to JSON; its display form is one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ModuleHealth {
    /// The module.
    pub module: String,
    /// How its session is.
    pub session: SessionHealth,
    /// How long it has been like that.
    pub lasting: Duration,
    /// What became of the last configuration.
    pub config: ConfigHealth,
    /// How many addresses each required module has. `None` as long as the service has told of none in this session.
    pub required: BTreeMap<String, Option<usize>>,
}

/// How a session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum SessionHealth {
    /// Nothing has needed a session yet.
    NotStarted,
    /// The service has told all that was asked for.
    Established {
        /// Where the service is.
        endpoint: String,
    },
    /// There is no session, and another one is tried.
    Down {
        /// Why the last attempt or the last session has ended.
        error: String,
    },
}

/// What became of the last configuration that came. The protocol has no word for it: the service does not learn it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum ConfigHealth {
    /// None is asked for.
    None,
    /// None has come yet.
    Awaited,
    /// The receiver has applied it.
    Applied,
    /// The receiver has not applied it. The one before stays in use, if there was one.
    Rejected {
        /// Why, without any value of it.
        reason: String,
        /// Whether one was applied before.
        has_earlier: bool,
    },
}

impl ConfigHealth {
    /// Whether a configuration is in use, or none is asked for.
    pub fn is_usable(&self) -> bool {
        match self {
            Self::None | Self::Applied => true,
            Self::Awaited => false,
            Self::Rejected { has_earlier, .. } => *has_earlier,
        }
    }
}

impl ModuleHealth {
    /// Succeeds if the session is established, as the health check `configServiceConnection` of modules in Go.
    ///
    /// # Errors
    /// `Unavailable` says why there is none.
    pub fn check(&self) -> Result<()> {
        const OP: &str = "cluster: health";
        let error = Error::new(ErrorKind::Unavailable, OP);
        match &self.session {
            SessionHealth::Established { .. } => Ok(()),
            SessionHealth::NotStarted => Err(error.because("the session was not started yet")),
            SessionHealth::Down { error: why } => Err(error.because(format!(
                "there is no session since {:?}: {why}",
                self.lasting
            ))),
        }
    }
}

impl fmt::Display for ModuleHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.session {
            SessionHealth::NotStarted => f.write_str("not started")?,
            SessionHealth::Established { endpoint } => {
                write!(f, "connected to {endpoint} for {:?}", self.lasting)?;
            }
            SessionHealth::Down { error } => {
                write!(f, "not connected for {:?}: {error}", self.lasting)?;
            }
        }
        match &self.config {
            ConfigHealth::None => {}
            ConfigHealth::Awaited => f.write_str("; the configuration has not come")?,
            ConfigHealth::Applied => f.write_str("; the configuration is applied")?,
            ConfigHealth::Rejected { reason, .. } => {
                write!(f, "; the configuration is rejected: {reason}")?;
            }
        }
        for (module, addresses) in &self.required {
            match addresses {
                Some(0) => write!(f, "; {module} has no instance")?,
                Some(_) => {}
                None => write!(f, "; {module} is not known yet")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_one_line_and_says_what_is_missing() {
        let mut health = ModuleHealth {
            module: "m".to_owned(),
            session: SessionHealth::Down {
                error: "refused".to_owned(),
            },
            lasting: Duration::from_secs(2),
            config: ConfigHealth::Rejected {
                reason: "workers: too few".to_owned(),
                has_earlier: false,
            },
            required: [("a", Some(0)), ("b", Some(1)), ("c", None)]
                .map(|(name, count)| (name.to_owned(), count))
                .into(),
        };
        assert_eq!(
            health.to_string(),
            "not connected for 2s: refused; the configuration is rejected: workers: too few; a has no instance; c is not known yet"
        );
        assert!(health.check().is_err() && !health.config.is_usable());
        health.session = SessionHealth::Established {
            endpoint: "h:1".to_owned(),
        };
        health.check().unwrap();
        let json = serde_json::to_value(&health).unwrap();
        assert_eq!(json["session"]["state"], "established");
        assert_eq!(json["config"]["reason"], "workers: too few");
    }
}
