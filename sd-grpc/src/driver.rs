//! The one task that owns a channel's set, connections and timers, and publishes the ready set.
//!
//! It is driven by the subscription, by its connections and by time, never by calls: an idle channel follows its service. It
//! never waits for one of its tasks, so a stuck connection delays nothing else.
//!
//! An endpoint is a [`Member`]. It is connected when it appears. When its last connection breaks, it is connected again: at
//! once if that connection was good, otherwise after a growing delay. At most `connect_parallelism` connections
//! are being opened at a time; the others queue, and retries take at most half of the places. A member that moves keeps its
//! old connections until the first new one.

mod connecting;

use std::sync::Arc;

use sd_core::balance::Policy;
use sd_core::{Instance, Printable, State, Subscription};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::{ChannelConfig, KeepAlive};
use crate::connect_line::ConnectLine;
use crate::connection::Leave;
use crate::event::{EVENTS, Event};
use crate::instrument::DriverMetrics;
use crate::member::{Link, Member};
use crate::members::Members;
use crate::ready_set::{Condition, ReadySet};
use crate::resolution::Resolution;
use crate::shared::Published;
use crate::subchannel::{EndpointState, Subchannel};
use crate::target::Target;
use crate::timers::Timers;
use crate::transport::Transport;

/// The driver's state.
pub(crate) struct Driver {
    subscription: Subscription,
    config: Arc<ChannelConfig>,
    transport: Arc<Transport>,
    published: Arc<Published>,
    metrics: DriverMetrics,
    events: mpsc::Receiver<Event>,
    /// For the tasks of connections.
    telling: mpsc::Sender<Event>,
    stop: CancellationToken,

    resolution: Resolution,
    members: Members,
    /// Something changed since the last publishing.
    dirty: bool,

    connections: JoinSet<()>,
    /// It was told that there may be no more of them.
    told_of_bound: bool,
    line: ConnectLine,
    timers: Timers<Timer>,
    keep_alive: Option<KeepAlive>,
}

