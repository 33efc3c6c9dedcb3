#![doc = include_str!("../README.md")]

mod backoff;
pub mod balance;
mod clock;
pub mod combine;
mod endpoints;
mod error;
mod feed;
pub mod instrument;
pub mod memory;
mod model;
mod port;
mod registration;
mod registry;
mod runtime;
pub mod sync;

pub use async_trait::async_trait;

pub use crate::backoff::Backoff;
pub use crate::clock::{BootClock, Clock, Moment, Sleep, TokioClock};
pub use crate::endpoints::{
    CachedEndpoint, EndpointCache, EndpointCacheBuilder, EndpointCacheDump, EndpointDump,
    EndpointSet, MissingEndpoint,
};
pub use crate::error::{Error, ErrorKind, Report, Result, Retry};
pub use crate::feed::config::{Coalescing, SubscriptionConfig};
pub use crate::feed::mass_loss::MassLossHold;
pub use crate::feed::subscription::{Discovery, Subscription, SubscriptionDump};
pub use crate::model::delta::{Change, Delta};
pub use crate::model::endpoint::{Address, Endpoint};
pub use crate::model::instance::{DEFAULT_WEIGHT, Incarnation, Instance, RecordId};
pub use crate::model::name::{
    ElectionName, InstanceId, MAX_ELECTION_NAME_BYTES, MAX_INSTANCE_ID_BYTES,
    MAX_SERVICE_NAME_BYTES, ServiceName,
};
pub use crate::model::snapshot::{Revision, Skipped, Snapshot};
pub use crate::model::state::{State, Status};
pub use crate::model::token::FencingToken;
pub use crate::port::backend::Backend;
pub use crate::port::elector::{
    AnyElector, CandidateId, Confirmation, CountsFrom, Elector, Entry, Leader, LeaderFeed,
    LeaderWatcher, Predecessor, Standing, StrictElector, Ticket, check_value,
};
pub use crate::port::instancer::{Feed, Instancer, Watcher};
pub use crate::port::registrar::{
    DEFAULT_TTL, Limits, Liveness, RegisterOptions, Registrar, Registration,
};
pub use crate::port::safety::{Guarantee, Safety, SafetyNote};
pub use crate::registration::advertised_address::advertised_address;
pub use crate::registration::config::RegistrationConfig;
pub use crate::registration::event::{RegistrationEvent, RegistrationPhase};
pub use crate::registration::guard::RegistrationGuard;
pub use crate::registration::status::RegistrationDump;
pub use crate::registry::{Closing, Registry, RegistryConfig, RegistryDump};
