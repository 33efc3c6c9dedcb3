//! How Consul learns that an instance is well: the check that is registered with it, and what checks say when it is read.

use std::time::Duration;

use sd_core::{Address, Error, Instance, Result};
use serde::{Deserialize, Serialize};

use crate::client::go_duration::go_duration;
use crate::config::ConsulConfig;
use crate::config::check_kind::CheckKind;

/// No single check takes longer.
const LONGEST_CHECK: Duration = Duration::from_secs(10);
/// How the checks of maintenance mode are called: of a node, and before the id of a service.
const NODE_MAINTENANCE: &str = "_node_maintenance";
pub(crate) const SERVICE_MAINTENANCE: &str = "_service_maintenance:";

/// The id that Consul gives the one check of a service.
pub(crate) fn check_id(service_id: &str) -> String {
    format!("service:{service_id}")
}

/// A check as it is registered with a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CheckDefinition {
    status: &'static str,
    deregister_critical_service_after: String,
    #[serde(flatten)]
    probe: Probe,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Probe {
    Ttl {
        #[serde(rename = "TTL")]
        ttl: String,
    },
    Grpc {
        #[serde(rename = "GRPC")]
        target: String,
        #[serde(rename = "GRPCUseTLS")]
        tls: bool,
        #[serde(flatten)]
        timing: Timing,
    },
    Http {
        #[serde(rename = "HTTP")]
        url: String,
        #[serde(flatten)]
        timing: Timing,
    },
    Tcp {
        #[serde(rename = "TCP")]
        target: String,
        #[serde(rename = "TCPUseTLS")]
        tls: bool,
        #[serde(flatten)]
        timing: Timing,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Timing {
    interval: String,
    timeout: String,
}

impl CheckDefinition {
    /// The check of an instance, made or waited for every `ttl`.
    ///
    /// # Errors
    /// `InvalidInput` if the agent cannot make it.
    pub(crate) fn new(
        op: &'static str,
        config: &ConsulConfig,
        instance: &Instance,
        ttl: Duration,
    ) -> Result<Self> {
        let endpoint = instance.endpoint();
        if config.check != CheckKind::Ttl && matches!(endpoint.address(), Address::Unix { .. }) {
            return Err(Error::invalid_input(
                op,
                format!("the agent cannot check the Unix socket {endpoint}: use check=ttl"),
            ));
        }
        let timing = Timing {
            interval: go_duration(ttl),
            timeout: go_duration(ttl.min(LONGEST_CHECK)),
        };
        let (path, tls) = (config.check_path.as_deref(), config.check_tls);
        let probe = match config.check {
            CheckKind::Ttl => Probe::Ttl {
                ttl: go_duration(ttl),
            },
            CheckKind::Grpc => Probe::Grpc {
                target: match path {
                    Some(service) => format!("{endpoint}/{service}"),
                    None => endpoint.to_string(),
                },
                tls,
                timing,
            },
            CheckKind::Http => Probe::Http {
                url: format!(
                    "{}://{endpoint}/{}",
                    if tls { "https" } else { "http" },
                    path.unwrap_or_default().trim_start_matches('/')
                ),
                timing,
            },
            CheckKind::Tcp => Probe::Tcp {
                target: endpoint.to_string(),
                tls,
                timing,
            },
        };
        Ok(Self {
            // One that is not ready begins where it gets no calls: it has no maintenance mode before it is registered.
            status: if instance.is_ready() {
                "passing"
            } else {
                "critical"
            },
            deregister_critical_service_after: go_duration(config.deregister_critical_after),
            probe,
        })
    }

    /// The same, which begins as failing.
    pub(crate) fn critical(mut self) -> Self {
        self.status = "critical";
        self
    }
}

/// A check as it is read.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Check {
    #[serde(rename = "CheckID")]
    pub(crate) id: String,
    #[serde(rename = "Status")]
    status: String,
    #[serde(rename = "Notes", default)]
    pub(crate) notes: String,
    #[serde(rename = "Type", default)]
    kind: String,
    /// The node of the agent that keeps it.
    #[serde(rename = "Node", default)]
    pub(crate) node: String,
}

/// What all checks of an instance and of its node say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// The worst state, maintenance mode left aside.
    pub(crate) state: State,
    /// Whether the node is in maintenance mode.
    pub(crate) node_maintenance: bool,
}

/// The state of one or more checks, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Passing,
    Warning,
    Critical,
}

impl Check {
    pub(crate) fn state(&self) -> State {
        match self.status.as_str() {
            "passing" => State::Passing,
            "warning" => State::Warning,
            _ => State::Critical,
        }
    }

    /// Whether the agent finds the state out by itself, with the kinds of checks that we register.
    fn is_probe(&self) -> bool {
        matches!(self.kind.as_str(), "grpc" | "http" | "tcp")
    }

