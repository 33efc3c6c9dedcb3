//! A subscription: the task that drives a source's feeds, and the handle that readers hold.
//!
//! The task opens a feed, publishes what it tells, and opens a new one when it ends. Errors become status, never data.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, debug, info_span};

use crate::backoff::{Backoff, jittered, later, paced};
use crate::clock::{BootClock, Clock, Moment};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::feed::mass_loss::MassLossHold;
use crate::feed::publisher::{Coalescing, Publisher};
use crate::instrument;
use crate::model::name::ServiceName;
use crate::model::snapshot::{Revision, Snapshot};
use crate::model::state::{State, Status};
use crate::port::instancer::{Feed, Instancer, Watcher};

const OP: &str = "subscription";
/// Reading everything more often than this would be polling.
const SHORTEST_ANTI_ENTROPY: Duration = Duration::from_secs(1);

/// How a subscription deals with its source.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubscriptionConfig {
    /// How long opening a feed may take. Default 5 s.
    pub open_timeout: Duration,
    /// The first delay after a failed feed; later ones double, all with full jitter. Default 100 ms.
    pub backoff_first: Duration,
    /// The longest delay between feeds. Default 5 s.
    pub backoff_cap: Duration,
    /// A feed that lived this long resets the delay. Default 10 s.
    pub stable_after: Duration,
    /// How often everything is read again however well the feed looks, ± 20 %. Default 5 min; less than
    /// 1 s counts as 1 s; `None` for never.
    pub anti_entropy: Option<Duration>,
    /// Whether instances that vanish together are served on for a while. `None` obeys the source at once.
    pub mass_loss_hold: Option<MassLossHold>,
    /// How bursts of changes merge.
    pub coalescing: Coalescing,
    /// Whether the set shows in the metrics of its service. The part of a combination does not: the whole does.
    pub(crate) metered: bool,
}

impl Default for SubscriptionConfig {
    fn default() -> Self {
        Self {
            open_timeout: Duration::from_secs(5),
            backoff_first: Duration::from_millis(100),
            backoff_cap: Duration::from_secs(5),
            stable_after: Duration::from_secs(10),
            anti_entropy: Some(Duration::from_mins(5)),
            mass_loss_hold: Some(MassLossHold::default()),
            coalescing: Coalescing::default(),
            metered: true,
        }
    }
}

/// Anything that a service can be subscribed at: a [`Registry`](crate::Registry), which shares subscriptions, or any
/// [`Instancer`] in an `Arc`, which gets one of its own.
pub trait Discovery {
    /// Subscribes to a service. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `InvalidInput` outside of a runtime, `Closed` after the registry was closed.
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
/// its own. The source is let go when the last one is dropped. A slow reader skips states and never delays others.
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
    _stop: DropGuard,
}

impl Subscription {
    /// Subscribes to `service` at `instancer`, in a task of its own.
    ///
    /// # Errors
    /// `InvalidInput` outside of a tokio runtime.
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

