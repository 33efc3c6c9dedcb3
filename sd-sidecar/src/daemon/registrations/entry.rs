//! One registration as the agent shows it, and what is said about it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use sd_core::{Endpoint, Instance, InstanceId, Override, RecordId, ServiceName};

use crate::checks::Health;
use crate::wire::{AppInstance, Declaration};

/// Who asks: the name of a token, the user of a Unix socket, or the anonymous user of loopback. What one caller has registered no other
/// one can change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller(pub Arc<str>);

/// Which registrations are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// One, by its service and its instance's id.
    Record {
        /// The service.
        service: String,
        /// The instance's id.
        id: String,
    },
    /// Those of one run of an application.
    App {
        /// The run.
        app: AppInstance,
        /// Only those of this service.
        service: Option<String>,
        /// Only those at this port.
        port: Option<u16>,
    },
    /// Those of a service at a port of this host.
    Port {
        /// The service.
        service: String,
        /// The port.
        port: u16,
    },
}

impl Selector {
    /// The service of which all that are meant are instances, if there is only one.
    pub(crate) fn service(&self) -> Option<&str> {
        match self {
            Self::Record { service, .. } | Self::Port { service, .. } => Some(service),
            Self::App { service, .. } => service.as_deref(),
        }
    }

    /// Whether this registration is meant.
    pub(crate) fn selects(&self, entry: &Entry) -> bool {
        let (declaration, instance) = (&entry.declaration, &entry.instance);
        let is_service = |service: &str| instance.service().as_str() == service;
        let is_at = |port: u16| instance.endpoint().port() == Some(port);
        match self {
            Self::Record { service, id } => is_service(service) && instance.id().as_str() == id,
            Self::App { app, service, port } => {
                let is_own = declaration.app.as_ref() == Some(app);
                is_own && service.as_deref().is_none_or(is_service) && port.is_none_or(is_at)
            }
            Self::Port { service, port } => is_service(service) && is_at(*port),
        }
    }

    /// What is answered where what is selected is gone.
    pub(crate) fn already_gone(&self) -> Refused {
        match self {
            Self::Record { service, id } => Refused::NotFound(format!(
                "{id:?} of {service:?} is deregistered: declare it again"
            )),
            Self::App { .. } | Self::Port { .. } => self.not_found(),
        }
    }

    /// What is answered where nothing is selected.
    pub(crate) fn not_found(&self) -> Refused {
        Refused::NotFound(match self {
            Self::Record { service, id } => {
                format!("this agent has no registration of {service:?} with the id {id:?}")
            }
            Self::App { app, service, port } => {
                let of = service.as_ref().map(|service| format!(" of {service:?}"));
                let at = port.map(|port| format!(" at port {port}"));
                format!(
                    "this agent has no registration{}{} by the run {:?} of the application {:?}",
                    of.unwrap_or_default(),
                    at.unwrap_or_default(),
                    app.app_instance_id,
                    app.app_id
                )
            }
            // As the reference system says it.
            Self::Port { service, port } => {
                format!("local service not found: {}:{port}", service.escape_debug())
            }
        })
    }
}

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Wanted, and not at the registry now.
    Init,
    /// At the registry, and not ready: a check fails, the process says so, or an operator.
    Registered,
    /// At the registry, and ready.
    Serving,
    /// Wants no new calls, and leaves at its deadline.
    Draining,
    /// Gone. Kept for a while to be looked at.
    Deregistered,
}

impl Stage {
    pub(crate) const ALL: [Self; 5] = [
        Self::Init,
        Self::Registered,
        Self::Serving,
        Self::Draining,
        Self::Deregistered,
    ];

    /// The stage's name, as the reference system writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "Init",
            Self::Registered => "Registered",
            Self::Serving => "Serving",
            Self::Draining => "Draining",
            Self::Deregistered => "Deregistered",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One registration, as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What was asked for last.
    pub declaration: Declaration,
    /// Who made it, and can change it.
    pub owner: Caller,
    /// Its record at the registry.
    pub record: RecordId,
    /// The instance as the registry should have it.
    pub instance: Arc<Instance>,
    /// Where it stands.
    pub stage: Stage,
    /// When it was declared first.
    pub registered_at: SystemTime,
    /// When it was declared, drained or deregistered last.
    pub updated_at: SystemTime,
    /// When it leaves, while it is draining.
    pub drain_deadline: Option<SystemTime>,
    /// What its checks say.
    pub health: Health,
    /// What an operator says of the record in place of its owner.
    pub overridden: Option<Override>,
    /// Whether the registry has confirmed it as it should be. In the answer to a change, whether it has confirmed that change.
    pub is_confirmed: bool,
    /// Why the registry does not have it as it should.
    pub error: Option<String>,
    /// How often there has been such a reason where there was none.
    pub(crate) troubles: u64,
}

/// Under which registrations are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) service: ServiceName,
    pub(crate) place: Place,
}

/// What has no id of its own is the one at its address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Id(InstanceId),
    Address(Endpoint),
}

impl Key {
    pub(crate) fn of(declaration: &Declaration, endpoint: &Endpoint) -> Self {
        let id = declaration.id.clone().map(Place::Id);
        Self {
            service: declaration.service.clone(),
            place: id.unwrap_or_else(|| Place::Address(endpoint.clone())),
        }
    }
}

/// Why the agent did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// What was asked can never be done. Nothing changes.
    #[error("{0}")]
    Invalid(String),
    /// There is no such registration.
    #[error("{0}")]
    NotFound(String),
    /// There is such a registration, and no such check.
    #[error("{0}")]
    NoCheck(String),
    /// It belongs to another caller or another application.
    #[error("{0}")]
    NotYours(String),
    /// The agent holds as many registrations as it may.
    #[error("{0}")]
    TooMany(String),
    /// The registry refuses it. Nothing changes.
    #[error("{}", .0.report())]
    Registry(sd_core::Error),
    /// The agent is stopping: ask the next one.
    #[error("the agent is stopping")]
    Stopping,
}

impl From<sd_core::Error> for Refused {
    fn from(error: sd_core::Error) -> Self {
        match error.kind() {
            sd_core::ErrorKind::InvalidInput => Self::Invalid(error.report().to_string()),
            sd_core::ErrorKind::NotFound => Self::NotFound(error.report().to_string()),
            sd_core::ErrorKind::Closed => Self::Stopping,
            _ => Self::Registry(error),
        }
    }
}
