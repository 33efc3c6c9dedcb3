//! The handle that readers of a service hold.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, info_span};

use crate::clock::{BootClock, Clock, Moment};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::config::SubscriptionConfig;
use crate::feed::driver::Driver;
use crate::feed::publisher::Publisher;
use crate::feed::refresh::{self, Requests};
use crate::model::name::ServiceName;
use crate::model::snapshot::Snapshot;
use crate::model::state::{State, Status};
use crate::port::instancer::Instancer;
use crate::printable::Printable;
use crate::runtime::runtime;

const OP: &str = "subscription";

/// Anything at which a service can be subscribed to: a [`Registry`](crate::Registry), which shares subscriptions, or any
/// [`Instancer`] in an `Arc`, which starts a new subscription for each call.
pub trait Discovery {
    /// Subscribes to a service. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `InvalidInput` outside a runtime. `Closed` after the registry was closed.
    fn subscribe(&self, service: &ServiceName) -> Result<Subscription>;
}

impl<I: Instancer> Discovery for Arc<I> {
    fn subscribe(&self, service: &ServiceName) -> Result<Subscription> {
        let instancer: Arc<dyn Instancer> = Arc::<I>::clone(self);
        instancer.subscribe(service)
    }
}

impl Discovery for Arc<dyn Instancer> {
    fn subscribe(&self, service: &ServiceName) -> Result<Subscription> {
        Subscription::spawn(
            Self::clone(self),
            service.clone(),
            SubscriptionConfig::default(),
            Arc::new(BootClock),
        )
    }
}

impl<D: Discovery + ?Sized> Discovery for &D {
    fn subscribe(&self, service: &ServiceName) -> Result<Subscription> {
        (**self).subscribe(service)
    }
}

/// A reader's handle to a service: its latest [`State`], and a way to wait for the next. Cheap to clone; each clone waits on
/// its own. The source is released when the last handle is dropped. A slow reader skips states and never delays others.
#[derive(Clone, Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    states: watch::Receiver<State>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    service: ServiceName,
    states: watch::Receiver<State>,
    clock: Arc<dyn Clock>,
    refresh_requests: Requests,
    _stop: DropGuard,
}

impl Subscription {
    /// Subscribes to `service` at `instancer`, in a task of its own.
    ///
    /// # Errors
    /// `InvalidInput` outside a tokio runtime.
    pub fn spawn(
        instancer: Arc<dyn Instancer>,
        service: ServiceName,
        config: SubscriptionConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let (subscription, task) =
            Self::prepare(instancer, service, config, clock, &CancellationToken::new());
        runtime(OP)?.spawn(task);
        Ok(subscription)
    }

    /// The handle and the task behind it. The task ends with `stop` or with the last handle.
    pub(crate) fn prepare(
        instancer: Arc<dyn Instancer>,
        service: ServiceName,
        mut config: SubscriptionConfig,
        clock: Arc<dyn Clock>,
        stop: &CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let now = clock.now();
        let (out, states) = watch::channel(State {
            snapshot: Snapshot::unread(service.clone(), now),
            status: Status::Initializing {
                since: now,
                error: None,
            },
        });
        let tells = instancer.tells_withdrawals();
        config.mass_loss_hold = config
            .mass_loss_hold
            .filter(|hold| tells || hold.any_source);
        let stop = stop.child_token();
        let publisher = Publisher::new(out, Arc::clone(&clock), &config);
        let span = info_span!("watch", service = %Printable(service.as_str()));
        let (refresh_requests, refresher) = refresh::channel();
        let driver = Driver::new(instancer, service.clone(), config, publisher, stop.clone());
        let shared = Shared {
            service,
            states: states.clone(),
            clock,
            refresh_requests,
            _stop: stop.drop_guard(),
        };
        (
            Self {
                shared: Arc::new(shared),
                states,
            },
            driver.run(refresher).instrument(span),
        )
    }

    /// Another handle to the same task.
    pub(crate) fn from_shared(shared: Arc<Shared>) -> Self {
        let states = shared.states.clone();
        Self { shared, states }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether the source is still followed.
    pub(crate) fn is_followed(&self) -> bool {
        self.states.has_changed().is_ok()
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.shared.service
    }

    /// The time on this subscription's clock.
    pub(crate) fn now(&self) -> Moment {
        self.shared.clock.now()
    }

    /// How long ago a moment of this subscription's clock was.
    pub(crate) fn age(&self, moment: Moment) -> Duration {
        self.shared.clock.now().since(moment)
    }

    /// The latest state.
    pub fn state(&self) -> State {
        self.states.borrow().clone()
    }

    /// The latest state. [`changed`](Self::changed) then waits for a newer one.
    pub fn state_and_mark_seen(&mut self) -> State {
        self.states.borrow_and_update().clone()
    }

    /// Waits for a state newer than the last one that this handle returned from here, and returns the newest.
    ///
    /// # Errors
    /// `Closed` after the registry was closed.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn changed(&mut self) -> Result<State> {
        self.states
            .changed()
            .await
            .map_err(|_| Error::new(ErrorKind::Closed, OP))?;
        Ok(self.state_and_mark_seen())
    }