    fn is_maintenance(&self) -> bool {
        self.id == NODE_MAINTENANCE || self.id.starts_with(SERVICE_MAINTENANCE)
    }
}

impl Health {
    pub(crate) fn of(checks: &[Check]) -> Self {
        let others = checks.iter().filter(|check| !check.is_maintenance());
        Self {
            state: others.map(Check::state).max().unwrap_or(State::Passing),
            node_maintenance: checks
                .iter()
                .any(|check| check.id == NODE_MAINTENANCE && check.state() != State::Passing),
        }
    }

    /// Whether the check with this id is one that the agent makes.
    pub(crate) fn is_probed(checks: &[Check], id: &str) -> bool {
        checks
            .iter()
            .any(|check| check.id == id && check.is_probe())
    }

    /// The state of one check; `None` if there is none with this id.
    pub(crate) fn of_check(checks: &[Check], id: &str) -> Option<State> {
        let found = checks.iter().find(|check| check.id == id);
        found.map(Check::state)
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    const TTL: Duration = Duration::from_millis(1500);

    fn check(id: &str, status: &str) -> Check {
        Check {
            id: id.to_owned(),
            status: status.to_owned(),
            notes: String::new(),
            kind: String::new(),
            node: String::new(),
        }
    }

    fn json(config: &ConsulConfig, address: &str) -> String {
        let instance = Instance::new("s", address).unwrap();
        let definition = CheckDefinition::new("test", config, &instance, TTL).unwrap();
        serde_json::to_string(&definition).unwrap()
    }

    #[test]
    fn each_kind_of_check_is_written_as_the_agent_reads_it() {
        let begin = r#"{"Status":"passing","DeregisterCriticalServiceAfter":"60000ms","#;
        let timing = r#""Interval":"1500ms","Timeout":"1500ms"}"#;
        let of = |kind| ConsulConfig::default().with_check(kind);
        for (config, rest) in [
            (of(CheckKind::Ttl), r#""TTL":"1500ms"}"#.to_owned()),
            (
                of(CheckKind::Grpc)
                    .with_check_path("pkg.Svc")
                    .with_check_tls(true),
                format!(r#""GRPC":"[::1]:7/pkg.Svc","GRPCUseTLS":true,{timing}"#),
            ),
            (
                of(CheckKind::Grpc),
                format!(r#""GRPC":"[::1]:7","GRPCUseTLS":false,{timing}"#),
            ),
            (
                of(CheckKind::Http).with_check_path("/health"),
                format!(r#""HTTP":"http://[::1]:7/health",{timing}"#),
            ),
            (
                of(CheckKind::Http).with_check_tls(true),
                format!(r#""HTTP":"https://[::1]:7/",{timing}"#),
            ),
            (
                of(CheckKind::Tcp),
                format!(r#""TCP":"[::1]:7","TCPUseTLS":false,{timing}"#),
            ),
        ] {
            assert_eq!(json(&config, "[::1]:7"), format!("{begin}{rest}"));
        }
        let unready = Instance::new("s", "h:1").unwrap().with_ready(false);
        let config = of(CheckKind::Ttl);
        let definition = CheckDefinition::new("test", &config, &unready, TTL).unwrap();
        assert_eq!(definition.status, "critical");
    }

    #[test]
    fn the_agent_is_not_asked_to_check_a_unix_socket() {
        let socket = Instance::new("s", "unix:/run/s").unwrap();
        let config = ConsulConfig::default().with_check(CheckKind::Tcp);
        let error = CheckDefinition::new("test", &config, &socket, TTL).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(CheckDefinition::new("test", &ConsulConfig::default(), &socket, TTL).is_ok());
    }

    #[test]
    fn the_worst_check_counts_and_maintenance_is_no_illness() {
        let health = |checks: &[(&str, &str)]| {
            let checks: Vec<_> = checks
                .iter()
                .map(|(id, status)| check(id, status))
                .collect();
            let Health {
                state,
                node_maintenance,
            } = Health::of(&checks);
            (state, node_maintenance)
        };
        assert_eq!(health(&[]), (State::Passing, false));
        assert_eq!(
            health(&[("serfHealth", "passing"), ("service:a", "warning")]),
            (State::Warning, false)
        );
        assert_eq!(
            health(&[("a", "warning"), ("b", "what is this")]),
            (State::Critical, false)
        );
        assert_eq!(
            health(&[
                ("service:a", "passing"),
                ("_service_maintenance:a", "critical")
            ]),
            (State::Passing, false)
        );
        assert_eq!(
            health(&[("_node_maintenance", "critical"), ("service:a", "critical")]),
            (State::Critical, true)
        );
    }
}
