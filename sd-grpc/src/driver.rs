//! The one task that owns a channel's set, connections and timers, and publishes the ready set.
//!
//! It is driven by the subscription, by its connections and by time, never by calls: an idle channel follows its service. It
//! never waits for one of its tasks, so a stuck connection delays nothing else.
//!
//! An endpoint is a [`Member`]. It is connected when it appears. When its last connection breaks, it is connected again: at
//! once if that connection was good, otherwise after a growing delay. At most `connect_parallelism` connections
//! are being opened at a time; the others queue, and retries take at most half of the places. A member that moves keeps its
//! old connections until the first new one.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use sd_core::balance::{Policy, Selector};
use sd_core::{Delta, Error, Instance, InstanceId, Printable, Snapshot, State, Subscription};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::{ChannelConfig, KeepAlive};
use crate::connect_line::ConnectLine;
use crate::connection::{Connection, Leave};
use crate::connection_task::{self, Job};
use crate::descriptors::{self, Purpose};
use crate::ejection::Ejection;
use crate::event::{EVENTS, Event};
use crate::instrument::DriverMetrics;
use crate::member::{Link, Member};
use crate::ready_set::{Condition, ReadySet};
use crate::shared::Published;
use crate::subchannel::{EndpointState, StateCounts, Subchannel};
use crate::target::Target;
use crate::timers::Timers;
use crate::transport::Transport;

/// A connection that lived shorter is not replaced before this, whatever it was good for.
const RECONNECT_FLOOR: Duration = Duration::from_millis(2);

