//! Following the list of services: the handle that readers hold, and the task behind it. Errors become status, never data.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, debug, info, info_span, warn};

use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::config::SubscriptionConfig;
use crate::feed::driver::ended;
use crate::model::name::ServiceName;
use crate::model::state::Status;
use crate::panics::caught;
use crate::port::instancer::{Instancer, ServiceList, ServicesWatcher};
use crate::retry::{FeedRetry, NextFeed, jittered, later};
use crate::runtime::runtime;

const OP: &str = "subscription to services";
/// Reading the list more often than this would be a burden to the server.
const SHORTEST_POLL: Duration = Duration::from_secs(1);
const JITTER: f64 = 0.2;

/// The names of all services that have an instance, and how far the list can be trusted. An error never replaces data.
#[derive(Clone, Debug)]
pub struct ServicesState {
    services: Arc<[ServiceName]>,
    unlisted: usize,
    as_of: Moment,
    status: Status,
}

impl ServicesState {
    /// The last good list, sorted. Empty while [`Status::Initializing`].
    pub fn services(&self) -> &[ServiceName] {
        &self.services
    }

    /// How many entries of the source were none of a service that can be listed: [`ServiceList::unlisted`].
    pub fn unlisted(&self) -> usize {
        self.unlisted
    }

    /// When the source last confirmed the list.
    pub fn as_of(&self) -> Moment {
        self.as_of
    }

    /// How far the list can be trusted.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Whether a list has been read at all.
    pub fn is_known(&self) -> bool {
        self.status.is_known()
    }
}

/// A reader's handle to the list of services: its latest [`ServicesState`], and a way to wait for the next. Cheap to clone; each
/// clone waits on its own. The source is released when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct ServicesSubscription {
    shared: Arc<SharedServices>,
    states: watch::Receiver<ServicesState>,
}

#[derive(Debug)]
pub(crate) struct SharedServices {
    states: watch::Receiver<ServicesState>,
    _stop: DropGuard,
}

impl ServicesSubscription {
    /// The handle and the task behind it. The task ends with `stop` or with the last handle.
    pub(crate) fn prepare(
        instancer: Arc<dyn Instancer>,
        config: SubscriptionConfig,
        clock: Arc<dyn Clock>,
        stop: &CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let now = clock.now();
        let (out, states) = watch::channel(ServicesState {
            services: Arc::default(),
            unlisted: 0,
            as_of: now,
            status: Status::Initializing {
                since: now,
                error: None,
            },
        });
        let stop = stop.child_token();
        let driver = Driver {
            instancer,
            config,
            clock,
            out,
            stop: stop.clone(),
        };
        let task = {
            let stop = stop.clone();
            async move {
                stop.run_until_cancelled(driver.run()).await;
            }
        };
        let shared = Arc::new(SharedServices {
            states,
            _stop: stop.drop_guard(),
        });
        let span = info_span!("watch services");
        (Self::from_shared(shared), task.instrument(span))
    }

    /// Another handle to the same task.
    pub(crate) fn from_shared(shared: Arc<SharedServices>) -> Self {
        let states = shared.states.clone();
        Self { shared, states }
    }

    pub(crate) fn shared(&self) -> &Arc<SharedServices> {
        &self.shared
    }

    /// Whether the source is still followed.
    pub(crate) fn is_followed(&self) -> bool {
        self.states.has_changed().is_ok()
    }

    /// The latest state.
    pub fn state(&self) -> ServicesState {
        self.states.borrow().clone()
    }

    /// Waits for a state newer than the last one that this handle returned from here, and returns the newest.
    ///
    /// # Errors
    /// `Closed` after the registry was closed.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn changed(&mut self) -> Result<ServicesState> {
        let changed = self.states.changed().await;
        changed.map_err(|_| Error::new(ErrorKind::Closed, OP))?;
        Ok(self.states.borrow_and_update().clone())
    }

    /// Waits for at most `limit` until the list is known, even if empty, and returns the state.
    ///
    /// # Errors
    /// `Timeout` with the reason why nothing could be read. `Closed` after the registry was closed. `InvalidInput` outside a tokio
    /// runtime.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn wait_until_known(&self, limit: Duration) -> Result<ServicesState> {
        runtime("wait until services are known")?;
        let mut states = self.states.clone();
        let known = timeout(limit, states.wait_for(ServicesState::is_known)).await;
        match known {
            Ok(Ok(state)) => Ok(state.clone()),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Closed, OP)),
            Err(_) => {
                let error = Error::new(ErrorKind::Timeout, "wait until services are known");
                Err(match self.state().status.error() {
                    Some(reason) => error.with_source(reason.clone()),
                    None => error.because(format!("the source did not answer within {limit:?}")),
                })
            }
        }
    }
}

