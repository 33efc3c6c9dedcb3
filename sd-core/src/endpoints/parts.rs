//! The parts of an endpoint cache.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::balance::{Policy, Selection};
use crate::error::Result;
use crate::feed::subscription::Subscription;
use crate::model::instance::Instance;

/// Makes a value of an instance.
pub(super) type Make<T> = Arc<dyn Fn(Arc<Instance>) -> BoxFuture<'static, Result<T>> + Send + Sync>;
/// Closes a value.
pub(super) type Close<T> = Arc<dyn Fn(Arc<T>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Times and limits.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) made_at_once: usize,
    pub(super) make_within: Duration,
    pub(super) retry_first: Duration,
    pub(super) retry_cap: Duration,
    pub(super) drain: Duration,
    pub(super) close_within: Duration,
    pub(super) invalidate_after: Option<Duration>,
}

/// The source, what is done with its instances, and within which limits.
pub(super) struct Parts<T> {
    pub(super) subscription: Subscription,
    pub(super) make: Make<T>,
    pub(super) close: Option<Close<T>>,
    pub(super) settings: Settings,
    pub(super) selection: Selection,
    pub(super) policy: Arc<dyn Policy>,
}
