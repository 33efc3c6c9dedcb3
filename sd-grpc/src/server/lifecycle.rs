//! The order of a server's life: serve, register; at the end unready, drain, deregister, stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{join, join_all};
use futures_util::stream::FuturesUnordered;
use sd_core::{Error, Instance, RegistrationGuard, RegistrationPhase, Registry, Result};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::server::health::Health;
use crate::server::port::{Port, Serving};

/// How many changes may wait for the registry at once.
const MOST_CHANGES: usize = 64;

/// What a server does in its life.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    pub(crate) registration: Registration,
    pub(crate) ports: Vec<Port>,
    pub(crate) drain: Duration,
    pub(crate) stop_within: Duration,
}

/// What is registered, and how.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) registry: Registry,
    pub(crate) instances: Vec<Instance>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) in_background: bool,
}

/// How far a server is.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    Registering,
    /// Registered, or never going to be. It serves in either case.
    Registered(Result<()>),
    Ended(Result<()>),
}

/// A change of everything that is registered.
pub(crate) struct Change {
    pub(crate) change: Arc<dyn Fn(Instance) -> Instance + Send + Sync>,
    pub(crate) reply: oneshot::Sender<Result<()>>,
}

/// What the owner of a server tells it.
pub(crate) struct Orders {
    pub(crate) changes: mpsc::Receiver<Change>,
    pub(crate) shutdown: CancellationToken,
}

impl Lifecycle {
    /// Serves until the shutdown. Dropping the future cuts every connection and deregisters in the background.
    pub(crate) async fn run(
        self,
        health: &Health,
        mut orders: Orders,
        progress: &watch::Sender<Progress>,
    ) -> Result<()> {
        let Self {
            registration,
            ports,
            drain,
            stop_within,
        } = self;
        if ports.is_empty() {
            return Err(Error::invalid_input("serve", "a server needs a port"));
        }
        let mut serving = Serving::start(ports, health);

        let registering = registration.register_all();
        tokio::pin!(registering);
        let guards = tokio::select! {
            registered = &mut registering => registered,
            ended = serving.ended() => return Err(ended),
            () = orders.shutdown.cancelled() => {
                health.drain();
                // What was begun is finished before it is undone, if the registry answers in time.
                let begun = timeout(stop_within, registering).await;
                Ok(begun.ok().and_then(Result::ok).unwrap_or_default())
            }
        };
        let guards = match guards {
            Ok(guards) => guards,
            Err(error) => {
                health.end();
                // The reason why it could not register matters more than how the stop went.
                let _ = serving.stop(stop_within).await;
                return Err(error);
            }
        };
        info!(services = ?services(&guards), "serving");

        let told = async {
            let registered = all_registered(&guards).await;
            progress.send_replace(Progress::Registered(registered));
        };
        let ended = tokio::select! {
            () = orders.shutdown.cancelled() => None,
            ended = serving.ended() => Some(ended),
            ((), never) = join(told, apply_changes(&guards, &mut orders.changes)) => match never {},
        };
        // Changes that come from here on fail at once, and do not wait for the stop.
        drop(orders.changes);
        if let Some(ended) = ended {
            // One port answers no more: withdraw at once.
            let _ = end_all(guards, RegistrationGuard::deregister).await;
            return Err(ended);
        }
        info!(services = ?services(&guards), "stopping");
        health.drain();
        let withdrawn = end_all(guards, |guard| async move {
            match guard.phase() {
                // No client calls a server that the registry does not know: there is nothing to drain.
                RegistrationPhase::Registering => guard.deregister().await,
                _ => guard.drain(drain).await,
            }
        });
        let withdrawn = withdrawn.await;
        if let Err(error) = &withdrawn {
            warn!(error = %error.report(), "could not deregister");
        }
        health.end();
        serving.stop(stop_within).await?;
        withdrawn
    }
}

impl Registration {
    /// Registers every instance, or none.
    async fn register_all(self) -> Result<Vec<RegistrationGuard>> {
        let registered = join_all(self.instances.iter().map(|instance| async {
            let mut register = self.registry.register(instance.clone());
            if let Some(ttl) = self.ttl {
                register = register.ttl(ttl);
            }
            if self.in_background {
                register.in_background()
            } else {
                register.await
            }
        }));
        let (mut guards, mut failed) = (Vec::new(), None);
        for registered in registered.await {
            match registered {
                Ok(guard) => guards.push(guard),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let Some(error) = failed else {
            return Ok(guards);
        };
        // The reason why it could not register matters more.
        let _ = end_all(guards, RegistrationGuard::deregister).await;
        Err(error)
    }
}

fn services(guards: &[RegistrationGuard]) -> Vec<String> {
    let service = |guard: &RegistrationGuard| guard.instance().service().to_string();
    guards.iter().map(service).collect()
}

async fn all_registered(guards: &[RegistrationGuard]) -> Result<()> {
    for guard in guards {
        guard.registered().await?;
    }
    Ok(())
}

/// Ends all registrations at the same time. Returns the first error.
async fn end_all<F>(
    guards: Vec<RegistrationGuard>,
    end: impl Fn(RegistrationGuard) -> F,
) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    join_all(guards.into_iter().map(end))
        .await
        .into_iter()
        .collect()
}

async fn apply_changes(
    guards: &[RegistrationGuard],
    changes: &mut mpsc::Receiver<Change>,
) -> Infallible {
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(change) = changes.recv(), if waiting.len() < MOST_CHANGES => {
                waiting.push(apply(guards, change));
            }
            Some(()) = waiting.next() => {}
            // The owner is gone, and this future will be dropped.
            else => std::future::pending().await,
        }
    }
}

async fn apply(guards: &[RegistrationGuard], change: Change) {
    let Change { change, reply } = change;
    let updates = guards.iter().map(|guard| {
        let change = Arc::clone(&change);
        guard.update(move |instance| change(instance))
    });
    let done = join_all(updates).await.into_iter().collect();
    // The caller may have left.
    let _ = reply.send(done);
}
