//! What runs on a candidate's node: it leads, works and writes again and again, and gives up in every way there is.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sd_core::clock::{Clock, Moment};
use sd_core::port::CandidateId;
use sd_core::sync::lock;
use sd_core::{FencingToken, Registry, Result};
use tokio::runtime::Handle;

use super::backend::close;
use super::clock::NodeClock;
use super::executor::World;
use super::history::What;
use super::monitor::Monitor;
use super::network::Network;
use super::node::Node;
use super::server::Server;
use crate::candidate::Candidate;
use crate::election_thread::Spawn;
use crate::fencing::Fence;
use crate::leadership::Leadership;
use crate::term::Term;

/// Where a candidate's drivers run.
#[derive(Debug)]
pub(super) struct NodeSpawner {
    pub(super) world: World,
    pub(super) node: Node,
}

impl Spawn for NodeSpawner {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.world.spawn(self.node, task);
    }

    /// Time is that of the simulated world.
    fn check_caller(&self, _op: &'static str) -> Result<()> {
        Ok(())
    }
}

/// What all applications write to.
#[derive(Debug, Default)]
pub(super) struct Store(Mutex<Fence>);

impl Store {
    fn admits(&self, token: &FencingToken) -> bool {
        lock(&self.0).admit(token).is_ok()
    }
}

pub(super) struct Application {
    pub(super) world: World,
    pub(super) network: Network,
    pub(super) node: Node,
    pub(super) clock: NodeClock,
    pub(super) server: Arc<Server>,
    pub(super) store: Arc<Store>,
    pub(super) monitor: Arc<Monitor>,
    pub(super) candidate: Candidate,
    pub(super) registry: Registry,
    pub(super) idle: Handle,
    pub(super) ttl: Duration,
    pub(super) stop_margin: Duration,
    /// How probable it is that what is begun is not dropped before its end.
    pub(super) certainty: f64,
    /// From here on it only leads once more, properly.
    pub(super) calm_at: Moment,
}

/// When a future is dropped that has not returned by then.
enum DropPoint {
    Never,
    AfterPolls(u32),
    At(Moment),
}

/// A future, unless it is dropped before its end.
struct Uncertain<F> {
    inner: Pin<Box<F>>,
    polls_left: Option<u32>,
    drop_at: Option<super::executor::Alarmed>,
}

impl<F: Future> Future for Uncertain<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // First, so that what has just become ready is dropped as well.
        let drop_at = self.drop_at.as_mut();
        if drop_at.is_some_and(|drop_at| Pin::new(drop_at).poll(cx).is_ready()) {
            return Poll::Ready(None);
        }
        if self.polls_left == Some(0) {
            return Poll::Ready(None);
        }
        if let Poll::Ready(output) = self.inner.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if let Some(left) = &mut self.polls_left {
            *left -= 1;
            if *left == 0 {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    }
}

impl Application {
    pub(super) async fn live(self) {
        self.pause(0.5).await;
        while self.world.now() < self.calm_at {
            if self.world.chance(0.05) {
                return self.close_during_a_round().await;
            }
            self.lead_or_work().await;
            self.pause(0.3).await;
        }
        self.lead_once_more().await;
    }

    /// As a process that is told to end: closes its registry, whatever it is at.
    async fn close_during_a_round(&self) {
        let longest = self.ttl * 4;
        let after = self.world.between(Duration::ZERO..=longest);
        let (world, node, registry) = (self.world.clone(), self.node, self.registry.clone());
        let idle = self.idle.clone();
        self.world.spawn(
            self.node,
            Box::pin(async move {
                world.sleep(after).await;
                world.record(node, What::Closes);
                close(registry, idle).await;
            }),
        );
        self.lead_or_work().await;
        self.record(What::Finished);
    }

    async fn lead_or_work(&self) {
        if self.world.chance(0.6) {
            self.lead().await;
        } else {
            self.work().await;
        }
    }

    /// Up to this share of the time-to-live.
    async fn pause(&self, share: f64) {
        let span = self.world.between(Duration::ZERO..=self.ttl.mul_f64(share));
        self.clock.sleep_until(self.clock.read() + span).await;
    }

    fn uncertain<F: Future>(&self, future: F, certainty: f64) -> Uncertain<F> {
        let world = &self.world;
        let drop_point = if world.chance(certainty) {
            DropPoint::Never
        } else if world.chance(0.2) {
            DropPoint::AfterPolls(u32::try_from(world.below(3)).unwrap_or(0) + 1)
        } else if world.chance(0.6) {
            // While one of its first messages is on its way.
            let messages = u32::try_from(world.below(6)).unwrap_or(0) + 1;
            DropPoint::At(world.now() + self.network.delay() * messages)
        } else {
            let longest = self.ttl * 3;
            DropPoint::At(world.now() + world.between(Duration::ZERO..=longest))
        };
        let (polls_left, drop_at) = match drop_point {
            DropPoint::Never => (None, None),
            DropPoint::AfterPolls(polls) => (Some(polls), None),
            DropPoint::At(at) => (None, Some(world.sleep_until(at))),
        };
        Uncertain {
            inner: Box::pin(future),
            polls_left,
            drop_at,
        }
    }

