//! What a registry or a cache holds and why, as a dump shows it to people and tests. Serializes to JSON.

pub use crate::endpoints::{EndpointCacheDump, EndpointDump};
pub use crate::feed::subscription::SubscriptionDump;
pub use crate::registration::status::RegistrationDump;
pub use crate::registry::RegistryDump;
