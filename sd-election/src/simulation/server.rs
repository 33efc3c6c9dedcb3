//! The server: the embedded registry, and what a real server may do beyond it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use sd_core::clock::{Clock, Moment};
use sd_core::memory::Memory;
use sd_core::port::{
    AnyElector, CandidateId, Confirmation, CountsFrom, Entry, LeaderFeed, LeaderWatcher, Limits,
    Predecessor, Safety, Standing, StrictElector, Ticket,
};
use sd_core::sync::lock;
use sd_core::{Backend, ElectionName, Elector, Error, ErrorKind, FencingToken, Result};
use tokio::sync::mpsc;

use super::clock::NodeClock;
use super::executor::World;
use super::history::{Answer, What};
use super::network::{Network, Request};
use super::node::Node;
use super::schedule::{Lag, Schedule};
use crate::campaign::machine::{Call, is_lost};
use crate::flaw::{Flaw, flawed};

/// How often a server with a flaw looks again.
const LOOKED_AFTER: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Server {
    world: World,
    memory: Memory,
    clock: NodeClock,
    pub(super) name: ElectionName,
    /// By what factor the server grants more or less than it is asked for.
    granted_share: f64,
    lag: Option<Lag>,
    early_expiry: Duration,
    expires_early_by: Duration,
    entries: Mutex<BTreeMap<CandidateId, Kept>>,
    /// By the ids of entries, how many were made up to each.
    made: Mutex<BTreeMap<CandidateId, u64>>,
}

/// What is known of an entry beside what the embedded registry knows.
#[derive(Debug)]
struct Kept {
    node: Node,
    /// After how long without a confirmation its lease ends.
    span: Duration,
    /// When its lease ends, on the server's clock. The embedded registry ends it then or later.
    expires: Moment,
    /// When the last confirmation came.
    touched: Moment,
    /// It may be there though no candidate wants it: a late message made it again, or a restart of the server gave it more time.
    excused: bool,
    left: bool,
}

