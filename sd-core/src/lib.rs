#![doc = include_str!("../README.md")]

mod address;
mod backend;
mod backoff;
pub mod balance;
mod clock;
pub mod combine;
mod delta;
mod elector;
mod endpoint;
mod endpoints;
mod error;
mod guard;
mod instance;
mod instancer;
pub mod instrument;
mod keeper;
mod mass_loss;
pub mod memory;
mod name;
mod publisher;
mod registrar;
mod registration_event;
mod registry;
mod safety;
mod snapshot;
mod state;
mod subscription;
mod token;

pub use async_trait::async_trait;

pub use crate::address::advertised_address;
pub use crate::backend::Backend;
pub use crate::backoff::Backoff;
pub use crate::clock::{BootClock, Clock, Moment, Sleep, TokioClock};
pub use crate::delta::{Change, Delta};
pub use crate::elector::{
    AnyElector, CandidateId, Confirmation, CountsFrom, Elector, Entry, Leader, LeaderFeed,
    LeaderWatcher, Predecessor, Standing, StrictElector, Ticket, check_value,
};
pub use crate::endpoint::{Address, Endpoint};
pub use crate::endpoints::{
    CachedEndpoint, EndpointCache, EndpointCacheBuilder, EndpointCacheDump, EndpointDump,
    EndpointSet, MissingEndpoint,
};
pub use crate::error::{Error, ErrorKind, Report, Result, Retry};
pub use crate::guard::{RegistrationConfig, RegistrationDump, RegistrationGuard};
pub use crate::instance::{DEFAULT_WEIGHT, Incarnation, Instance, RecordId};
pub use crate::instancer::{Feed, Instancer, Watcher};
pub use crate::mass_loss::MassLossHold;
pub use crate::name::{
    ElectionName, InstanceId, MAX_ELECTION_NAME_BYTES, MAX_INSTANCE_ID_BYTES,
    MAX_SERVICE_NAME_BYTES, ServiceName,
};
pub use crate::publisher::Coalescing;
pub use crate::registrar::{
    DEFAULT_TTL, Limits, Liveness, RegisterOptions, Registrar, Registration,
};
pub use crate::registration_event::{RegistrationEvent, RegistrationPhase};
pub use crate::registry::{Closing, Registry, RegistryConfig, RegistryDump};
pub use crate::safety::{Guarantee, Safety, SafetyNote};
pub use crate::snapshot::{Revision, Skipped, Snapshot};
pub use crate::state::{State, Status};
pub use crate::subscription::{Discovery, Subscription, SubscriptionConfig, SubscriptionDump};
pub use crate::token::FencingToken;