    /// The handle and the task behind it, which ends with `stop` or with the last handle.
    pub(crate) fn prepare(
        instancer: Arc<dyn Instancer>,
        service: ServiceName,
        config: SubscriptionConfig,
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
        let stop = stop.child_token();
        let publisher = Publisher::new(out, Arc::clone(&clock), &config);
        let span = info_span!("watch", service = service.as_str());
        let driver = Driver {
            instancer,
            service: service.clone(),
            config,
            publisher,
            stop: stop.clone(),
            last: None,
        };
        let shared = Shared {
            service,
            states: states.clone(),
            clock,
            _stop: stop.drop_guard(),
        };
        (
            Self {
                shared: Arc::new(shared),
                states,
            },
            driver.run().instrument(span),
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

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.shared.service
    }

    /// How long ago a moment of this subscription's clock was.
    pub(crate) fn age(&self, moment: Moment) -> Duration {
        self.shared.clock.now().since(moment)
    }

    /// The latest state.
    pub fn state(&self) -> State {
        self.states.borrow().clone()
    }

    /// The latest state, which [`changed`](Self::changed) then no longer returns.
    pub fn state_and_mark_seen(&mut self) -> State {
        self.states.borrow_and_update().clone()
    }

    /// Waits for a state newer than the last one this handle returned from here, and returns the newest.
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

    /// Waits until the set is known, be it empty, and returns it. Waits at most `limit`.
    ///
    /// # Errors
    /// `Timeout` with the reason why nothing could be read; `Closed` after the registry was closed.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn wait_until_ready(&self, limit: Duration) -> Result<State> {
        let mut states = self.states.clone();
        let known = timeout(limit, states.wait_for(State::is_known)).await;
        match known {
            Ok(Ok(state)) => Ok(state.clone()),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Closed, OP)),
            Err(_) => {
                let error = Error::new(ErrorKind::Timeout, "wait until ready");
                Err(match self.state().status.error() {
                    Some(reason) => error.with_source(reason.clone()),
                    None => error.because(format!("the source did not answer within {limit:?}")),
                })
            }
        }
    }

    /// What is held and why, for people and tests.
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
    /// For how many seconds the set could not be trusted.
    pub for_seconds: Option<f64>,
    /// Why it cannot be trusted.
    pub error: Option<String>,
    /// The position of the set.
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
            skipped: state.snapshot.skipped().len(),
        }
    }
}

/// The runtime to spawn a task on.
pub(crate) fn runtime(op: &'static str) -> Result<tokio::runtime::Handle> {
    tokio::runtime::Handle::try_current().map_err(|_| {
        Error::invalid_input(
            op,
            "must be called inside a tokio runtime, which its task lives on",
        )
    })
}

/// The task behind a subscription.
#[derive(Debug)]
struct Driver {
    instancer: Arc<dyn Instancer>,
    service: ServiceName,
    config: SubscriptionConfig,
    publisher: Publisher,
    stop: CancellationToken,
    /// The last good set as the source gave it, to resume after.
    last: Option<Snapshot>,
}

/// The subscription is to end.
struct Stopped;

/// A feed on its way.
type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn Watcher>>> + Send>>;

/// What can happen while a feed is followed.
enum Event {
    Told(Result<Feed>),
    RereadDue,
    Opened(Result<Box<dyn Watcher>>),
    Silent,
}

impl Driver {
    async fn run(mut self) {
        // Ends with `Stopped`, there is nothing else to tell.
        let _ = self.drive().await;
        debug!("subscription ended");
    }

    async fn drive(&mut self) -> Result<(), Stopped> {
        let mut backoff = Backoff::new(self.config.backoff_first, self.config.backoff_cap);
        loop {
            let opened_at = Instant::now();
            let opening = self.open(self.last.clone());
            let error = match self.attend(opening).await? {
                Ok(watcher) => self.follow(watcher).await?,
                Err(error) => error,
            };
            instrument::feed_error(&self.service);
            self.publisher.trouble(&error);
            if opened_at.elapsed() >= self.config.stable_after {
                backoff.reset();
            }
            let delay = match error.kind().retry() {
                Retry::Backoff => backoff.next_delay(),
                Retry::After(asked) => paced(asked, &mut backoff),
                Retry::Resync => {
                    self.last = None;
                    backoff.next_delay()
                }
                Retry::Never => {
                    // Whoever reads the status sees why; only dropping the handles ends it.
                    self.attend(std::future::pending::<()>()).await?;
                    return Err(Stopped);
                }
            };
            self.attend(sleep(delay)).await?;
        }
    }

    fn open(&self, known: Option<Snapshot>) -> Opening {
        let (instancer, service) = (Arc::clone(&self.instancer), self.service.clone());
        let limit = self.config.open_timeout;
        Box::pin(async move {
            match timeout(limit, instancer.watch(&service, known.as_ref())).await {
                Ok(opened) => opened,
                Err(_) => Err(Error::new(ErrorKind::Timeout, "open feed")
                    .because(format!("no answer within {limit:?}"))),
            }
        })
    }