impl Server {
    pub(super) fn new(world: World, schedule: &Schedule) -> Result<Arc<Self>> {
        let clock = NodeClock::new(
            world.clone(),
            Node::SERVER,
            schedule.server_pace,
            Duration::ZERO,
        );
        Ok(Arc::new(Self {
            memory: Memory::with_clock(Arc::new(clock.clone())),
            world,
            clock,
            name: ElectionName::new("simulated")?,
            granted_share: schedule.granted_share,
            lag: schedule.lag,
            early_expiry: schedule.early_expiry,
            expires_early_by: schedule.expires_early_by,
            entries: Mutex::default(),
            made: Mutex::default(),
        }))
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<CandidateId, Kept>> {
        // Every change is complete when it can panic no more.
        lock(&self.entries)
    }

    /// Who takes part, first to last.
    pub(super) fn queue(&self) -> Vec<CandidateId> {
        self.memory.operator().entries(&self.name)
    }

    /// Whose entry it is.
    pub(super) fn owner(&self, id: CandidateId) -> Option<Node> {
        self.kept().get(&id).map(|kept| kept.node)
    }

    /// Whether the entry may be there though no candidate wants it.
    pub(super) fn is_excused(&self, id: CandidateId) -> bool {
        self.kept().get(&id).is_none_or(|kept| kept.excused)
    }

    pub(super) fn remove(&self, id: CandidateId) {
        if self.memory.operator().remove_entry(&self.name, id) {
            self.world.record(Node::SERVER, What::EntryRemoved { id });
        }
    }

    pub(super) fn end_lease(&self, id: CandidateId) {
        if self.memory.operator().expire_entry(&self.name, id) {
            self.world.record(Node::SERVER, What::LeaseEnded { id });
        }
    }

    /// Gives every lease its full time again.
    pub(super) fn restart_leases(&self) {
        let now = self.clock.now();
        let present = self.queue();
        self.memory.operator().restart_leases();
        for (id, kept) in self.kept().iter_mut() {
            if present.contains(id) {
                kept.expires = kept.expires.max(now + kept.span);
                kept.touched = now;
                kept.excused = true;
            }
        }
    }

    async fn join(
        self: Arc<Self>,
        node: Node,
        elector: Arc<dyn Elector>,
        ticket: Ticket,
    ) -> Result<Box<dyn Entry>> {
        let known = self.queue().contains(&ticket.id);
        let entry = elector.join(&ticket).await?;
        if !known {
            let id = ticket.id;
            let now = self.clock.now();
            let span = ticket.ttl.saturating_sub(self.expires_early_by);
            let age = self.lag.map_or(Duration::ZERO, |lag| lag.session_age);
            let expires = now + span.saturating_sub(age);
            let again = {
                let mut all = self.kept();
                let again = all.contains_key(&id);
                let kept = all.entry(id).or_insert(Kept {
                    node,
                    span,
                    expires,
                    touched: now,
                    excused: false,
                    left: false,
                });
                kept.excused |= again || kept.left;
                kept.expires = expires;
                kept.touched = now;
                again
            };
            self.world.record(node, What::Joined { id });
            {
                let mut made = lock(&self.made);
                let count = u64::try_from(made.len()).unwrap_or(u64::MAX) + 1;
                made.entry(id).or_insert(count);
            }
            let may_end_sooner = !self.expires_early_by.is_zero();
            if !again && (may_end_sooner || self.lag.is_some()) {
                let server = Arc::clone(&self);
                self.world
                    .spawn(Node::SERVER, Box::pin(server.end_in_time(id)));
            }
        }
        Ok(entry)
    }

    /// Ends the lease when it ends here, which is before the embedded registry would.
    async fn end_in_time(self: Arc<Self>, id: CandidateId) {
        loop {
            let Some(expires) = self.kept().get(&id).map(|kept| kept.expires) else {
                return;
            };
            self.clock.sleep_until(expires).await;
            let is_over = self
                .kept()
                .get(&id)
                .is_none_or(|kept| kept.expires <= expires);
            if is_over && self.memory.operator().expire_entry(&self.name, id) {
                self.world.record(Node::SERVER, What::Expired { id });
            }
            // A late message may have made it again: then it lives as long as the embedded registry lets it.
            if is_over {
                return;
            }
        }
    }

    async fn confirm(
        self: Arc<Self>,
        id: CandidateId,
        entry: Arc<dyn Entry>,
    ) -> Result<Confirmation> {
        let confirmation = entry.confirm().await?;
        let now = self.clock.now();
        if let Some(kept) = self.kept().get_mut(&id) {
            match self.lag {
                None => kept.expires = kept.expires.max(now + kept.span),
                Some(lag) => {
                    if lag.has_report_between(kept.touched, now) {
                        kept.expires = kept.expires.max(kept.touched + kept.span);
                    }
                    kept.touched = now;
                }
            }
        }
        Ok(confirmation)
    }

    /// Where an entry stands, once that differs from `seen`.
    async fn standing(
        self: Arc<Self>,
        id: CandidateId,
        entry: Arc<dyn Entry>,
        seen: Option<Standing>,
    ) -> Result<Standing> {
        let before = self.queue().into_iter().take_while(|other| *other != id);
        let before: Vec<CandidateId> = before.collect();
        let standing = entry.standing(seen.as_ref()).await?;
        let was_waiting = matches!(seen, Some(Standing::Waiting { .. }));
        if flawed(Flaw::OwnDeletionLate) && was_waiting && matches!(standing, Standing::Gone(_)) {
            // As a server tells it that does not keep the order of deletions.
            while self.queue().iter().any(|other| before.contains(other)) {
                self.world.sleep(LOOKED_AFTER).await;
            }
            let token = lock(&self.made).get(&id).copied().unwrap_or_default();
            return Ok(Standing::First {
                token: FencingToken::new("simulated", token),
                before: Predecessor::None,
            });
        }
        Ok(standing)
    }

    async fn leave(
        self: Arc<Self>,
        node: Node,
        elector: Arc<dyn Elector>,
        ticket: Ticket,
    ) -> Result<()> {
        elector.leave(&ticket).await?;
        let now = self.clock.now();
        let id = ticket.id;
        self.kept()
            .entry(id)
            .or_insert(Kept {
                node,
                span: Duration::ZERO,
                expires: now,
                touched: now,
                excused: false,
                left: true,
            })
            .left = true;
        self.world.record(node, What::Left { id });
        Ok(())
    }
}

/// One client of the server.
#[derive(Debug)]
pub(super) struct SimulatedElector {
    server: Arc<Server>,
    network: Network,
    node: Node,
    clock: NodeClock,
    inner: Arc<dyn Elector>,
    /// When the first join of each ticket was sent. A later one finds what the first one made.
    joined: Mutex<BTreeMap<CandidateId, Moment>>,
}

impl SimulatedElector {
    pub(super) fn connect(
        server: &Arc<Server>,
        network: &Network,
        node: Node,
        clock: NodeClock,
    ) -> Result<Arc<Self>> {
        let inner = Arc::new(server.memory.backend()).elector();
        let inner = inner.map(AnyElector::into_any);
        Ok(Arc::new(Self {
            server: Arc::clone(server),
            network: network.clone(),
            node,
            clock,
            joined: Mutex::default(),
            inner: inner.ok_or_else(|| Error::new(ErrorKind::Unsupported, "simulate"))?,
        }))
    }

