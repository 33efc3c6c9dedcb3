#![doc = include_str!("../README.md")]

pub mod balance;
mod brief;
pub mod clock;
pub mod combine;
pub mod dump;
pub mod endpoints;
mod error;
pub mod events;
mod feed;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod health;
pub mod instrument;
pub mod memory;
mod model;
pub mod panics;
pub mod port;
mod printable;
mod reading_backend;
mod registration;
mod registry;
pub mod retry;
mod runtime;
pub mod sync;

pub use crate::brief::brief;
pub use crate::endpoints::{EndpointCache, EndpointSet};
pub use crate::error::{Error, ErrorKind, Holder, Report, Result};
pub use crate::events::{Events, Missed};
pub use crate::feed::config::{Coalescing, SubscriptionConfig};
pub use crate::feed::mass_loss::MassLossHold;
pub use crate::feed::services::{ServicesState, ServicesSubscription};
pub use crate::feed::subscription::{Discovery, Subscription};
pub use crate::health::Health;
pub use crate::model::delta::{Change, Delta};
pub use crate::model::endpoint::{Address, Endpoint};
pub use crate::model::instance::{Incarnation, Instance, RecordId};
pub use crate::model::name::{ElectionName, InstanceId, ServiceName};
pub use crate::model::overriding::Override;
pub use crate::model::snapshot::{Revision, Skipped, Snapshot};
pub use crate::model::state::{State, Status};
pub use crate::model::token::FencingToken;
pub use crate::port::backend::Backend;
pub use crate::port::elector::Elector;
pub use crate::port::instancer::{Instancer, ServiceList, Watcher};
pub use crate::port::operator::Operator;
pub use crate::port::registrar::Registrar;
pub use crate::printable::Printable;
pub use crate::registration::advertised_address::{advertised_address, advertised_address_towards};
pub use crate::registration::config::RegistrationConfig;
pub use crate::registration::event::{RegistrationEvent, RegistrationPhase};
pub use crate::registration::guard::RegistrationGuard;
pub use crate::registration::register::Register;
pub use crate::registry::{Registry, RegistryConfig};
