//! The set that an endpoint cache publishes: immutable, with the choice that calls pick from.

use std::fmt;
use std::sync::Arc;

use super::cached_endpoint::{CachedEndpoint, MissingEndpoint};
use super::picked::Picked;
use crate::balance::{CallInfo, Choice};
use crate::model::name::InstanceId;

/// All endpoints at one time. Immutable.
pub struct EndpointSet<T> {
    endpoints: Vec<Arc<CachedEndpoint<T>>>,
    missing: Vec<MissingEndpoint>,
    draining: usize,
    invalidated: bool,
    resolved: bool,
    choice: Choice,
}

impl<T> EndpointSet<T> {
    /// Takes endpoints and missing ones sorted by id, and the choice among the endpoints.
    pub(super) fn new(
        endpoints: Vec<Arc<CachedEndpoint<T>>>,
        missing: Vec<MissingEndpoint>,
        choice: Choice,
    ) -> Self {
        Self {
            endpoints,
            missing,
            draining: 0,
            invalidated: false,
            resolved: false,
            choice,
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

    pub(super) fn with_resolved(mut self, resolved: bool) -> Self {
        self.resolved = resolved;
        self
    }

    pub(super) fn has_choice(&self) -> bool {
        !self.choice.is_empty()
    }

    /// Whether calls may find an endpoint soon: the set is not known yet, or a value is being made for the first time.
    pub(super) fn may_have_choice_soon(&self) -> bool {
        let is_new =
            |missing: &MissingEndpoint| missing.failures == 0 && missing.instance.is_ready();
        !self.resolved || self.missing.iter().any(is_new)
    }

    /// Whether calls go to the endpoint at `index` of [`endpoints`](Self::endpoints): it wants calls, and its tier and zone are the
    /// ones in use.
    pub fn is_picked(&self, index: usize) -> bool {
        self.choice.contains(index)
    }

    /// All endpoints, including those that want no calls, sorted by id.
    pub fn endpoints(&self) -> &[Arc<CachedEndpoint<T>>] {
        &self.endpoints
    }

    /// The endpoint of the instance with this id.
    pub fn get(&self, id: &InstanceId) -> Option<&Arc<CachedEndpoint<T>>> {
        let index = self
            .endpoints
            .binary_search_by(|endpoint| endpoint.instance().id().cmp(id))
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

impl<T: Send + Sync> EndpointSet<T> {
    /// Picks an endpoint for a call; see [`EndpointCache::pick`](super::EndpointCache::pick).
    pub fn pick(&self) -> Option<Picked<T>> {
        self.pick_for(&CallInfo::new(), |_| false)
    }

    /// Picks an endpoint for a call; see [`EndpointCache::pick_for`](super::EndpointCache::pick_for).
    pub fn pick_for(
        &self,
        call: &CallInfo<'_>,
        tried: impl Fn(&CachedEndpoint<T>) -> bool + Sync,
    ) -> Option<Picked<T>> {
        let has_tried = |index: usize| self.endpoints.get(index).is_some_and(|one| tried(one));
        self.choice.pick(call, has_tried, |index| {
            self.endpoints.get(index).cloned().map(Picked::begin)
        })
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
