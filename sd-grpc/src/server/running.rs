//! The owner's handle on a server that runs.

use std::fmt;
use std::sync::Arc;

use sd_core::{Error, ErrorKind, Instance, Result};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic_health::ServingStatus;

use crate::server::health::Health;
use crate::server::lifecycle::{Change, Lifecycle, Orders, Progress};

/// Changes that the server has not taken yet.
const MOST_CHANGES: usize = 8;

/// A server that runs, in a task of its own. Dropping it cuts every connection at once and deregisters in the background;
/// [`shutdown`](Self::shutdown) ends it in order. Share it in an `Arc`.
pub struct RunningServer {
    health: Health,
    changes: mpsc::Sender<Change>,
    progress: watch::Receiver<Progress>,
    shutdown: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl RunningServer {
    pub(crate) fn start(lifecycle: Lifecycle) -> Self {
        let instances = &lifecycle.registration.instances;
        let services = instances.iter().map(|one| one.service().as_str());
        let served = lifecycle.ports.iter().flat_map(|port| port.names.iter());
        let names = services.chain(served.copied()).chain([""]);
        let ready = instances.iter().any(Instance::is_ready);
        let health = Health::new(names.map(str::to_owned), ready);
        let (changes, changes_seen) = mpsc::channel(MOST_CHANGES);
        let (told, progress) = watch::channel(Progress::Registering);
        let shutdown = CancellationToken::new();
        let orders = Orders {
            changes: changes_seen,
            shutdown: shutdown.clone(),
        };
        let own_health = health.clone();
        let task = tokio::spawn(async move {
            let ended = lifecycle.run(&own_health, orders, &told).await;
            told.send_replace(Progress::Ended(ended));
        });
        Self {
            health,
            changes,
            progress,
            shutdown,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Waits until the registry has confirmed every instance. With [`Server::in_background`](crate::Server::in_background) that may
    /// take as long as the registry is down.
    ///
    /// # Errors
    /// Why it could not register; why the server has ended, `Closed` if it was shut down.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn registered(&self) -> Result<()> {
        let mut progress = self.progress.clone();
        let told = progress.wait_for(|progress| !matches!(progress, Progress::Registering));
        match told.await.map_err(|_| panicked())?.clone() {
            Progress::Registered(registered) => registered,
            Progress::Ended(Err(error)) => Err(error),
            Progress::Ended(Ok(())) | Progress::Registering => Err(closed("wait until registered")),
        }
    }

    /// Tells clients whether this server wants calls: health says `NOT_SERVING` for every name while it does not, and the instances
    /// are not ready. Returns when the registry has confirmed it.
    ///
    /// # Errors
    /// As [`update`](Self::update). What health says has changed nevertheless, unless the server is stopping.
    ///
    /// # Cancel safety
    /// As [`update`](Self::update).
    pub async fn set_ready(&self, ready: bool) -> Result<()> {
        self.health.set_ready(ready);
        self.update(move |instance| instance.with_ready(ready))
            .await
    }

    /// Changes every registered instance in place: weight, readiness, zone, tags, metadata. Returns when the registry has confirmed it.
    /// Waits until the server is registered.
    ///
    /// # Errors
    /// As [`RegistrationGuard::update`](sd_core::RegistrationGuard::update), the first of all instances; `Closed` if the server has
    /// ended or is stopping.
    ///
    /// # Cancel safety
    /// After a dropped call the change may or may not be wanted.
    pub async fn update(
        &self,
        change: impl Fn(Instance) -> Instance + Send + Sync + 'static,
    ) -> Result<()> {
        const OP: &str = "update server";
        let (reply, done) = oneshot::channel();
        let change = Change {
            change: Arc::new(change),
            reply,
        };
        let sent = self.changes.send(change).await;
        sent.map_err(|_| closed(OP))?;
        done.await.map_err(|_| closed(OP))?
    }

    /// Sets what `grpc.health.v1` says for a name, known before or not. While the server is not ready or drains, it says
    /// `NOT_SERVING` nevertheless.
    pub fn set_health(&self, name: impl Into<String>, status: ServingStatus) {
        self.health.set(name.into(), status);
    }

    /// Shuts down in order: health becomes `NOT_SERVING`, the instances unready; the server drains, then deregisters; calls in flight
    /// finish or are cut. Returns when that is done. Later calls wait for the same end.
    ///
    /// # Errors
    /// As [`Server::serve`](crate::Server::serve).
    ///
    /// # Cancel safety
    /// If the future is dropped, the shutdown goes on.
    pub async fn shutdown(&self) -> Result<()> {
        self.shutdown.cancel();
        self.ended().await
    }

    /// Waits until the server has ended: after [`shutdown`](Self::shutdown), or because it could not register or a port failed.
    ///
    /// # Errors
    /// As [`Server::serve`](crate::Server::serve).
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn ended(&self) -> Result<()> {
        let mut progress = self.progress.clone();
        let told = progress.wait_for(|progress| matches!(progress, Progress::Ended(_)));
        match told.await.map_err(|_| panicked())?.clone() {
            Progress::Ended(ended) => ended,
            Progress::Registering | Progress::Registered(_) => Err(panicked()),
        }
    }
}

fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op).because("the server has stopped or is stopping")
}

fn panicked() -> Error {
    Error::new(ErrorKind::Closed, "serve")
        .because("the server's task panicked, or its runtime has ended")
}

impl fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningServer")
            .field("progress", &self.progress.borrow())
            .finish_non_exhaustive()
    }
}