    /// Reads everything from the source again, now, and returns the state when what was read is published. For a caller that has
    /// found out that the set is outdated. Reads begin at most once a second: requests that come sooner share the next one. Over
    /// a [`combine`](crate::combine)d source, all of its sources are read again.
    ///
    /// While the source is down, this tries it once more instead of waiting for the next delay to end, unless the source has
    /// asked for a pause.
    ///
    /// # Errors
    /// Why nothing could be read. The last set stays. `Closed` after the registry was closed.
    ///
    /// # Cancel safety
    /// Cancel-safe: everything is read nevertheless.
    pub async fn refresh(&self) -> Result<State> {
        self.shared.refresh_requests.ask("refresh").await?;
        Ok(self.state())
    }

    /// Waits for at most `limit` until an instance is there that wants calls, and returns the state.
    ///
    /// # Errors
    /// `Timeout` with the reason: the set is unknown or empty, or no instance is ready. `Closed` after the registry was closed.
    /// `InvalidInput` outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn wait_until_ready(&self, limit: Duration) -> Result<State> {
        self.wait_for("wait until ready", limit, State::is_usable)
            .await
    }

    /// Waits for at most `limit` until the set is known, even if empty, and returns the state.
    ///
    /// # Errors
    /// `Timeout` with the reason why nothing could be read. `Closed` after the registry was closed. `InvalidInput` outside a tokio
    /// runtime.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn wait_until_known(&self, limit: Duration) -> Result<State> {
        self.wait_for("wait until known", limit, State::is_known)
            .await
    }

    async fn wait_for(
        &self,
        op: &'static str,
        limit: Duration,
        wanted: impl Fn(&State) -> bool,
    ) -> Result<State> {
        runtime(op)?;
        let mut states = self.states.clone();
        match timeout(limit, states.wait_for(wanted)).await {
            Ok(Ok(state)) => Ok(state.clone()),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Closed, op)),
            Err(_) => Err(self.why_not(Error::new(ErrorKind::Timeout, op), limit)),
        }
    }

    fn why_not(&self, error: Error, limit: Duration) -> Error {
        let (state, service) = (self.state(), self.service());
        match state.status.error() {
            Some(reason) => error.with_source(reason.clone()),
            None if !state.is_known() => error.because(format!(
                "the source of {service} did not answer within {limit:?}"
            )),
            None if state.instances().is_empty() => {
                error.because(format!("{service} has no instance"))
            }
            None => error.because(format!("no instance of {service} is ready")),
        }
    }

    /// What the subscription holds and why, for people and tests.
    pub fn dump(&self) -> SubscriptionDump {
        SubscriptionDump::new(&self.state(), self.shared.clock.as_ref())
    }
}

/// A subscription as a dump shows it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SubscriptionDump {
    /// The service.
    pub service: ServiceName,
    /// `initializing`, `live` or `stale`.
    pub status: &'static str,
    /// For how many seconds the set has not been trustworthy. `None` if it is.
    pub for_seconds: Option<f64>,
    /// Why it cannot be trusted.
    pub error: Option<String>,
    /// The position of the set in the change feed.
    pub revision: u64,
    /// How many seconds ago the source last confirmed it.
    pub age_seconds: f64,
    /// How many instances are in it.
    pub instances: usize,
    /// How many of these the source no longer lists.
    pub held: usize,
    /// How many entries could not be read.
    pub skipped: usize,
}

impl SubscriptionDump {
    fn new(state: &State, clock: &dyn Clock) -> Self {
        let now = clock.now();
        Self {
            service: state.snapshot.service().clone(),
            status: state.status.as_str(),
            for_seconds: state
                .status
                .since()
                .map(|since| now.since(since).as_secs_f64()),
            error: state.status.error().map(|error| error.report().to_string()),
            revision: state.snapshot.revision().value(),
            age_seconds: now.since(state.snapshot.as_of()).as_secs_f64(),
            instances: state.snapshot.len(),
            held: state.snapshot.held().len(),
            skipped: state.snapshot.skipped_count(),
        }
    }
}
