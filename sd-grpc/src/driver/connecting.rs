//! What happens to the connections of endpoints: they are opened, end, break, turn calls away, and are opened again.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use sd_core::Printable;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Driver, Timer};
use crate::connection::{Connection, Leave};
use crate::connection_task::{self, Job};
use crate::descriptors::{self, Purpose};
use crate::ejection::Ejection;
use crate::member::{Link, Member};
use crate::subchannel::{EndpointState, Subchannel};
use crate::target::Target;

/// A connection that lived shorter is not replaced before this, whatever it was good for.
const RECONNECT_FLOOR: Duration = Duration::from_millis(2);

impl Driver {
    pub(super) fn open_queued(&mut self) {
        while let Some(subchannel) = self.line.next() {
            self.open(&subchannel, false);
        }
    }

    fn open(&mut self, subchannel: &Arc<Subchannel>, extra: bool) {
        let id = subchannel.target().id();
        let Some(member) = self.members.get(id) else {
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
        let Some(member) = self.members.get_mut(id) else {
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
            let service = Printable(self.subscription.service().as_str());
            warn!(%service, "endpoints wait for connections: {why}");
        }
        Some(why)
    }

    /// An attempt to open a connection is over. Gives the link if it is still wanted.
    fn opened(&mut self, subchannel: &Arc<Subchannel>) -> Option<&mut Link> {
        let was_opening = self.members.link(subchannel)?.opening.take().is_some();
        if !was_opening {
            return None;
        }
        self.line.over();
        self.open_queued();
        self.members.link(subchannel)
    }

    pub(super) fn connected(
        &mut self,
        subchannel: &Arc<Subchannel>,
        extra: bool,
        new: Arc<Connection>,
    ) {
        self.metrics.connected();
        debug!(endpoint = %Printable(&subchannel.target().label()), extra, "connected");
        let Some(link) = self.opened(subchannel) else {
            new.leave(Leave::Unwanted);
            return;
        };
        link.open += 1;
        subchannel.add(new);
        subchannel.may_grow();
        let id = subchannel.target().id();
        let previous = self
            .members
            .get_mut(id)
            .filter(|member| Arc::ptr_eq(&member.link.subchannel, subchannel))
            .and_then(|member| member.previous.take());
        self.refresh(subchannel, None);
        if let Some(previous) = previous {
            self.retire(*previous);
        }
    }

    pub(super) fn failed(&mut self, subchannel: &Arc<Subchannel>, extra: bool, error: &str) {
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
        let Some(link) = self.members.link(subchannel) else {
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
        let endpoint = subchannel.target().label();
        let failure = format!("{}: {why}", Printable(&endpoint));
        self.refresh(subchannel, Some(failure.into()));
    }

    /// Whether a connection that answered no call is to be replaced at once.
    pub(super) fn was_good(&self, reason: &Leave, lived: Duration) -> bool {
        // A server may limit the age of connections, also of those that nothing uses.
        let polite = matches!(reason, Leave::GoAway(go_away) if go_away.is_polite());
        lived >= self.config.good_after || (polite && lived >= self.config.reconnect_first)
    }

    pub(super) fn left(
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
        let Some(link) = self.members.link(subchannel) else {
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
        self.refresh(subchannel, failure);
    }

    /// Keeps calls from an endpoint that turns them away, unless half of the connected ones are ejected already.
    pub(super) fn eject(&mut self, target: &Arc<Target>) {
        let ejected = self.members.count(EndpointState::Ejected);
        let connected = ejected + self.members.count(EndpointState::Ready);
        if 2 * (ejected + 1) > connected {
            return;
        }
        let Some(member) = self.members.get_mut(target.id()) else {
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
            .later(time, Timer::Readmit(Arc::clone(&subchannel), now + time));
        self.refresh(&subchannel, None);
    }

    /// Readmits ejected endpoints, the one whose time is over first before the others, while more than half of the connected
    /// ones are ejected: some broke or were removed since.
    pub(super) fn readmit_surplus(&mut self) {
        while self.members.count(EndpointState::Ejected) > self.members.count(EndpointState::Ready)
        {
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
        let Some(link) = self.members.link(subchannel) else {
            return;
        };
        link.ejection.end(Instant::now());
        // One more call that is turned away ejects it again.
        subchannel.target().set_turned_away(almost);
        self.refresh(subchannel, None);
    }

    pub(super) fn ended(&mut self, subchannel: &Arc<Subchannel>, connection: &Arc<Connection>) {
        subchannel.remove(connection);
        if subchannel.connections().is_empty() {
            self.dirty |= self.members.left(subchannel);
        }
    }

    pub(super) fn grow(&mut self, subchannel: &Arc<Subchannel>) {
        let max = self.config.max_connections;
        let all_busy = self.line.is_busy();
        match self.members.link(subchannel) {
            // At the limit the mark stays until a connection goes: calls need not ask.
            Some(link) if link.open >= max => {}
            Some(link) if link.open > 0 && !all_busy => self.open(subchannel, true),
            _ => subchannel.may_grow(),
        }
    }

    pub(super) fn on_timer(&mut self) {
        let now = Instant::now();
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Connect(subchannel) => self.line.retry(subchannel),
                Timer::Readmit(subchannel, end) => {
                    let ejection = self.members.link(&subchannel).map(|link| &link.ejection);
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

    /// Brings up to date what others see of the member that has this endpoint.
    fn refresh(&mut self, subchannel: &Subchannel, failure: Option<Arc<str>>) {
        self.dirty = true;
        self.members.refresh(subchannel.target().id(), failure);
    }
}
