//! An endpoint cache as a dump shows it.

use serde::Serialize;

use super::set::EndpointSet;
use crate::feed::subscription::SubscriptionDump;
use crate::model::instance::Instance;
use crate::model::name::InstanceId;

/// What an endpoint cache holds and why. Serializes to JSON.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointCacheDump {
    /// The subscription that it follows.
    pub subscription: SubscriptionDump,
    /// One for each instance, sorted by id.
    pub endpoints: Vec<EndpointDump>,
    /// How many values have left the set and are not closed yet.
    pub draining: usize,
    /// Whether the set was emptied because its source has failed for too long.
    pub invalidated: bool,
}

/// One instance in a dump.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointDump {
    /// The instance's id.
    pub id: InstanceId,
    /// Its address.
    pub address: String,
    /// Whether it wants calls.
    pub ready: bool,
    /// Whether its value has been made.
    pub made: bool,
    /// Whether calls go to it: it is ready and made, and its tier and zone are the ones in use.
    pub picked: bool,
    /// How many attempts to make the value have failed.
    pub failures: u32,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

impl EndpointDump {
    fn new(instance: &Instance) -> Self {
        Self {
            id: instance.id().clone(),
            address: instance.endpoint().to_string(),
            ready: instance.is_ready(),
            made: true,
            picked: false,
            failures: 0,
            error: None,
        }
    }
}

impl EndpointCacheDump {
    pub(super) fn new<T>(subscription: SubscriptionDump, set: &EndpointSet<T>) -> Self {
        let made = set.endpoints().iter().enumerate();
        let made = made.map(|(index, endpoint)| EndpointDump {
            picked: set.is_picked(index),
            ..EndpointDump::new(endpoint.instance())
        });
        let missing = set.missing().iter().map(|missing| EndpointDump {
            made: false,
            failures: missing.failures(),
            error: missing.error().map(|error| error.report().to_string()),
            ..EndpointDump::new(missing.instance())
        });
        let mut endpoints: Vec<_> = made.chain(missing).collect();
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        Self {
            subscription,
            endpoints,
            draining: set.draining(),
            invalidated: set.is_invalidated(),
        }
    }
}