    fn record(&self, what: What) {
        self.world.record(self.node, what);
    }

    async fn lead(&self) {
        self.record(What::Campaigns);
        let leadership = match self
            .uncertain(self.candidate.campaign(), self.certainty)
            .await
        {
            None => return self.record(What::CampaignDropped),
            Some(Err(error)) => return self.record(What::CampaignFailed(error.kind())),
            Some(Ok(leadership)) => leadership,
        };
        self.monitor.won(self.node, &leadership);
        let longest = self.ttl * 5;
        let span = self.world.between(Duration::ZERO..=longest);
        self.hold(&leadership, span).await;
        if self.world.chance(0.6) {
            self.resign(leadership, self.certainty).await;
        } else {
            self.record(What::GivenUp {
                id: leadership.id(),
            });
            drop(leadership);
        }
    }

    async fn resign(&self, leadership: Leadership, certainty: f64) -> Option<Result<()>> {
        let id = leadership.id();
        self.record(What::GivenUp { id });
        let resigned = self.uncertain(leadership.resign(), certainty).await?;
        let still_there = self.server.queue().contains(&id) && !self.server.is_excused(id);
        self.record(What::Resigned {
            id,
            error: resigned.as_ref().err().map(sd_core::Error::kind),
            still_there,
        });
        Some(resigned)
    }

    async fn work(&self) {
        self.record(What::Campaigns);
        let work = self.candidate.run_while_leader(|term| async move {
            self.monitor.won(self.node, &term);
            let running = Running::begin(self, term.id());
            let longest = self.ttl * 5;
            let span = self.world.between(Duration::ZERO..=longest);
            if self.world.chance(0.3) {
                // Does not look where it goes, and is dropped in the end.
                let blind = self.clock.sleep_until(self.clock.read() + span);
                blind.await;
            } else {
                self.hold(&term, span).await;
            }
            drop(running);
        });
        match self.uncertain(work, self.certainty).await {
            None => self.record(What::CampaignDropped),
            Some(Err(error)) => self.record(What::CampaignFailed(error.kind())),
            Some(Ok(())) => {}
        }
    }

    /// Asks, writes and says that it is alive, until it has had enough or is not the leader any more.
    async fn hold(&self, term: &Term, span: Duration) {
        let id = term.id();
        let until = self.clock.read() + span;
        let lingers = self.world.chance(0.5);
        let is_wedged = self.world.chance(0.1);
        let pace = self.world.pick(&[0.05, 0.1, 0.4]).unwrap_or(0.1);
        loop {
            let asked_at = self.clock.read();
            let leads = term.is_leader();
            self.record(What::Asked { id, leads });
            if leads && !is_wedged {
                term.alive();
                self.record(What::Alive { id });
            }
            if leads && self.world.chance(0.5) {
                self.write(term);
            }
            if leads && self.world.chance(0.5) {
                self.probe(id, asked_at).await;
            }
            if leads && self.world.chance(0.05) {
                let proclaimed = self.uncertain(term.proclaim("me"), 0.5).await;
                // Whether it was told makes no difference to what is checked.
                drop(proclaimed);
            }
            if self.clock.read() >= until || !leads && !lingers {
                return;
            }
            if self.world.chance(0.2) && !lingers {
                tokio::select! {
                    biased;
                    _ = term.lost() => {}
                    () = self.pause(pace) => {}
                }
            } else {
                self.pause(pace).await;
            }
        }
    }

    /// Sends a write, which arrives at any time.
    fn write(&self, term: &Term) {
        let (id, token) = (term.id(), term.token().clone());
        let (world, store, node) = (self.world.clone(), Arc::clone(&self.store), self.node);
        self.network.post(move || {
            let admitted = store.admits(&token);
            let token = token.value();
            world.record(
                node,
                What::Wrote {
                    id,
                    token,
                    admitted,
                },
            );
        });
    }

    /// Writes where no token is asked for. That is safe only within the stop margin.
    async fn probe(&self, id: CandidateId, asked_at: Moment) {
        let takes = self.world.between(Duration::ZERO..=self.stop_margin);
        if self.world.chance(0.5) {
            self.clock.sleep_until(asked_at + takes).await;
        }
        if self.clock.read().since(asked_at) <= self.stop_margin {
            self.record(What::Probed { id });
        }
    }

    async fn lead_once_more(&self) {
        self.record(What::Campaigns);
        let leadership = match self.candidate.campaign().await {
            Ok(leadership) => leadership,
            Err(error) => return self.record(What::CampaignFailed(error.kind())),
        };
        self.monitor.won(self.node, &leadership);
        self.hold(&leadership, self.ttl / 10).await;
        self.resign(leadership, 1.0).await;
        self.record(What::Finished);
    }
}

/// Work that is done under a term.
struct Running<'a> {
    application: &'a Application,
    id: CandidateId,
}

impl<'a> Running<'a> {
    fn begin(application: &'a Application, id: CandidateId) -> Self {
        application.record(What::WorkBegan { id });
        Self { application, id }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.application.record(What::WorkOver { id: self.id });
    }
}
