//! Feeds other balancers from any source: as a `tower::discover::Discover`, or through the sender of tonic's
//! `balance_channel`.
//!
//! This allows moving to this crate step by step. What those balancers do with the endpoints is up to them: tower's drops an
//! endpoint whose service failed until discovery lists it again; tonic's keeps offering endpoints that cannot be reached.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use sd_core::{Delta, Incarnation, Instance, InstanceId, Result, Snapshot, State, Subscription};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::channel::Change as TonicChange;
use tower::discover::Change;

/// Identifies one run of an instance to a balancer: a restarted instance has another key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The instance's id.
    pub id: InstanceId,
    /// The run of the instance.
    pub incarnation: Incarnation,
}

impl From<&Instance> for Key {
    fn from(instance: &Instance) -> Self {
        Self {
            id: instance.id().clone(),
            incarnation: instance.incarnation(),
        }
    }
}

/// A stream of insertions and removals that is a `tower::discover::Discover`. Ends when the registry is closed.
pub struct Discover<S>(BoxStream<'static, Result<Change<Key, S>, Infallible>>);

impl<S> Stream for Discover<S> {
    type Item = Result<Change<Key, S>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl<S> fmt::Debug for Discover<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discover").finish_non_exhaustive()
    }
}

/// Turns a subscription into a `tower::discover::Discover`: `make` makes one service for each ready instance. An instance that
/// moved gets a new service under its old key; a change of weight, tags or metadata changes nothing.
pub fn discover<S, F>(subscription: Subscription, make: F) -> Discover<S>
where
    F: FnMut(&Arc<Instance>) -> S + Send + 'static,
    S: Send + 'static,
{
    let changes = Changes {
        subscription,
        make,
        told: None,
        queue: VecDeque::new(),
    };
    let stream = stream::unfold(changes, |mut changes| async move {
        let change = changes.next().await?;
        Some((Ok(change), changes))
    });
    Discover(stream.boxed())
}

struct Changes<S, F> {
    subscription: Subscription,
    make: F,
    /// The ready instances that were told.
    told: Option<Snapshot>,
    queue: VecDeque<Change<Key, S>>,
}

impl<S, F: FnMut(&Arc<Instance>) -> S> Changes<S, F> {
    async fn next(&mut self) -> Option<Change<Key, S>> {
        loop {
            if let Some(change) = self.queue.pop_front() {
                return Some(change);
            }
            let state = match self.told {
                None => self.subscription.state_and_mark_seen(),
                Some(_) => self.subscription.changed().await.ok()?,
            };
            self.take(&state);
        }
    }

    fn take(&mut self, state: &State) {
        let ready = state
            .snapshot()
            .instances()
            .iter()
            .filter(|instance| instance.is_ready())
            .cloned()
            .collect();
        let ready = state.snapshot().clone().with_instances(ready);
        let before = self
            .told
            .take()
            .unwrap_or_else(|| ready.clone().with_instances(Vec::new()));
        let Delta {
            added,
            removed,
            readdressed,
            ..
        } = Delta::between(&before, &ready);
        for gone in &removed {
            self.queue.push_back(Change::Remove(gone.as_ref().into()));
        }
        let moved = readdressed.into_iter().map(|change| change.to);
        for instance in added.into_iter().chain(moved) {
            let service = (self.make)(&instance);
            self.queue
                .push_back(Change::Insert(instance.as_ref().into(), service));
        }
        self.told = Some(ready);
    }
}

/// A handle on the task that keeps tonic's `balance_channel` up to date and never blocks discovery. Dropping the handle ends
/// the task.
#[derive(Debug)]
pub struct Feeder {
    _stop: DropGuard,
}

/// Sends the endpoint that `make` makes of each ready instance to `sender`, which `tonic::transport::Channel::balance_channel`
/// returns. Must be called inside a tokio runtime; ends when the channel or the returned handle is dropped.
pub fn feed<F>(
    subscription: Subscription,
    sender: mpsc::Sender<TonicChange<Key, tonic::transport::Endpoint>>,
    make: F,
) -> Feeder
where
    F: FnMut(&Arc<Instance>) -> tonic::transport::Endpoint + Send + 'static,
{
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let mut changes = discover(subscription, make);
    tokio::spawn(async move {
        let feeding = async {
            while let Some(Ok(change)) = changes.next().await {
                let change = match change {
                    Change::Insert(key, endpoint) => TonicChange::Insert(key, endpoint),
                    Change::Remove(key) => TonicChange::Remove(key),
                };
                if sender.send(change).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = feeding => {}
            () = stopped.cancelled() => {}
            () = sender.closed() => {}
        }
    });
    Feeder {
        _stop: stop.drop_guard(),
    }
}
