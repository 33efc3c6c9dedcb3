//! The task behind an endpoint cache: it owns all values, makes them, and closes them.
//!
//! Each instance has a slot: `Waiting` until its time has come and there is room, `Making`, then `Made`; back to `Waiting`
//! after a failure. A slot has a ticket of its own, so that a value that is finished after its instance has left is recognized
//! and closed. Only this task changes anything here, so there are no locks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::cached_endpoint::{CachedEndpoint, MissingEndpoint};
use super::parts::{Close, Make, Parts, Settings};
use super::set::EndpointSet;
use crate::balance::{Listed, Selection, Selector};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::subscription::Subscription;
use crate::instrument;
use crate::model::delta::Delta;
use crate::model::instance::Instance;
use crate::model::name::InstanceId;
use crate::model::snapshot::Snapshot;
use crate::model::state::{State, Status};
use crate::printable::Printable;
use crate::retry::{Backoff, later};
use crate::runtime::until;

const OP: &str = "make endpoint";

pub(super) struct Driver<T> {
    subscription: Subscription,
    /// False once the registry behind the subscription is closed. The last set then stays.
    source_lives: bool,
    make: Make<T>,
    close: Option<Close<T>>,
    settings: Settings,
    selection: Selection,
    selector: Selector,
    sets: Arc<ArcSwap<EndpointSet<T>>>,
    told: watch::Sender<()>,
    stop: CancellationToken,

    /// The set that the slots stand for: the selected part of the service.
    listed: Snapshot,
    /// The source has told its set.
    resolved: bool,
    slots: BTreeMap<InstanceId, Slot<T>>,
    last_ticket: u64,
    /// The waiting slots by their time.
    queue: BTreeSet<(Instant, u64, InstanceId)>,
    making: JoinSet<Made<T>>,
    /// Values that have left the set, in the order in which they will be closed.
    draining: VecDeque<(Instant, Arc<T>)>,
    closing: JoinSet<()>,
    /// When the set is given up unless the source recovers.
    invalid_at: Option<Instant>,
    invalidated: bool,
}

struct Slot<T> {
    instance: Arc<Instance>,
    ticket: u64,
    stage: Stage<T>,
    backoff: Backoff,
    failures: u32,
    error: Option<Error>,
}

enum Stage<T> {
    Waiting { until: Instant },
    Making(AbortHandle),
    Made(Arc<CachedEndpoint<T>>),
}

/// The outcome of an attempt to make a value.
struct Made<T> {
    id: InstanceId,
    ticket: u64,
    outcome: Result<T>,
}

