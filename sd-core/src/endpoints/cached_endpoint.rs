//! The members of an endpoint cache's set: with a value, and still without one.

use std::fmt;
use std::sync::Arc;

use crate::balance::Load;
use crate::error::Error;
use crate::model::instance::Instance;

/// An instance and the value that was made of it.
pub struct CachedEndpoint<T> {
    instance: Arc<Instance>,
    value: Arc<T>,
    /// What the policy keeps of it.
    pub(super) load: Option<Arc<dyn Load>>,
}

impl<T> CachedEndpoint<T> {
    pub(super) fn new(instance: Arc<Instance>, value: Arc<T>, load: Option<Arc<dyn Load>>) -> Self {
        Self {
            instance,
            value,
            load,
        }
    }

    /// The same endpoint, whose instance has changed.
    pub(super) fn with_instance(&self, instance: Arc<Instance>) -> Self {
        Self::new(instance, Arc::clone(&self.value), self.load.clone())
    }

    /// Whether both are the same endpoint, even if its instance has changed in the meantime.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value)
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

impl<T> fmt::Debug for CachedEndpoint<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedEndpoint")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}