    /// Publishes what a feed tells until it ends. Replaces it now and then by one that reads everything again, and follows the
    /// old one until the new one is open.
    async fn follow(&mut self, mut watcher: Box<dyn Watcher>) -> Result<Error, Stopped> {
        let mut reread_at = self.next_reread();
        let mut fresh: Option<Opening> = None;
        // How far the old feed got while the new one was being opened, which may have read before that.
        let mut passed: Option<Revision> = None;
        let mut limit = watcher.silence_limit();
        let mut silent_at = later(Instant::now(), limit);
        loop {
            let event = self.attend(async {
                tokio::select! {
                    // What the old feed has told already comes before the new one.
                    biased;
                    told = watcher.next() => Event::Told(told),
                    opened = opened(&mut fresh) => Event::Opened(opened),
                    () = until(reread_at) => Event::RereadDue,
                    () = sleep_until(silent_at) => Event::Silent,
                }
            });
            match event.await? {
                Event::Told(Ok(feed)) => {
                    silent_at = later(Instant::now(), limit);
                    if fresh.is_some() {
                        passed = set_of(&feed).map(|set| set.revision().clone()).or(passed);
                    } else if is_before(&feed, passed.as_ref()) {
                        debug!("new feed is not yet as far as the old one was");
                        continue;
                    } else {
                        passed = None;
                    }
                    self.take(feed);
                }
                Event::Told(Err(error)) => return Ok(error),
                Event::Opened(opened) => {
                    (fresh, reread_at) = (None, self.next_reread());
                    match opened {
                        Ok(opened) => {
                            watcher = opened;
                            limit = watcher.silence_limit();
                            silent_at = later(Instant::now(), limit);
                        }
                        Err(error) => {
                            passed = None;
                            debug!(error = %error.report(), "could not read everything again");
                        }
                    }
                }
                Event::RereadDue => {
                    (fresh, reread_at) = (Some(self.open(None)), None);
                    passed = None;
                }
                Event::Silent => {
                    return Ok(Error::new(ErrorKind::Timeout, "feed")
                        .because(format!("silent for {limit:?}")));
                }
            }
        }
    }

    fn next_reread(&self) -> Option<Instant> {
        self.config.anti_entropy.map(|every| {
            let every = every.max(SHORTEST_ANTI_ENTROPY);
            later(Instant::now(), jittered(every, 0.2))
        })
    }

    fn take(&mut self, feed: Feed) {
        match feed {
            Feed::Set(snapshot) => {
                self.publisher.set(&snapshot);
                self.last = Some(snapshot);
            }
            Feed::Alive { revision, as_of } => {
                if let Some(last) = self.last.take() {
                    self.publisher.alive(&revision, as_of);
                    self.last = Some(last.with_position(revision, as_of));
                } else {
                    debug!("feed is alive but has told no set yet");
                }
            }
            Feed::Degraded(error) => self.publisher.trouble(&error),
            Feed::Partial { set, error } => {
                self.publisher.partial_set(&set, &error);
                self.last = Some(set);
            }
        }
    }

    /// Waits for `work` while the publisher's timers go on.
    async fn attend<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::pin!(work);
        loop {
            let due = self.publisher.due();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Stopped),
                () = until(due) => self.publisher.on_timer(),
                done = &mut work => return Ok(done),
            }
        }
    }
}

/// Returns the feed when it is open; never if none is on its way.
async fn opened(fresh: &mut Option<Opening>) -> Result<Box<dyn Watcher>> {
    match fresh {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

fn set_of(feed: &Feed) -> Option<&Snapshot> {
    match feed {
        Feed::Set(set) | Feed::Partial { set, .. } => Some(set),
        Feed::Alive { .. } | Feed::Degraded(_) => None,
    }
}

fn is_before(feed: &Feed, passed: Option<&Revision>) -> bool {
    let position = match feed {
        Feed::Alive { revision, .. } => Some(revision),
        feed => set_of(feed).map(Snapshot::revision),
    };
    position
        .zip(passed)
        .is_some_and(|(position, passed)| position < passed)
}

/// Returns at `at`; never if there is no such time.
pub(crate) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
