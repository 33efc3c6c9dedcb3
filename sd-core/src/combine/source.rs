//! One of the sources of a combination.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::config::{Coalescing, SubscriptionConfig};
use crate::feed::subscription::{Shared, Subscription};
use crate::model::name::ServiceName;
use crate::model::newest_run::without_older_runs;
use crate::model::snapshot::Snapshot;
use crate::model::state::{State, Status};
use crate::port::instancer::{Instancer, ServiceList};
use crate::registry::Registry;
use crate::sync::lock;

/// A source of a combination: a [`Registry`], or any [`Instancer`] in an `Arc`.
///
/// A registry's own subscriptions are used, so that each service is watched once, with the registry's settings. An instancer is
/// watched with the settings of the combination.
#[derive(Clone, Debug)]
pub struct Source(Reads);

#[derive(Clone, Debug)]
enum Reads {
    Registry(Registry),
    Instancer(Arc<dyn Instancer>),
}

impl From<Registry> for Source {
    fn from(registry: Registry) -> Self {
        Self(Reads::Registry(registry))
    }
}

impl From<&Registry> for Source {
    fn from(registry: &Registry) -> Self {
        registry.clone().into()
    }
}

impl From<Arc<dyn Instancer>> for Source {
    fn from(instancer: Arc<dyn Instancer>) -> Self {
        Self(Reads::Instancer(instancer))
    }
}

impl<I: Instancer> From<Arc<I>> for Source {
    fn from(instancer: Arc<I>) -> Self {
        Self(Reads::Instancer(instancer))
    }
}

/// A named source. Each service is watched there once, however many feeds the combination has. A feed that is opened while the
/// previous one lives finds the last set of a source that is down.
#[derive(Debug)]
pub(super) struct NamedSource {
    name: Arc<str>,
    source: Source,
    subscriptions: Mutex<BTreeMap<ServiceName, Weak<Shared>>>,
}

/// A source as one feed sees it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: Arc<str>,
    pub(super) subscription: Subscription,
    /// Whether the combination has watched the service there before.
    is_shared: bool,
    /// Why the source tells nothing any more: its owner closed it.
    ended: Option<Error>,
}

/// How long a feed waits at most until its sources have been read again.
const REREAD_WITHIN: Duration = Duration::from_secs(2);

impl Part {
    fn state(&mut self) -> State {
        let mut state = self.subscription.state_and_mark_seen();
        if let Some(error) = &self.ended {
            state.status.blame(self.subscription.now(), error);
        }
        state
    }

    /// Waits for a new state. Cancel-safe.
    async fn changed(&mut self) {
        if self.ended.is_some() {
            return std::future::pending().await;
        }
        if let Err(error) = self.subscription.changed().await {
            self.ended = Some(error);
        }
    }

    /// How long it has not been live.
    pub(super) fn failing_for(&self) -> Duration {
        let since = self.subscription.state().status.since();
        since.map_or(Duration::ZERO, |since| self.subscription.age(since))
    }
}

impl NamedSource {
    pub(super) fn new(name: &str, source: Source) -> Self {
        Self {
            name: name.into(),
            source,
            subscriptions: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn list_services(&self) -> Result<ServiceList> {
        match &self.source.0 {
            Reads::Registry(registry) => registry.list_services().await,
            Reads::Instancer(instancer) => instancer.list_services().await,
        }
    }

    pub(super) async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        match &self.source.0 {
            Reads::Registry(registry) => registry.list(service).await,
            Reads::Instancer(instancer) => {
                let listed = instancer.list(service).await?;
                Ok(without_older_runs(listed))
            }
        }
    }

    pub(super) fn subscribe(
        &self,
        service: &ServiceName,
        config: &SubscriptionConfig,
        clock: &Arc<dyn Clock>,
    ) -> Result<Part> {
        let mut map = lock(&self.subscriptions);
        let shared = map.get(service).and_then(Weak::upgrade);
        let shared = shared.map(Subscription::from_shared);
        let shared = shared.filter(Subscription::is_followed);
        let is_shared = shared.is_some();
        let subscription = if let Some(shared) = shared {
            shared
        } else {
            map.retain(|_, shared| shared.strong_count() > 0);
            let own = |instancer| {
                let config = SubscriptionConfig {
                    metered: false,
                    ..config.clone()
                };
                Subscription::spawn(instancer, service.clone(), config, Arc::clone(clock))
            };
            let fresh = match &self.source.0 {
                Reads::Registry(registry) => match registry.subscribe(service) {
                    // Its owner has closed it. Its feed ends at once, and the other sources are followed.
                    Err(error) if error.kind() == ErrorKind::Closed => own(registry.instancer())?,
                    shared => shared?,
                },
                Reads::Instancer(instancer) => own(Arc::clone(instancer))?,
            };
            map.insert(service.clone(), Arc::downgrade(fresh.shared()));
            fresh
        };
        Ok(Part {
            name: Arc::clone(&self.name),
            subscription,
            is_shared,
            ended: None,
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

/// Reads the sources again that a combination has followed for a while, because its reader wants everything to be read. One that
/// takes long is not waited for, and one that fails is being read again anyway.
pub(super) async fn reread(parts: &[Part]) {
    let is_live = |part: &&Part| matches!(part.subscription.state().status(), Status::Live);
    let known = parts.iter().filter(|part| part.is_shared).filter(is_live);
    let reads = known.map(|part| part.subscription.refresh());
    // An error shows in the state of its source.
    let _ = timeout(REREAD_WITHIN, join_all(reads)).await;
}

/// The states of all parts. [`changed`] then waits for newer ones.
pub(super) fn states(parts: &mut [Part]) -> Vec<State> {
    parts.iter_mut().map(Part::state).collect()
}

/// Waits until a part has a new state. Cancel-safe.
pub(super) async fn changed(parts: &mut [Part]) {
    let waits = parts.iter_mut().map(|part| Box::pin(part.changed()));
    select_all(waits).await;
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
        let kind = kind.unwrap_or(ErrorKind::Unavailable);
        Error::new(kind, op).because(reasons.join("; "))
    })
}
