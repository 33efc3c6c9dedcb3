//! The set that an endpoint cache publishes: immutable, with a picker over it.

use std::fmt;
use std::sync::Arc;

use crate::balance::{Picker, Rotation};
use crate::error::Error;
use crate::model::instance::Instance;
use crate::model::name::InstanceId;

/// An instance and the value that was made of it.
pub struct CachedEndpoint<T> {
    instance: Arc<Instance>,
    value: Arc<T>,
}

impl<T> CachedEndpoint<T> {
    pub(super) fn new(instance: Arc<Instance>, value: Arc<T>) -> Self {
        Self { instance, value }
    }

    /// The instance as it is now. Its weight or metadata may have changed since the value was made.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The value that was made of it.
    pub fn value(&self) -> &Arc<T> {
        &self.value
    }
}

/// An instance whose value has not been made yet.
#[derive(Clone, Debug)]
pub struct MissingEndpoint {
    pub(super) instance: Arc<Instance>,
    pub(super) failures: u32,
    pub(super) error: Option<Error>,
}

impl MissingEndpoint {
    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// How many attempts have failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Why the last attempt failed.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

/// All endpoints at one time. Immutable.
pub struct EndpointSet<T> {
    endpoints: Vec<Arc<CachedEndpoint<T>>>,
    missing: Vec<MissingEndpoint>,
    draining: usize,
    invalidated: bool,
    /// The indices that the picker chooses from.
    choice: Vec<usize>,
    picker: Picker,
}

impl<T> EndpointSet<T> {
    /// Takes endpoints and missing ones sorted by id. Only ready endpoints of the lowest tier are picked.
    pub(super) fn new(
        endpoints: Vec<Arc<CachedEndpoint<T>>>,
        missing: Vec<MissingEndpoint>,
        rotation: &Rotation,
    ) -> Self {
        let ready = || {
            let indexed = endpoints.iter().enumerate();
            indexed.filter(|(_, endpoint)| endpoint.instance.is_ready())
        };
        let tier = ready()
            .map(|(_, endpoint)| endpoint.instance.priority())
            .min();
        let (choice, weights): (Vec<_>, Vec<_>) = ready()
            .filter(|(_, endpoint)| Some(endpoint.instance.priority()) == tier)
            .map(|(index, endpoint)| (index, endpoint.instance.weight()))
            .unzip();
        let picker = Picker::new(rotation, weights);
        Self {
            endpoints,
            missing,
            draining: 0,
            invalidated: false,
            choice,
            picker,
        }
    }

    pub(super) fn with_draining(mut self, draining: usize) -> Self {
        self.draining = draining;
        self
    }

    pub(super) fn with_invalidated(mut self, invalidated: bool) -> Self {
        self.invalidated = invalidated;
        self
    }

    /// The next endpoint that wants calls, in turn by weight. Only ready endpoints of the lowest tier are picked.
    pub fn pick(&self) -> Option<&Arc<CachedEndpoint<T>>> {
        let index = self.picker.pick()?;
        self.endpoints.get(*self.choice.get(index)?)
    }

    pub(super) fn has_choice(&self) -> bool {
        !self.choice.is_empty()
    }

    /// All endpoints, including those that want no calls, sorted by id.
    pub fn endpoints(&self) -> &[Arc<CachedEndpoint<T>>] {
        &self.endpoints
    }

    /// The endpoint of the instance with this id.
    pub fn get(&self, id: &InstanceId) -> Option<&Arc<CachedEndpoint<T>>> {
        let index = self
            .endpoints
            .binary_search_by(|endpoint| endpoint.instance.id().cmp(id))
            .ok()?;
        self.endpoints.get(index)
    }

    /// The instances whose values have not been made yet, sorted by id.
    pub fn missing(&self) -> &[MissingEndpoint] {
        &self.missing
    }

    /// How many values have left the set and are not closed yet.
    pub fn draining(&self) -> usize {
        self.draining
    }

    /// Whether the set was emptied because its source has failed for too long.
    pub fn is_invalidated(&self) -> bool {
        self.invalidated
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is no endpoint.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }
}

impl<T> fmt::Debug for CachedEndpoint<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedEndpoint")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for EndpointSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSet")
            .field("endpoints", &self.endpoints)
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::combine::switched::instance;

    fn picks(instances: &[Instance], times: usize) -> Vec<String> {
        let endpoints = instances
            .iter()
            .map(|instance| {
                let instance = Arc::new(instance.clone());
                Arc::new(CachedEndpoint::new(instance, Arc::new(())))
            })
            .collect();
        let set = EndpointSet::new(endpoints, Vec::new(), &Rotation::starting_at(0));
        (0..times)
            .filter_map(|_| set.pick())
            .map(|endpoint| endpoint.instance().id().to_string())
            .collect()
    }

    #[test]
    fn picks_ready_endpoints_of_the_lowest_tier_in_turn() {
        let all = [
            instance("a").with_ready(false),
            instance("b").with_priority(1),
            instance("c").with_priority(1),
            instance("d").with_priority(2),
        ];
        assert_eq!(picks(&all, 4), ["b", "c", "b", "c"]);
        assert_eq!(picks(&all[..1], 4), [""; 0]);
    }

    #[test]
    fn picks_by_weight() {
        let all = [instance("a").with_weight(3), instance("b")];
        let heavy = picks(&all, 400).iter().filter(|id| *id == "a").count();
        assert_eq!(heavy, 300);
    }
}
