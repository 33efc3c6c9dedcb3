//! One of the sources of a combination.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::future::select_all;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::feed::config::{Coalescing, SubscriptionConfig};
use crate::feed::subscription::{Shared, Subscription};
use crate::model::name::ServiceName;
use crate::model::newest_run::without_older_runs;
use crate::model::snapshot::Snapshot;
use crate::model::state::{State, Status};
use crate::port::instancer::Instancer;
use crate::sync::lock;

/// A named source. Each service is watched there once, however many feeds the combination has. A feed that is opened while the
/// previous one lives finds the last set of a source that is down.
#[derive(Debug)]
pub(super) struct Source {
    name: Arc<str>,
    instancer: Arc<dyn Instancer>,
    subscriptions: Mutex<BTreeMap<ServiceName, Weak<Shared>>>,
}

/// A source as one feed sees it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: Arc<str>,
    pub(super) subscription: Subscription,
}

impl Part {
    /// How long it has not been live.
    pub(super) fn failing_for(&self) -> Duration {
        let since = self.subscription.state().status.since();
        since.map_or(Duration::ZERO, |since| self.subscription.age(since))
    }
}

impl Source {
    pub(super) fn new(name: &str, instancer: Arc<dyn Instancer>) -> Self {
        Self {
            name: name.into(),
            instancer,
            subscriptions: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn services(&self) -> Result<Vec<ServiceName>> {
        self.instancer.services().await
    }

    pub(super) async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let listed = self.instancer.list(service).await?;
        Ok(without_older_runs(listed))
    }

    pub(super) fn subscribe(
        &self,
        service: &ServiceName,
        config: &SubscriptionConfig,
        clock: &Arc<dyn Clock>,
    ) -> Result<Part> {
        let mut map = lock(&self.subscriptions);
        let shared = map.get(service).and_then(Weak::upgrade);
        let subscription = if let Some(shared) = shared {
            Subscription::from_shared(shared)
        } else {
            map.retain(|_, shared| shared.strong_count() > 0);
            let fresh = Subscription::spawn(
                Arc::clone(&self.instancer),
                service.clone(),
                SubscriptionConfig {
                    metered: false,
                    ..config.clone()
                },
                Arc::clone(clock),
            )?;
            map.insert(service.clone(), Arc::downgrade(fresh.shared()));
            fresh
        };
        Ok(Part {
            name: Arc::clone(&self.name),
            subscription,
        })
    }

    /// `error` from a request to this source.
    pub(super) fn blame(&self, op: &'static str, error: &Error) -> Error {
        Error::new(error.kind(), op).because(format!("{}: {}", self.name, error.report()))
    }
}

/// How sources are watched by default. Bursts are merged once, in the subscription to the whole.
pub(super) fn default_config() -> SubscriptionConfig {
    SubscriptionConfig {
        coalescing: Coalescing {
            quiet: Duration::ZERO,
            longest: Duration::ZERO,
        },
        ..SubscriptionConfig::default()
    }
}

/// The states of all parts. [`changed`] then waits for newer ones.
pub(super) fn states(parts: &mut [Part]) -> Vec<State> {
    parts
        .iter_mut()
        .map(|part| part.subscription.state_and_mark_seen())
        .collect()
}

/// Waits until a part has a new state. Cancel-safe.
pub(super) async fn changed(parts: &mut [Part]) -> Result<()> {
    let waits = parts
        .iter_mut()
        .map(|part| Box::pin(part.subscription.changed()));
    select_all(waits).await.0.map(drop)
}

/// Why each part with trouble cannot be trusted.
pub(super) fn trouble<'a>(
    op: &'static str,
    parts: impl IntoIterator<Item = (&'a Part, &'a State)>,
) -> Option<Error> {
    let mut kind = None;
    let mut reasons = Vec::new();
    for (part, state) in parts {
        let reason = match &state.status {
            Status::Live if state.snapshot.is_empty() => "lists no instance".to_owned(),
            Status::Live => continue,
            Status::Initializing { error: None, .. } => "has not answered yet".to_owned(),
            Status::Initializing {
                error: Some(error), ..
            }
            | Status::Stale { error, .. } => {
                kind = kind.or(Some(error.kind()));
                error.report().to_string()
            }
        };
        reasons.push(format!("{}: {reason}", part.name));
    }
    (!reasons.is_empty()).then(|| {
        let kind = kind.unwrap_or(crate::ErrorKind::Unavailable);
        Error::new(kind, op).because(reasons.join("; "))
    })
}