impl<T: Send + Sync + 'static> Driver<T> {
    pub(super) fn new(
        built: Parts<T>,
        sets: Arc<ArcSwap<EndpointSet<T>>>,
        told: watch::Sender<()>,
        stop: CancellationToken,
    ) -> Self {
        let listed = unlisted(&built.subscription);
        Self {
            subscription: built.subscription,
            source_lives: true,
            make: built.make,
            close: built.close,
            settings: built.settings,
            selector: Selector::new(built.policy, built.selection.zone.clone()),
            selection: built.selection,
            sets,
            told,
            stop,
            listed,
            resolved: false,
            slots: BTreeMap::new(),
            last_ticket: 0,
            queue: BTreeSet::new(),
            making: JoinSet::new(),
            draining: VecDeque::new(),
            closing: JoinSet::new(),
            invalid_at: None,
            invalidated: false,
        }
    }

    pub(super) async fn run(mut self) {
        let state = self.subscription.state_and_mark_seen();
        self.follow(&state);
        loop {
            self.start_making();
            let wake_at = self.wake_at();
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = self.subscription.changed(), if self.source_lives => match changed {
                    Ok(state) => self.follow(&state),
                    Err(error) => self.lose_source(&error),
                },
                Some(made) = self.making.join_next() => self.take_made(made),
                Some(closed) = self.closing.join_next() => report_close(&closed),
                () = until(wake_at) => self.on_timer(),
            }
        }
        self.end().await;
    }

    // ---- following the set

    fn follow(&mut self, state: &State) {
        match state.status() {
            Status::Initializing { .. } => return,
            Status::Live => {
                self.invalid_at = None;
                if std::mem::take(&mut self.invalidated) {
                    self.publish();
                }
            }
            Status::Stale { since, .. } => {
                let stale_for = self.subscription.age(*since);
                self.invalid_at = self
                    .settings
                    .invalidate_after
                    .filter(|_| !self.invalidated)
                    .map(|after| later(Instant::now(), after.saturating_sub(stale_for)));
            }
        }
        if !self.invalidated {
            self.apply(self.selection.to_connect(state.snapshot()));
        }
    }

    fn lose_source(&mut self, error: &Error) {
        debug!(error = %error.report(), "source was closed, keeping the last set");
        self.source_lives = false;
        let after = self.settings.invalidate_after;
        if let Some(after) = after.filter(|_| !self.invalidated) {
            self.invalid_at
                .get_or_insert_with(|| later(Instant::now(), after));
        }
    }

    fn apply(&mut self, listed: Snapshot) {
        let delta = Delta::between(&self.listed, &listed);
        self.listed = listed;
        let first = !std::mem::replace(&mut self.resolved, true);
        if delta.is_empty() && !first {
            return;
        }
        for gone in &delta.removed {
            self.remove(gone.id());
        }
        for moved in &delta.readdressed {
            self.remove(moved.from.id());
            self.add(&moved.to);
        }
        for come in &delta.added {
            self.add(come);
        }
        for change in &delta.retuned {
            self.retune(&change.to);
        }
        self.publish();
    }

    fn add(&mut self, instance: &Arc<Instance>) {
        self.last_ticket += 1;
        let (now, ticket) = (Instant::now(), self.last_ticket);
        let id = instance.id().clone();
        self.queue.insert((now, ticket, id.clone()));
        let slot = Slot {
            instance: Arc::clone(instance),
            ticket,
            stage: Stage::Waiting { until: now },
            backoff: Backoff::new(self.settings.retry_first, self.settings.retry_cap),
            failures: 0,
            error: None,
        };
        self.slots.insert(id, slot);
    }

    fn remove(&mut self, id: &InstanceId) {
        let Some(slot) = self.slots.remove(id) else {
            return;
        };
        match slot.stage {
            Stage::Waiting { until } => {
                self.queue.remove(&(until, slot.ticket, id.clone()));
            }
            Stage::Making(attempt) => attempt.abort(),
            Stage::Made(endpoint) => self.drain(Arc::clone(endpoint.value())),
        }
    }

    fn retune(&mut self, instance: &Arc<Instance>) {
        if let Some(slot) = self.slots.get_mut(instance.id()) {
            slot.instance = Arc::clone(instance);
            if let Stage::Made(endpoint) = &mut slot.stage {
                *endpoint = Arc::new(endpoint.with_instance(Arc::clone(instance)));
            }
        }
    }

    // ---- making

    fn has_room(&self) -> bool {
        self.making.len() < self.settings.made_at_once
    }

    fn start_making(&mut self) {
        let now = Instant::now();
        while self.has_room() && self.queue.first().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, ticket, id)) = self.queue.pop_first() else {
                return;
            };
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            let (make, instance) = (Arc::clone(&self.make), Arc::clone(&slot.instance));
            let limit = self.settings.make_within;
            let attempt = self.making.spawn(async move {
                let making = async move { make(instance).await };
                let making = AssertUnwindSafe(timeout(limit, making)).catch_unwind();
                let outcome = match making.await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_)) => Err(Error::new(ErrorKind::Timeout, OP)
                        .because(format!("the factory took longer than {limit:?}"))),
                    Err(_) => {
                        Err(Error::new(ErrorKind::Unavailable, OP).because("the factory panicked"))
                    }
                };
                Made {
                    id,
                    ticket,
                    outcome,
                }
            });
            slot.stage = Stage::Making(attempt);
        }
    }

    /// Takes all finished attempts, then publishes once.
    fn take_made(&mut self, first: Result<Made<T>, JoinError>) {
        let mut next = Some(first);
        while let Some(made) = next {
            // The others were aborted, because their instance has left.
            if let Ok(made) = made {
                self.settle(made);
            }
            next = self.making.try_join_next();
        }
        self.publish();
    }

    fn settle(&mut self, made: Made<T>) {
        let slot = self
            .slots
            .get_mut(&made.id)
            .filter(|slot| slot.ticket == made.ticket);
        match (slot, made.outcome) {
            (Some(slot), Ok(value)) => {
                debug!(instance = %Printable(made.id.as_str()), "endpoint made");
                let instance = Arc::clone(&slot.instance);
                let load = self.selector.new_load(&instance);
                let made = CachedEndpoint::new(instance, Arc::new(value), load);
                slot.stage = Stage::Made(Arc::new(made));
                slot.error = None;
            }
            (Some(slot), Err(error)) => {
                let delay = slot.backoff.next_delay();
                slot.failures = slot.failures.saturating_add(1);
                instrument::endpoint_failure(slot.instance.service());
                if slot.failures == 1 {
                    warn!(instance = %Printable(made.id.as_str()), error = %error.report(), "could not make endpoint, retrying");
                } else {
                    debug!(instance = %Printable(made.id.as_str()), attempt = slot.failures, ?delay, error = %error.report(), "could not make endpoint again");
                }
                slot.error = Some(error);
                let until = later(Instant::now(), delay);
                slot.stage = Stage::Waiting { until };
                self.queue.insert((until, made.ticket, made.id));
            }
            // It was never in the set: no drain.
            (None, Ok(late)) => self.close(Arc::new(late)),
            (None, Err(_)) => {}
        }
    }

    fn publish(&mut self) {
        let (mut endpoints, mut missing) = (Vec::with_capacity(self.slots.len()), Vec::new());
        for slot in self.slots.values() {
            if let Stage::Made(endpoint) = &slot.stage {
                endpoints.push(Arc::clone(endpoint));
            } else {
                missing.push(MissingEndpoint {
                    instance: Arc::clone(&slot.instance),
                    failures: slot.failures,
                    error: slot.error.clone(),
                });
            }
        }
        self.selector
            .replace(endpoints.iter().map(|endpoint| Listed {
                instance: Arc::clone(endpoint.instance()),
                load: endpoint.load.clone(),
                usable: endpoint.instance().is_ready(),
            }));
        let set = EndpointSet::new(endpoints, missing, self.selector.choose())
            .with_draining(self.draining.len())
            .with_invalidated(self.invalidated)
            .with_resolved(self.resolved);
        self.sets.store(Arc::new(set));
        self.told.send_replace(());
    }

    // ---- closing

    fn drain(&mut self, value: Arc<T>) {
        if self.close.is_some() {
            let close_at = later(Instant::now(), self.settings.drain);
            self.draining.push_back((close_at, value));
        }
    }

    fn close(&mut self, value: Arc<T>) {
        let Some(close) = &self.close else {
            return;
        };
        let (close, limit) = (Arc::clone(close), self.settings.close_within);
        self.closing.spawn(async move {
            if timeout(limit, async move { close(value).await })
                .await
                .is_err()
            {
                warn!(?limit, "gave up closing an endpoint: it took too long");
            }
        });
    }

    // ---- time

    fn wake_at(&self) -> Option<Instant> {
        let make_at = self
            .queue
            .first()
            .filter(|_| self.has_room())
            .map(|(at, ..)| *at);
        let close_at = self.draining.front().map(|(at, _)| *at);
        [make_at, close_at, self.invalid_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        let due = self.draining.partition_point(|(at, _)| *at <= now);
        if due > 0 {
            for (_, value) in self.draining.drain(..due).collect::<Vec<_>>() {
                self.close(value);
            }
            self.publish();
        }
        if self.invalid_at.is_some_and(|at| at <= now) {
            warn!("source has failed for too long, giving up its set");
            self.invalid_at = None;
            self.invalidated = true;
            self.apply(unlisted(&self.subscription));
            self.publish();
        }
    }

    // ---- the end

    async fn end(mut self) {
        self.apply(unlisted(&self.subscription));
        while let Some(made) = self.making.join_next().await {
            if let Ok(Made {
                outcome: Ok(late), ..
            }) = made
            {
                self.close(Arc::new(late));
            }
        }
        for (_, value) in std::mem::take(&mut self.draining) {
            self.close(value);
        }
        while let Some(closed) = self.closing.join_next().await {
            report_close(&closed);
        }
        debug!("endpoint cache ended");
    }
}

/// The set without instances.
fn unlisted(subscription: &Subscription) -> Snapshot {
    let state = subscription.state();
    state.snapshot().clone().with_instances(Vec::new())
}

fn report_close(closed: &Result<(), JoinError>) {
    if closed.is_err() {
        warn!("closing an endpoint panicked");
    }
}