    fn granted(&self, ticket: &Ticket) -> Ticket {
        let mut granted = ticket.clone();
        granted.ttl = ticket.ttl.mul_f64(self.server.granted_share);
        granted
    }
}

#[async_trait]
impl Elector for SimulatedElector {
    fn limits(&self) -> &Limits {
        self.inner.limits()
    }

    async fn safety(&self) -> Result<Safety> {
        let mut safety = Safety::strict();
        safety.early_expiry = self.server.early_expiry;
        let request: Request<Safety> = Arc::new(move || {
            let safety = safety.clone();
            Box::pin(async move { Ok(safety) })
        });
        self.network.call(self.node, false, request).await
    }

    async fn join(&self, ticket: &Ticket) -> Result<Box<dyn Entry>> {
        let (server, node) = (Arc::clone(&self.server), self.node);
        server.world.record(node, What::Joins { id: ticket.id });
        let sent = self.clock.read();
        let sent = *lock(&self.joined).entry(ticket.id).or_insert(sent);
        let (inner, granted) = (Arc::clone(&self.inner), self.granted(ticket));
        let request: Request<Box<dyn Entry>> = Arc::new(move || {
            let joined = Arc::clone(&server).join(node, Arc::clone(&inner), granted.clone());
            Box::pin(joined)
        });
        let entry = self.network.call(node, false, request).await?;
        Ok(Box::new(SimulatedEntry {
            server: Arc::clone(&self.server),
            network: self.network.clone(),
            node,
            id: ticket.id,
            inner: entry.into(),
            counts_from: match self.server.lag {
                None => CountsFrom::ThisSend,
                // That long ago by a clock that may be too fast.
                Some(lag) => CountsFrom::EarlierSend(sent - lag.session_age * 2),
            },
        }))
    }

    async fn leave(&self, ticket: &Ticket) -> Result<()> {
        let (server, node) = (Arc::clone(&self.server), self.node);
        let (inner, granted) = (Arc::clone(&self.inner), self.granted(ticket));
        let request: Request<()> = Arc::new(move || {
            let left = Arc::clone(&server).leave(node, Arc::clone(&inner), granted.clone());
            Box::pin(left)
        });
        self.network.call(node, false, request).await
    }