/// So many members are put in or taken out one by one; more of them in one pass over all.
const FEW: usize = 64;

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

    /// The part of the service that is to be connected.
    snapshot: Snapshot,
    /// How many instances the whole service has.
    registered: usize,
    resolved: bool,
    /// Why the set is unknown.
    unresolved_because: Option<Arc<str>>,
    /// Why the set will not change any more.
    unfollowed_because: Option<Arc<str>>,
    /// Sorted by id, as the snapshot.
    members: Vec<Member>,
    /// How many of them are in which state.
    counts: StateCounts,
    /// The newest reason why one of them could not be connected.
    failure: Option<Arc<str>>,
    /// The members as calls see them; rebuilt when one comes, goes or moves.
    shown: Arc<[Arc<Subchannel>]>,
    /// The members as the policy sees them.
    selector: Selector,
    /// Removed endpoints with connections.
    leaving: Vec<Arc<Subchannel>>,
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
        let state = parts.subscription.state();
        Self {
            selector: Selector::new(parts.policy, parts.config.selection.zone.clone()),
            metrics: DriverMetrics::new(parts.subscription.service()),
            snapshot: Snapshot::unread(
                parts.subscription.service().clone(),
                state.snapshot().as_of(),
            ),
            subscription: parts.subscription,
            keep_alive: parts.config.keep_alive,
            line: ConnectLine::new(parts.config.connect_parallelism),
            config: parts.config,
            transport: parts.transport,
            published: parts.published,
            events: parts.events,
            telling: parts.telling,
            stop: parts.stop,
            registered: 0,
            resolved: false,
            unresolved_because: None,
            unfollowed_because: None,
            members: Vec::new(),
            counts: StateCounts::default(),
            failure: None,
            shown: Arc::default(),
            leaving: Vec::new(),
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
                self.publish(self.condition());
            }
            let timer = self.timers.next();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                state = self.subscription.changed(), if following => match state {
                    Ok(state) => self.apply(&state),
                    Err(error) => {
                        following = false;
                        self.unfollowed(&error);
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
        for member in std::mem::take(&mut self.members) {
            self.dismiss(member);
        }
        self.relist();
        self.reshow();
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

    /// The registry was closed, or what follows the service has failed for good. What is known stays.
    fn unfollowed(&mut self, error: &Error) {
        let why = format!("the service is no longer followed: {}", error.report());
        self.unfollowed_because = Some(why.into());
        self.dirty = true;
    }

    // --- The set -------------------------------------------------------------------------------------------------------

    fn apply(&mut self, state: &State) {
        if !state.is_known() {
            let error = state.status().error();
            self.unresolved_because = error.map(|error| error.report().to_string().into());
            self.dirty = true;
            return;
        }
        let new = self.config.selection.to_connect(state.snapshot());
        let delta = Delta::between(&self.snapshot, &new);
        let first = !std::mem::replace(&mut self.resolved, true);
        // How many there are is part of the reason if none can be used.
        self.dirty |= self.registered != state.snapshot().len();
        self.registered = state.snapshot().len();
        self.snapshot = new;
        if delta.is_empty() && !first {
            return;
        }
        info!(
            service = %Printable(self.snapshot.service().as_str()),
            added = delta.added.len(),
            removed = delta.removed.len(),
            readdressed = delta.readdressed.len(),
            retuned = delta.retuned.len(),
            "service changed"
        );
        self.dirty = true;
        let mut moved = delta.readdressed;
        for change in delta.retuned {
            if self.is_renamed(&change.to) {
                moved.push(change);
            } else {
                self.retune(change.to);
            }
        }
        if delta.added.is_empty() && delta.removed.is_empty() && moved.is_empty() {
            return;
        }
        let mut fresh = Vec::new();
        for change in moved {
            let link = self.new_link(&change.to);
            fresh.push(Arc::clone(&link.subchannel));
            self.readdress(change.to, link);
        }
        self.remove(&delta.removed);
        let mut added = Vec::with_capacity(delta.added.len());
        for instance in delta.added {
            let link = self.new_link(&instance);
            fresh.push(Arc::clone(&link.subchannel));
            let member = Member::new(instance, link);
            member.link.subchannel.stand(member.state, None);
            self.counts.moved(None, Some(member.state));
            added.push(member);
        }
        self.insert(added);
        self.reshow();
        self.line.extend(fresh);
        self.open_queued();
    }

    /// Takes members out; `gone` is sorted.
    fn remove(&mut self, gone: &[Arc<Instance>]) {
        if gone.len() <= FEW {
            for instance in gone {
                if let Some(position) = self.position(instance.id()) {
                    let member = self.members.remove(position);
                    self.selector.remove(position);
                    self.dismiss(member);
                }
            }
            return;
        }
        let mut gone = gone.iter().peekable();
        for member in std::mem::take(&mut self.members) {
            let is_gone = gone.next_if(|instance| instance.id() == member.instance.id());
            if is_gone.is_some() {
                self.dismiss(member);
            } else {
                self.members.push(member);
            }
        }
        self.relist();
    }

    /// Puts members in; `new` is sorted.
    fn insert(&mut self, new: Vec<Member>) {
        if new.len() > FEW {
            self.members.extend(new);
            self.members
                .sort_by(|a, b| a.instance.id().cmp(b.instance.id()));
            self.relist();
            return;
        }
        for member in new {
            let id = member.instance.id();
            let place = self
                .members
                .partition_point(|other| other.instance.id() < id);
            self.selector.insert(place, member.listed());
            self.members.insert(place, member);
        }
    }

    /// Weight, readiness or anything else but the address changed: the connections stay.
    fn retune(&mut self, to: Arc<Instance>) {
        let Some(position) = self.position(to.id()) else {
            return;
        };
        if let Some(member) = self.members.get_mut(position) {
            member.instance = to;
        }
        self.refresh(position, None);
    }

    /// Whether calls to it are to carry another authority than now.
    fn is_renamed(&self, instance: &Instance) -> bool {
        if !self.transport.names_instances() {
            return false;
        }
        let member = self.position(instance.id());
        let member = member.and_then(|position| self.members.get(position));
        member.is_some_and(|member| {
            let target = member.link.subchannel.target();
            target.authority() != self.transport.origin(instance).1
        })
    }

    /// The address or the authority changed: the old place serves until the new one is connected.
    fn readdress(&mut self, to: Arc<Instance>, link: Link) {
        let Some(position) = self.position(to.id()) else {
            return;
        };
        let Some(member) = self.members.get_mut(position) else {
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
        self.refresh(position, None);
    }

    fn position(&self, id: &InstanceId) -> Option<usize> {
        self.members
            .binary_search_by(|member| member.instance.id().cmp(id))
            .ok()
    }

    /// The link that is or was the place of a member.
    fn link(&mut self, subchannel: &Arc<Subchannel>) -> Option<&mut Link> {
        let position = self.position(subchannel.target().id())?;
        let Member { link, previous, .. } = self.members.get_mut(position)?;
        [Some(link), previous.as_deref_mut()]
            .into_iter()
            .flatten()
            .find(|link| Arc::ptr_eq(&link.subchannel, subchannel))
    }

    fn new_link(&self, instance: &Arc<Instance>) -> Link {
        let load = self.selector.new_load(instance);
        let origin = self.transport.origin(instance);
        Link::new(Target::new(instance, origin, load), &self.config)
    }

    fn dismiss(&mut self, member: Member) {
        self.counts.moved(Some(member.state), None);
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
            link.subchannel.stand(EndpointState::Draining, None);
            self.counts.moved(None, Some(EndpointState::Draining));
            self.leaving.push(Arc::clone(&link.subchannel));
        }
    }

    // --- Connections ---------------------------------------------------------------------------------------------------

    fn open_queued(&mut self) {
        while let Some(subchannel) = self.line.next() {
            self.open(&subchannel, false);
        }
    }

    fn open(&mut self, subchannel: &Arc<Subchannel>, extra: bool) {
        let Some(position) = self.position(subchannel.target().id()) else {
            return;
        };
        let Some(member) = self.members.get(position) else {
            return;
        };
        let link = &member.link;
        if !Arc::ptr_eq(&link.subchannel, subchannel)
            || link.opening.is_some()
            || (link.open > 0 && !extra)
        {
            return;
        }
        let purpose = match member.previous {
            Some(_) => Purpose::Moved,
            None if extra => Purpose::Extra,
            None => Purpose::First,
        };
        if let Some(why) = self.beyond_share(purpose) {
            self.not_opened(subchannel, &why);
            return;
        }
        let Some(member) = self.members.get_mut(position) else {
            return;
        };
        let job = Job {
            subchannel: Arc::clone(subchannel),
            instance: Arc::clone(&member.instance),
            transport: Arc::clone(&self.transport),
            config: Arc::clone(&self.config),
            keep_alive: self.keep_alive,
            extra,
            events: self.telling.clone(),
        };
        member.link.opening = Some(self.connections.spawn(connection_task::run(job)));
        self.line.begun();
    }

    /// Why no connection may be opened for this, if that is so.
    fn beyond_share(&mut self, purpose: Purpose) -> Option<String> {
        let share = self.config.descriptor_share?;
        let (most, limit) = descriptors::share_of(share)?;
        let open = self.connections.len();
        // Those that come and go near the bound must not fill the log.
        self.told_of_bound &= 2 * open >= most;
        if open < purpose.bound(most) {
            return None;
        }
        let why = format!(
            "the channel has {open} connections, and descriptor_share ({share}) allows {most} of the process's {limit} descriptors"
        );
        if !std::mem::replace(&mut self.told_of_bound, true) {
            let service = Printable(self.snapshot.service().as_str());
            warn!(%service, "endpoints wait for connections: {why}");
        }
        Some(why)
    }

    /// An attempt to open a connection is over. Gives the link if it is still wanted.
    fn opened(&mut self, subchannel: &Arc<Subchannel>) -> Option<&mut Link> {
        let was_opening = self.link(subchannel)?.opening.take().is_some();
        if !was_opening {
            return None;
        }
        self.line.over();
        self.open_queued();
        self.link(subchannel)
    }

    fn connected(&mut self, subchannel: &Arc<Subchannel>, extra: bool, new: Arc<Connection>) {
        self.metrics.connected();
        debug!(endpoint = %Printable(&subchannel.target().label()), extra, "connected");
        let Some(link) = self.opened(subchannel) else {
            new.leave(Leave::Unwanted);
            return;
        };
        link.open += 1;
        subchannel.add(new);
        subchannel.may_grow();
        let Some(position) = self.position(subchannel.target().id()) else {
            return;
        };
        let previous = self
            .members
            .get_mut(position)
            .filter(|member| Arc::ptr_eq(&member.link.subchannel, subchannel))
            .and_then(|member| member.previous.take());
        self.refresh(position, None);
        if let Some(previous) = previous {
            self.retire(*previous);
            self.reshow();
        }
    }

    fn failed(&mut self, subchannel: &Arc<Subchannel>, extra: bool, error: &str) {
        self.metrics.connect_failed();
        // Part of it may be text from the other side.
        let error = Printable(error);
        let endpoint = subchannel.target().label();
        debug!(endpoint = %Printable(&endpoint), extra, %error, "could not connect");
        if self.opened(subchannel).is_some() {
            self.not_opened(subchannel, &error);
        }
    }

    /// A connection that is wanted was not opened: it is tried again later.
    fn not_opened(&mut self, subchannel: &Arc<Subchannel>, why: &dyn Display) {
        let Some(link) = self.link(subchannel) else {
            return;
        };
        let delay = link.backoff.next_delay();
        if link.open > 0 {
            self.timers
                .later(delay, Timer::MayGrow(Arc::clone(subchannel)));
            return;
        }
        self.timers
            .later(delay, Timer::Connect(Arc::clone(subchannel)));
        if let Some(position) = self.position(subchannel.target().id()) {
            let endpoint = subchannel.target().label();
            let failure = format!("{}: {why}", Printable(&endpoint));
            self.refresh(position, Some(failure.into()));
        }
    }

    /// Whether a connection that answered no call is to be replaced at once.
    fn was_good(&self, reason: &Leave, lived: Duration) -> bool {
        // A server may limit the age of connections, also of those that nothing uses.
        let polite = matches!(reason, Leave::GoAway(go_away) if go_away.is_polite());
        lived >= self.config.good_after || (polite && lived >= self.config.reconnect_first)
    }

    fn left(
        &mut self,
        subchannel: &Arc<Subchannel>,
        reason: &Leave,
        was_good: bool,
        lived: Duration,
    ) {
        let endpoint = subchannel.target().label();
        if let Leave::GoAway(go_away) = reason
            && go_away.too_many_pings()
            && let Some(keep_alive) = &mut self.keep_alive
        {
            // gRPC A8. Only new connections can have another interval.
            keep_alive.interval = keep_alive.interval.saturating_mul(2);
            let interval = keep_alive.interval;
            info!(endpoint = %Printable(&endpoint), ?interval, "server wants fewer keep-alive pings");
        }
        let Some(link) = self.link(subchannel) else {
            return;
        };
        link.open = link.open.saturating_sub(1);
        if link.open > 0 {
            if *reason == Leave::Idle || was_good {
                link.growth.reset();
                subchannel.may_grow();
            } else {
                let delay = link.growth.next_delay();
                subchannel.may_not_grow();
                self.timers
                    .later(delay, Timer::MayGrow(Arc::clone(subchannel)));
            }
            return;
        }
        subchannel.may_grow();
        let failure = if was_good {
            link.backoff.reset();
            if let Some(rest) = RECONNECT_FLOOR.checked_sub(lived) {
                let connect = Timer::Connect(Arc::clone(subchannel));
                self.timers.later(rest, connect);
            } else {
                self.line.extend([Arc::clone(subchannel)]);
                self.open_queued();
            }
            None
        } else {
            let delay = link.backoff.next_delay();
            // A connection that breaks soon may be bad luck; the next one decides.
            // Of a silent server, only a new connection shows whether it is dead or slow.
            let again = link.backoff.attempts() > 1 && *reason != Leave::Silent;
            self.timers
                .later(delay, Timer::Connect(Arc::clone(subchannel)));
            again.then(|| format!("{endpoint}: {reason}").into())
        };
        if let Some(position) = self.position(subchannel.target().id()) {
            self.refresh(position, failure);
        }
    }

    /// Keeps calls from an endpoint that turns them away, unless half of the connected ones are ejected already.
    fn eject(&mut self, target: &Arc<Target>) {
        let ejected = self.counts.of(EndpointState::Ejected);
        let connected = ejected + self.counts.of(EndpointState::Ready);
        if 2 * (ejected + 1) > connected {
            return;
        }
        let Some(position) = self.position(target.id()) else {
            return;
        };
        let Some(member) = self.members.get_mut(position) else {
            return;
        };
        let link = &mut member.link;
        if member.state != EndpointState::Ready || !Arc::ptr_eq(link.subchannel.target(), target) {
            return;
        }
        let now = Instant::now();
        let time = link.ejection.begin(now);
        info!(endpoint = %Printable(&target.label()), ?time, "endpoint turns calls away and gets none");
        let subchannel = Arc::clone(&link.subchannel);
        self.timers
            .later(time, Timer::Readmit(subchannel, now + time));
        self.refresh(position, None);
    }

    /// Readmits ejected endpoints, the one whose time is over first before the others, while more than half of the connected
    /// ones are ejected: some broke or were removed since.
    fn readmit_surplus(&mut self) {
        while self.counts.of(EndpointState::Ejected) > self.counts.of(EndpointState::Ready) {
            let ejected = self
                .members
                .iter()
                .filter(|member| member.state == EndpointState::Ejected);
            let until = |member: &&Member| member.link.ejection.until();
            let Some(first) = ejected.min_by_key(until) else {
                return;
            };
            let subchannel = Arc::clone(&first.link.subchannel);
            let endpoint = subchannel.target().label();
            info!(endpoint = %Printable(&endpoint), "endpoint gets calls again: too few others are connected");
            self.readmit(&subchannel);
        }
    }

    fn readmit(&mut self, subchannel: &Arc<Subchannel>) {
        let almost = self.config.eject_after.saturating_sub(1);
        let Some(link) = self.link(subchannel) else {
            return;
        };
        link.ejection.end(Instant::now());
        // One more call that is turned away ejects it again.
        subchannel.target().set_turned_away(almost);
        if let Some(position) = self.position(subchannel.target().id()) {
            self.refresh(position, None);
        }
    }

    fn ended(&mut self, subchannel: &Arc<Subchannel>, connection: &Arc<Connection>) {
        subchannel.remove(connection);
        if subchannel.connections().is_empty() {
            let before = self.leaving.len();
            self.leaving.retain(|other| !Arc::ptr_eq(other, subchannel));
            if self.leaving.len() < before {
                self.counts.moved(Some(EndpointState::Draining), None);
                self.dirty = true;
            }
        }
    }

    fn grow(&mut self, subchannel: &Arc<Subchannel>) {
        let max = self.config.max_connections;
        let all_busy = self.line.is_busy();
        match self.link(subchannel) {
            // At the limit the mark stays until a connection goes: calls need not ask.
            Some(link) if link.open >= max => {}
            Some(link) if link.open > 0 && !all_busy => self.open(subchannel, true),
            _ => subchannel.may_grow(),
        }
    }

    // --- Time ----------------------------------------------------------------------------------------------------------

    fn on_timer(&mut self) {
        let now = Instant::now();
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Connect(subchannel) => self.line.retry(subchannel),
                Timer::Readmit(subchannel, end) => {
                    let ejection = self.link(&subchannel).map(|link| &link.ejection);
                    // It may have ended early, and another one may have begun.
                    if ejection.and_then(Ejection::until) == Some(end) {
                        self.readmit(&subchannel);
                    }
                }
                Timer::MayGrow(subchannel) => subchannel.may_grow(),
            }
        }
        self.open_queued();
    }

    // --- Publishing ----------------------------------------------------------------------------------------------------

    /// Rebuilds what the policy sees of the members.
    fn relist(&mut self) {
        self.selector
            .replace(self.members.iter().map(Member::listed));
    }

    /// Rebuilds what calls see of the members.
    fn reshow(&mut self) {
        let shown = self.members.iter().map(|member| &member.shown().subchannel);
        self.shown = shown.cloned().collect();
        self.dirty = true;
    }

    /// Brings up to date what is known about one member, after its connections or its readiness changed.
    fn refresh(&mut self, position: usize, failure: Option<Arc<str>>) {
        self.dirty = true;
        let Some(member) = self.members.get_mut(position) else {
            return;
        };
        let connected = member.shown().open > 0;
        // A failure stays until a connection.
        let failing = failure.is_some() || member.state == EndpointState::Failing;
        let ejected = member.link.ejection.is_on();
        let state = EndpointState::of(&member.instance, connected, failing, ejected);
        self.counts.moved(Some(member.state), Some(state));
        member.state = state;
        member.link.subchannel.stand(state, failure.clone());
        self.selector.update(position, member.listed());
        self.failure = failure.or(self.failure.take());
    }

    fn publish(&mut self, condition: Condition) {
        let choice = self.selector.choose();
        self.metrics.endpoints(&self.counts);
        self.published.publish(ReadySet {
            members: Arc::clone(&self.shown),
            leaving: self.leaving.as_slice().into(),
            choice,
            ready: self.counts.of(EndpointState::Ready),
            wanted: self.members.len() - self.counts.of(EndpointState::NotReady),
            condition,
        });
    }

    fn condition(&self) -> Condition {
        if !self.resolved {
            return match &self.unfollowed_because {
                Some(reason) => Condition::Closed {
                    reason: Arc::clone(reason),
                },
                None => Condition::Unresolved {
                    reason: self.unresolved_because.clone(),
                },
            };
        }
        let all = self.members.len();
        let failing = self.counts.of(EndpointState::Failing);
        if failing + self.counts.of(EndpointState::NotReady) < all {
            let failure = self.failure.clone().filter(|_| failing > 0);
            let reason = failure.or_else(|| self.unfollowed_because.clone());
            return Condition::Usable { reason };
        }
        let reason = match &self.failure {
            Some(why) if failing > 0 => {
                format!("{failing} of {all} endpoints could not be connected, most recently {why}")
            }
            _ if all == 0 && self.registered > 0 => format!(
                "none of the {} registered instances has the labels {}",
                self.registered,
                self.config.selection.show_labels()
            ),
            _ if all == 0 => "no instance is registered".to_owned(),
            _ => format!("no instance is ready ({all} registered)"),
        };
        Condition::Unusable {
            reason: reason.into(),
        }
    }
}