/// What happens later.
enum Timer {
    Connect(Arc<Subchannel>),
    /// Ends the ejection that was to last until then.
    Readmit(Arc<Subchannel>, Instant),
    MayGrow(Arc<Subchannel>),
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) subscription: Subscription,
    pub(crate) config: Arc<ChannelConfig>,
    pub(crate) transport: Arc<Transport>,
    pub(crate) published: Arc<Published>,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) telling: mpsc::Sender<Event>,
    pub(crate) stop: CancellationToken,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            metrics: DriverMetrics::new(parts.subscription.service()),
            resolution: Resolution::new(&parts.subscription, parts.config.selection.clone()),
            members: Members::new(parts.policy, parts.config.selection.zone.clone()),
            subscription: parts.subscription,
            keep_alive: parts.config.keep_alive,
            line: ConnectLine::new(parts.config.connect_parallelism),
            config: parts.config,
            transport: parts.transport,
            published: parts.published,
            events: parts.events,
            telling: parts.telling,
            stop: parts.stop,
            dirty: true,
            connections: JoinSet::new(),
            told_of_bound: false,
            timers: Timers::default(),
        }
    }

    /// Runs until the channel is closed or its last handle dropped, and all connections have ended.
    pub(crate) async fn run(mut self) {
        let mut following = true;
        let first = self.subscription.state_and_mark_seen();
        self.apply(&first);
        loop {
            if self.dirty {
                self.readmit_surplus();
                self.dirty = false;
                self.publish(self.resolution.condition(&self.members));
                self.resolution.drop_outdated();
            }
            let timer = self.timers.next();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                state = self.subscription.changed(), if following => match state {
                    Ok(state) => self.apply(&state),
                    Err(error) => {
                        following = false;
                        self.resolution.end(&error);
                        self.dirty = true;
                    }
                },
                Some(event) = self.events.recv() => self.take_all(event),
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => self.on_timer(),
                Some(_) = self.connections.join_next() => {}
            }
        }
        self.close().await;
    }

    /// Gives every connection the drain time, then ends what is left.
    async fn close(mut self) {
        for member in self.members.remove_all() {
            self.dismiss(member);
        }
        self.timers.clear();
        self.line.clear();
        loop {
            let reason = "the channel was closed".into();
            self.publish(Condition::Closed { reason });
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => match event {
                    // Opened while we closed.
                    Event::Connected { connection, .. } => connection.leave(Leave::Unwanted),
                    Event::Ended { subchannel, connection } => self.ended(&subchannel, &connection),
                    Event::Failed { .. } | Event::Leaving { .. } | Event::Roomier | Event::Idle { .. } | Event::TurnsAway { .. } | Event::Grow { .. } => {}
                },
                ended = self.connections.join_next() => {
                    if ended.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes what is there before anything is published.
    fn take_all(&mut self, first: Event) {
        self.take(first);
        for _ in 0..EVENTS {
            match self.events.try_recv() {
                Ok(event) => self.take(event),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Connected {
                subchannel,
                extra,
                connection,
            } => self.connected(&subchannel, extra, connection),
            Event::Failed {
                subchannel,
                extra,
                error,
            } => self.failed(&subchannel, extra, &error),
            Event::Leaving {
                subchannel,
                reason,
                answered,
                lived,
            } => {
                let was_good = answered || self.was_good(&reason, lived);
                self.left(&subchannel, &reason, was_good, lived);
            }
            Event::Ended {
                subchannel,
                connection,
            } => self.ended(&subchannel, &connection),
            // Publishing has every call that waits look again.
            Event::Roomier => self.dirty = true,
            Event::Idle {
                subchannel,
                connection,
            } => {
                let connections = subchannel.connections();
                if connections.iter().filter(|other| other.is_open()).count() > 1 {
                    connection.leave(Leave::Idle);
                }
            }
            Event::TurnsAway { target } => {
                self.eject(&target);
                target.ejection_decided();
            }
            Event::Grow { subchannel } => self.grow(&subchannel),
        }
    }

    // --- The set -------------------------------------------------------------------------------------------------------

    fn apply(&mut self, state: &State) {
        self.dirty = true;
        let delta = self.resolution.update(state);
        if delta.is_empty() {
            return;
        }
        info!(
            service = %Printable(self.subscription.service().as_str()),
            added = delta.added.len(),
            removed = delta.removed.len(),
            readdressed = delta.readdressed.len(),
            retuned = delta.retuned.len(),
            "service changed"
        );
        let mut moved = delta.readdressed;
        for change in delta.retuned {
            if self.is_renamed(&change.to) {
                moved.push(change);
            } else {
                self.retune(change.to);
            }
        }
        let mut fresh = Vec::new();
        for change in moved {
            let link = self.new_link(&change.to);
            fresh.push(Arc::clone(&link.subchannel));
            self.readdress(change.to, link);
        }
        for member in self.members.remove(&delta.removed) {
            self.dismiss(member);
        }
        let mut added = Vec::with_capacity(delta.added.len());
        for instance in delta.added {
            let link = self.new_link(&instance);
            fresh.push(Arc::clone(&link.subchannel));
            let member = Member::new(instance, link);
            member.link.subchannel.stand(member.state, None);
            added.push(member);
        }
        self.members.insert(added);
        self.line.extend(fresh);
        self.open_queued();
    }

    /// Weight, readiness or anything else but the address changed: the connections stay.
    fn retune(&mut self, to: Arc<Instance>) {
        let id = to.id().clone();
        if let Some(member) = self.members.get_mut(&id) {
            member.instance = to;
            self.members.refresh(&id, None);
        }
    }

    /// Whether calls to it are to carry another authority than now.
    fn is_renamed(&self, instance: &Instance) -> bool {
        if !self.transport.names_instances() {
            return false;
        }
        self.members.get(instance.id()).is_some_and(|member| {
            let target = member.link.subchannel.target();
            target.authority() != self.transport.origin(instance).1
        })
    }

    /// The address or the authority changed: the old place serves until the new one is connected.
    fn readdress(&mut self, to: Arc<Instance>, link: Link) {
        let id = to.id().clone();
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.instance = to;
        let old = std::mem::replace(&mut member.link, link);
        // Of two moves in a row, the place that serves is kept.
        let done = if old.open > 0 {
            member.previous.replace(Box::new(old)).map(|older| *older)
        } else {
            Some(old)
        };
        if let Some(done) = done {
            self.retire(done);
        }
        self.members.refresh(&id, None);
    }

    fn new_link(&self, instance: &Arc<Instance>) -> Link {
        let load = self.members.selector().new_load(instance);
        let origin = self.transport.origin(instance);
        Link::new(Target::new(instance, origin, load), &self.config)
    }

    fn dismiss(&mut self, member: Member) {
        self.retire(member.link);
        if let Some(previous) = member.previous {
            self.retire(*previous);
        }
    }

    /// Lets a place go: nothing new, and what is in flight may end.
    fn retire(&mut self, link: Link) {
        if let Some(opening) = link.opening {
            opening.abort();
            self.line.over();
        }
        let connections = link.subchannel.connections();
        for connection in connections.iter() {
            connection.leave(Leave::Unwanted);
        }
        if !connections.is_empty() {
            self.members.leave(Arc::clone(&link.subchannel));
        }
    }

    fn publish(&mut self, condition: Condition) {
        let choice = self.members.choose();
        self.metrics.endpoints(self.members.counts());
        self.published.publish(ReadySet {
            members: self.members.shown(),
            leaving: self.members.leaving(),
            choice,
            ready: self.members.count(EndpointState::Ready),
            wanted: self.members.len() - self.members.count(EndpointState::NotReady),
            condition,
        });
    }
}