/// The task behind a subscription.
struct Driver {
    instancer: Arc<dyn Instancer>,
    config: SubscriptionConfig,
    clock: Arc<dyn Clock>,
    out: watch::Sender<ServicesState>,
    stop: CancellationToken,
}

/// Whatever ends the task, readers see that nothing is followed any more. Their next wait ends with `Closed`.
impl Drop for Driver {
    fn drop(&mut self) {
        let (now, error) = (self.clock.now(), ended(OP, &self.stop));
        self.out.send_if_modified(|state| {
            state.status.blame(now, &error);
            false
        });
    }
}

impl Driver {
    async fn run(self) {
        let config = &self.config;
        let mut retry = FeedRetry::new(
            config.backoff_first,
            config.backoff_cap,
            config.stable_after,
        );
        loop {
            let opened_at = Instant::now();
            let Err(error) = caught("feed of services", self.follow()).await else {
                debug!("reading the list of services again");
                continue;
            };
            self.trouble(&error);
            match retry.next(opened_at.elapsed(), &error) {
                NextFeed::Resume(delay) | NextFeed::ReadAll(delay) => sleep(delay).await,
                NextFeed::Never => return std::future::pending().await,
            }
        }
    }

    /// Publishes what one feed tells, until it ends or it is time to read everything again.
    async fn follow(&self) -> Result<()> {
        let opening = self.instancer.watch_services();
        match self.answered(opening).await? {
            Some(watcher) => {
                let reread_at = self.config.anti_entropy.map(|every| {
                    let every = every.max(SHORTEST_POLL);
                    later(Instant::now(), jittered(every, JITTER))
                });
                let feed = self.take_all(watcher);
                match reread_at {
                    Some(at) => timeout_at(at, feed).await.unwrap_or(Ok(())),
                    None => feed.await,
                }
            }
            None => self.poll().await,
        }
    }

    async fn take_all(&self, mut watcher: Box<dyn ServicesWatcher>) -> Result<()> {
        loop {
            let limit = watcher.silence_limit();
            let told = timeout(limit, watcher.next()).await;
            let told = told.unwrap_or_else(|_| {
                let silent = Error::new(ErrorKind::Timeout, "feed of services");
                Err(silent.because(format!("silent for {limit:?}")))
            });
            let services = told?;
            self.publish(ServiceList::from(services).with_unlisted(watcher.unlisted()));
        }
    }

    async fn poll(&self) -> Result<()> {
        loop {
            let services = self.answered(self.instancer.list_services()).await?;
            self.publish(services);
            let every = self.config.poll_services.max(SHORTEST_POLL);
            sleep(jittered(every, JITTER)).await;
        }
    }

    async fn answered<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.config.open_timeout;
        timeout(limit, request).await.unwrap_or_else(|_| {
            let error = Error::new(ErrorKind::Timeout, "list services");
            Err(error.because(format!("no answer within {limit:?}")))
        })
    }

    fn publish(&self, list: ServiceList) {
        let ServiceList { services, unlisted } = list;
        let now = self.clock.now();
        self.out.send_if_modified(|state| {
            let was_live = matches!(state.status, Status::Live);
            let differs = *state.services != *services || !state.is_known();
            let counts_others = unlisted != state.unlisted;
            if counts_others {
                info!(unlisted, "entries of the source are none of a service");
                state.unlisted = unlisted;
            }
            if differs {
                info!(services = services.len(), "list of services changed");
                state.services = services.into();
            }
            state.as_of = now;
            state.status = Status::Live;
            differs || counts_others || !was_live
        });
    }

    fn trouble(&self, error: &Error) {
        let now = self.clock.now();
        self.out.send_modify(|state| {
            let is_news = matches!(state.status, Status::Live);
            if is_news {
                warn!(error = %error.report(), "source has trouble, keeping what is known");
            } else {
                debug!(error = %error.report(), "source still has trouble");
            }
            state.status.blame(now, error);
        });
    }
}
