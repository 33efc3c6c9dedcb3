//! An endpoint that was picked for a call.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::cached_endpoint::CachedEndpoint;
use crate::balance::{LoadGuard, Outcome};

/// An endpoint that was picked for a call, and the call's beginning and end for the policy. Keep it for as long as the call lasts.
/// Dropping it ends the call as [`Outcome::Dropped`].
#[must_use = "dropping it ends the call"]
pub struct Picked<T> {
    endpoint: Arc<CachedEndpoint<T>>,
    /// `None` if the policy keeps nothing.
    load: Option<LoadGuard>,
}

impl<T> Picked<T> {
    pub(super) fn begin(endpoint: Arc<CachedEndpoint<T>>) -> Self {
        let load = endpoint.load.clone().map(LoadGuard::begin);
        Self { endpoint, load }
    }

    /// The endpoint. Holding it does not prolong the call.
    pub fn endpoint(&self) -> &Arc<CachedEndpoint<T>> {
        &self.endpoint
    }

    /// The call has ended.
    pub fn end(mut self, outcome: Outcome) {
        if let Some(load) = &mut self.load {
            load.tell(outcome);
        }
    }
}

impl<T> Deref for Picked<T> {
    type Target = CachedEndpoint<T>;

    fn deref(&self) -> &CachedEndpoint<T> {
        &self.endpoint
    }
}

impl<T> fmt::Debug for Picked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picked")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