    async fn observe(&self, name: &ElectionName) -> Result<Box<dyn LeaderWatcher>> {
        let (inner, name) = (Arc::clone(&self.inner), name.clone());
        let request: Request<Box<dyn LeaderWatcher>> = Arc::new(move || {
            let (inner, name) = (Arc::clone(&inner), name.clone());
            Box::pin(async move { inner.observe(&name).await })
        });
        let watcher = self.network.call(self.node, false, request).await?;
        let silence_limit = watcher.silence_limit();
        let (sender, told) = mpsc::channel(8);
        let (network, node) = (self.network.clone(), self.node);
        let world = self.server.world.clone();
        self.server.world.spawn(
            Node::SERVER,
            Box::pin(tell(world, network, node, watcher, sender)),
        );
        Ok(Box::new(SimulatedWatcher {
            told,
            silence_limit,
        }))
    }
}

impl StrictElector for SimulatedElector {}

#[derive(Debug)]
struct SimulatedEntry {
    server: Arc<Server>,
    network: Network,
    node: Node,
    id: CandidateId,
    inner: Arc<dyn Entry>,
    counts_from: CountsFrom,
}

impl SimulatedEntry {
    fn answered<T>(
        &self,
        call: Call,
        answer: Result<T>,
        is_fine: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let told = match &answer {
            Ok(answer) if is_fine(answer) => Answer::Fine,
            Err(error) if !is_lost(error) => Answer::Failed,
            _ => Answer::Gone,
        };
        let (id, answer_told) = (self.id, told);
        self.server.world.record(
            self.node,
            What::Answered {
                id,
                call,
                answer: answer_told,
            },
        );
        answer
    }
}

#[async_trait]
impl Entry for SimulatedEntry {
    async fn standing(&self, seen: Option<&Standing>) -> Result<Standing> {
        let (server, id) = (Arc::clone(&self.server), self.id);
        let (inner, seen) = (Arc::clone(&self.inner), seen.cloned());
        let request: Request<Standing> = Arc::new(move || {
            let (inner, seen) = (Arc::clone(&inner), seen.clone());
            Box::pin(Arc::clone(&server).standing(id, inner, seen))
        });
        let standing = self.network.call(self.node, true, request).await;
        self.answered(Call::Standing, standing, |standing| {
            !matches!(standing, Standing::Gone(_))
        })
    }

    async fn confirm(&self) -> Result<Confirmation> {
        let (server, id) = (Arc::clone(&self.server), self.id);
        let inner = Arc::clone(&self.inner);
        let request: Request<Confirmation> =
            Arc::new(move || Box::pin(Arc::clone(&server).confirm(id, Arc::clone(&inner))));
        let confirmed = self.network.call(self.node, false, request).await;
        let confirmed =
            confirmed.map(|confirmation| Confirmation::new(confirmation.ttl, self.counts_from));
        self.answered(Call::Confirm, confirmed, |_| true)
    }

    async fn proclaim(&self, value: &[u8]) -> Result<()> {
        let (inner, value) = (Arc::clone(&self.inner), Arc::<[u8]>::from(value));
        let request: Request<()> = Arc::new(move || {
            let (inner, value) = (Arc::clone(&inner), Arc::clone(&value));
            Box::pin(async move { inner.proclaim(&value).await })
        });
        self.network.call(self.node, false, request).await
    }
}

/// Tells an observer what the server tells, until a message does not get through: then the feed is silent for good.
async fn tell(
    world: World,
    network: Network,
    node: Node,
    mut watcher: Box<dyn LeaderWatcher>,
    told: mpsc::Sender<Result<LeaderFeed>>,
) {
    loop {
        let next = tokio::select! {
            biased;
            () = told.closed() => return,
            next = watcher.next() => next,
        };
        world.sleep(network.delay()).await;
        if !network.reaches(node) {
            return told.closed().await;
        }
        if told.send(next).await.is_err() {
            return;
        }
    }
}

#[derive(Debug)]
struct SimulatedWatcher {
    told: mpsc::Receiver<Result<LeaderFeed>>,
    silence_limit: Duration,
}

#[async_trait]
impl LeaderWatcher for SimulatedWatcher {
    async fn next(&mut self) -> Result<LeaderFeed> {
        let gone = || Error::new(ErrorKind::Unavailable, "simulated feed");
        self.told.recv().await.unwrap_or_else(|| Err(gone()))
    }

    fn silence_limit(&self) -> Duration {
        self.silence_limit
    }
}
