//! What users hold: a channel that a generated client takes as its transport.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use http::{Request, Response};
use sd_core::{Discovery, Error, ErrorKind, Result, ServiceName};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use crate::builder::ChannelBuilder;
use crate::call::{self, Call};
use crate::dump::ChannelDump;
use crate::durations::Method;
use crate::observed::Observed;
use crate::permit::StreamPermit;
use crate::readiness::Readiness;
use crate::ready_set::{Condition, Pick, ReadySet, Tried};
use crate::shared::{Published, Shared, Totals};
use crate::status;

const WAIT: &str = "wait until channel is ready";

/// A gRPC channel that balances calls over the instances of a service. Cheap to clone; clones share connections and the
/// rotation over endpoints.
///
/// The channel opens and closes connections as the service changes, with or without calls. All connections end when the last
/// clone, call and response is dropped.
#[derive(Clone)]
pub struct BalancedChannel {
    shared: Arc<Shared>,
    /// The set that this clone saw last. An idle clone may hold an old one; its endpoints then say so.
    set: Cache<Handle, Arc<ReadySet>>,
    /// The method that this clone called last: mostly the next one.
    method: Option<Arc<Method>>,
}

/// The way to the published set, for [`Cache`].
#[derive(Clone)]
struct Handle(Arc<Published>);

impl Deref for Handle {
    type Target = ArcSwap<ReadySet>;

    fn deref(&self) -> &Self::Target {
        self.0.set()
    }
}

impl BalancedChannel {
    /// Starts building a channel to `service`, found through `discovery`: a registry, or an instancer in an `Arc`. Must be
    /// called inside a tokio runtime. [`ChannelBuilder::build`] returns the errors, also of the service name.
    pub fn builder(
        discovery: &(impl Discovery + ?Sized),
        service: impl TryInto<ServiceName, Error: Into<Error>>,
    ) -> ChannelBuilder {
        let service = service.try_into().map_err(Into::into);
        let subscription = service.and_then(|service| discovery.subscribe(&service));
        ChannelBuilder::new(subscription)
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            set: Cache::new(Handle(Arc::clone(&shared.published))),
            shared,
            method: None,
        }
    }

    fn method(&mut self, path: &str) -> Arc<Method> {
        if let Some(method) = self.method.as_ref().filter(|method| method.is_of(path)) {
            return Arc::clone(method);
        }
        let method = self.shared.durations.method(path);
        self.method = Some(Arc::clone(&method));
        method
    }

    /// Waits until an endpoint is ready for calls, for at most `limit`.
    ///
    /// # Errors
    /// `Timeout`, with the reason why no endpoint is ready; `Closed` after [`close`](Self::close), and when the runtime on which
    /// the channel was built has ended.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn wait_until_ready(&self, limit: Duration) -> Result<()> {
        self.wait(limit, |set| !set.choice.is_empty()).await
    }

    /// Waits until more than one endpoint is ready for calls, for at most `limit`: calls that begin sooner all go to the few that
    /// happened to be connected first.
    ///
    /// # Errors
    /// As [`wait_until_ready`](Self::wait_until_ready), and `InvalidInput` for a share that is not between 0 and 1.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn wait_until(&self, readiness: Readiness, limit: Duration) -> Result<()> {
        if !readiness.is_valid() {
            let why = format!("{readiness:?} is no share between 0 and 1");
            return Err(Error::invalid_input(WAIT, why));
        }
        self.wait(limit, |set| readiness.is_met(set.ready, set.wanted))
            .await
    }

    async fn wait(&self, limit: Duration, is_enough: impl Fn(&ReadySet) -> bool) -> Result<()> {
        let published = &self.shared.published;
        let waiting = async {
            loop {
                let changed = published.changed().notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let set = published.set().load_full();
                if is_enough(&set) {
                    return Ok(());
                }
                if let Condition::Closed { reason } = &set.condition {
                    return Err(Error::new(ErrorKind::Closed, WAIT).because(reason.to_string()));
                }
                changed.await;
            }
        };
        timeout(limit, waiting).await.unwrap_or_else(|_| {
            let set = published.set().load();
            let why = format!(
                "{} of {} endpoints are ready; {}",
                set.ready, set.wanted, set.condition
            );
            Err(Error::new(ErrorKind::Timeout, WAIT).because(why))
        })
    }

    /// Closes the channel: new calls fail with UNAVAILABLE; calls in flight have
    /// [`drain_timeout`](crate::ChannelConfig::drain_timeout) to finish. Returns when all connections have ended. Later calls wait for
    /// the same end.
    ///
    /// # Cancel safety
    /// If the future is dropped, the channel still closes in the background.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        self.shared.ended.cancelled().await;
    }

    /// Returns the channel's endpoints, their states, and counters.
    pub fn dump(&self) -> ChannelDump {
        ChannelDump::new(&self.shared)
    }
}

impl fmt::Debug for BalancedChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalancedChannel")
            .field("service", &self.shared.service)
            .finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for BalancedChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = CallFuture;

    /// Always ready: a call waits in its own future, where its deadline applies.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> CallFuture {
        let shared = Arc::clone(&self.shared);
        let method = self.method(request.uri().path());
        let info = call::info(request.uri().path(), request.extensions().get().copied());
        // Not before those that wait already.
        let place = if shared.published.waiting() > 0 {
            None
        } else {
            match call::pick(&shared, self.set.load(), &info, &Tried::default()) {
                Pick::On(connection) => Some(StreamPermit::new(connection, Arc::clone(&shared))),
                Pick::Full | Pick::None => None,
            }
        };
        CallFuture(Box::pin(run(shared, request, method, place)))
    }
}

async fn run(
    shared: Arc<Shared>,
    request: Request<Body>,
    method: Arc<Method>,
    place: Option<StreamPermit>,
) -> Result<Response<Body>, Status> {
    Totals::count(&shared.totals.calls);
    shared.metrics.begun();
    let (parts, body) = request.into_parts();
    let observed = Observed::begin(&shared.service, parts.uri.path(), method);
    let done = match Call::new(Arc::clone(&shared), parts, observed) {
        Ok(call) => call.run(body, place).await,
        Err(status) => Err(status),
    };
    if done
        .as_ref()
        .is_err_and(|status| !status::is_by_server(status))
    {
        Totals::count(&shared.totals.failed);
        shared.metrics.failed();
    }
    done
}

/// The future of a call.
///
/// # Cancel safety
/// Dropping it cancels the call and resets its stream; the server may already have executed the call.
pub struct CallFuture(Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>);

impl Future for CallFuture {
    type Output = Result<Response<Body>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for CallFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}
