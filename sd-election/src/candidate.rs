//! A candidate: what a process uses to campaign in an election.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::{BootClock, Clock, Moment};
use sd_core::events::EventLog;
use sd_core::port::{Safety, StrictElector, Ticket};
use sd_core::{ElectionName, Elector, Error, ErrorKind, Events, Registry, Result};
use tokio::sync::{oneshot, watch};
use tracing::warn;

use crate::campaign::Campaign;
use crate::config::{DEFAULT_TTL, StepDown, TermConfig};
use crate::election_thread::{ElectionThread, Spawn};
use crate::event::{CandidatePhase, CandidateState, ElectionEvent};
use crate::flaw::{Flaw, unless};
use crate::leadership::Leadership;
use crate::term::Term;

/// Events that are kept for a slow listener.
const EVENTS_KEPT: usize = 256;

/// A candidate of one election. It does nothing until it campaigns, and it can campaign any number of times.
#[derive(Debug)]
pub struct Candidate {
    campaign: Campaign,
    registry: Option<Registry>,
    spawner: Arc<dyn Spawn>,
}

/// Builds a [`Candidate`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct CandidateBuilder {
    source: Source,
    name: Result<ElectionName>,
    value: Option<Arc<[u8]>>,
    ttl: Duration,
    config: TermConfig,
    clock: Option<Arc<dyn Clock>>,
    spawner: Option<Arc<dyn Spawn>>,
}

#[derive(Debug)]
enum Source {
    Registry {
        registry: Registry,
        best_effort: bool,
    },
    Elector(Arc<dyn Elector>),
}

impl Candidate {
    /// A candidate of the election `name` at `registry`. The registry must grant at most one valid term at a time;
    /// [`build`](CandidateBuilder::build) refuses any other.
    pub fn builder(
        registry: &Registry,
        name: impl TryInto<ElectionName, Error: Into<Error>>,
    ) -> CandidateBuilder {
        let source = Source::Registry {
            registry: registry.clone(),
            best_effort: false,
        };
        CandidateBuilder::new(source, name.try_into().map_err(Into::into))
    }

    /// Like [`builder`](Self::builder), over an elector whose type is strict. No other candidate should share the elector.
    pub fn with_elector(
        elector: Arc<dyn StrictElector>,
        name: impl TryInto<ElectionName, Error: Into<Error>>,
    ) -> CandidateBuilder {
        CandidateBuilder::new(
            Source::Elector(elector),
            name.try_into().map_err(Into::into),
        )
    }

    /// Like [`builder`](Self::builder), but also accepts a registry that may have two leaders at once. Use it only for work that is
    /// merely wasteful when it is done twice.
    pub fn best_effort(
        registry: &Registry,
        name: impl TryInto<ElectionName, Error: Into<Error>>,
    ) -> CandidateBuilder {
        let source = Source::Registry {
            registry: registry.clone(),
            best_effort: true,
        };
        CandidateBuilder::new(source, name.try_into().map_err(Into::into))
    }

    /// The election's name.
    pub fn name(&self) -> &ElectionName {
        &self.campaign.name
    }

    /// The value that observers see for this candidate.
    pub fn value(&self) -> &[u8] {
        &self.campaign.value
    }

    /// Waits until this candidate leads. Temporary errors, such as a server that is down, are retried. [`state`](Self::state) and
    /// [`events`](Self::events) show them.
    ///
    /// # Errors
    /// Errors that a retry cannot fix: `InvalidInput`, `Unsupported`, `Closed`; and `Denied` and `Rejected` while the server has never
    /// let this candidate in. They are told as soon as they are known. Whatever may be left of the campaign is left in the background.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the election in the background.
    pub async fn campaign(&self) -> Result<Leadership> {
        let closing = self.registry.as_ref().map(Registry::closing);
        let (begun, driven) = self.campaign.clone().begin(closing);
        let cancel_on_drop = begun.cancel.drop_guard();
        self.spawner.spawn(Box::pin(driven));
        let leadership = begun
            .winning
            .await
            .unwrap_or_else(|_| Err(thread_ended("campaign")))?;
        // From here on, dropping the leadership cancels.
        cancel_on_drop.disarm();
        Ok(leadership)
    }

    /// Campaigns and runs `work` in each term, until `work` returns while its term still lasts. Then resigns and returns the result.
    ///
    /// If the term ends first, [`Term::lost`] notifies the work. The work then has the stop margin to return before it is dropped, and
    /// the next campaign begins. A result that is returned after the end of the term is discarded, so the work may be done more than
    /// once.
    ///
    /// Only the future is dropped. Tasks and threads that it has spawned continue unless it ends them itself, and so does a future that
    /// never yields. Only [fencing](crate::Fence) protects against these.
    ///
    /// # Errors
    /// The same as those of [`campaign`](Self::campaign). `InvalidInput` outside a tokio runtime: the stop margin is waited for by its
    /// timers.
    ///
    /// # Cancel safety
    /// Dropping the future drops the work, then leaves the election in the background.
    pub async fn run_while_leader<F, Fut>(&self, mut work: F) -> Result<Fut::Output>
    where
        F: FnMut(Term) -> Fut,
        Fut: Future,
    {
        self.spawner.check_caller("run while leader")?;
        loop {
            let leadership = self.campaign().await?;
            if let Some(output) = self.work_while(&leadership, work(leadership.term())).await {
                if let Err(error) = leadership.resign().await {
                    // The work is done, and the lease ends by itself.
                    warn!(name = %self.name(), error = %error.report(), "could not resign");
                }
                return Ok(output);
            }
        }
    }

    /// The work's result if it came while the term went on.
    async fn work_while<Fut: Future>(&self, term: &Term, work: Fut) -> Option<Fut::Output> {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            output = &mut work => return Some(output).filter(|_| term.is_leader()),
            _ = term.lost() => {}
        }
        // It may have been taken from us long before the deadline. That is no reason to go on longer than it takes to stop.
        let clock = &self.campaign.clock;
        let stop_by = term.hand_over().min(clock.now() + term.shared.stop_margin);
        let stop_by = unless(Flaw::WorkNotStopped, stop_by, Moment::ZERO + Duration::MAX);
        tokio::select! {
            biased;
            _ = &mut work => {}
            () = clock.sleep_until(stop_by) => {}
        }
        None
    }

    /// The events of all campaigns of this candidate from now on, as a stream that ends when the candidate is dropped. The newest 256
    /// events are kept for a listener that is slow.
    pub fn events(&self) -> Events<ElectionEvent> {
        self.campaign.events.events_from_now()
    }

    /// What this candidate is doing now.
    pub fn state(&self) -> CandidateState {
        self.campaign.state.borrow().clone()
    }

    /// What this candidate's server promises.
    ///
    /// # Errors
    /// Why the server did not answer.
    pub async fn safety(&self) -> Result<Safety> {
        // On the elections' runtime, because the first request opens the connection.
        let (told, promise) = oneshot::channel();
        let elector = Arc::clone(&self.campaign.elector);
        self.spawner.spawn(Box::pin(async move {
            // The caller may have stopped waiting.
            let _ = told.send(elector.safety().await);
        }));
        promise
            .await
            .unwrap_or_else(|_| Err(thread_ended("tell safety")))
    }
}

fn thread_ended(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op).because("the task that drives the candidate has ended")
}

impl CandidateBuilder {
    fn new(source: Source, name: Result<ElectionName>) -> Self {
        Self {
            source,
            name,
            value: None,
            ttl: DEFAULT_TTL,
            config: TermConfig::default(),
            clock: None,
            spawner: None,
        }
    }

    /// The value that observers see for this candidate. Default: the host name and the process id.
    pub fn value(mut self, value: impl AsRef<[u8]>) -> Self {
        self.value = Some(value.as_ref().into());
        self
    }

    /// The time-to-live to ask for: how long the term outlives its last confirmation. Default [`DEFAULT_TTL`]. The server may grant
    /// another one, which then counts.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Replaces all settings of how the term is kept.
    pub fn config(mut self, config: TermConfig) -> Self {
        self.config = config;
        self
    }

    /// See [`TermConfig::clock_error`].
    pub fn clock_error(mut self, share: f64) -> Self {
        self.config.clock_error = share;
        self
    }

    /// See [`TermConfig::stop_margin`].
    pub fn stop_margin(mut self, margin: Duration) -> Self {
        self.config.stop_margin = Some(margin);
        self
    }

    /// See [`TermConfig::takeover_delay`].
    pub fn takeover_delay(mut self, delay: Duration) -> Self {
        self.config.takeover_delay = delay;
        self
    }

    /// See [`TermConfig::step_down`].
    pub fn step_down(mut self, step_down: StepDown) -> Self {
        self.config.step_down = step_down;
        self
    }

    /// See [`TermConfig::progress_within`].
    pub fn progress_within(mut self, within: Duration) -> Self {
        self.config.progress_within = Some(within);
        self
    }

    /// The clock that deadlines are read from. Default: the registry's clock. That is the boot clock for a server, and tokio's clock for
    /// the embedded registry.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Runs the candidate on this runtime instead of the thread that all elections of the process share. Meant for tests that pause
    /// the clock. While the application blocks this runtime, the term is not renewed.
    pub fn on_runtime(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.spawner = Some(Arc::new(runtime));
        self
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn spawner(mut self, spawner: Arc<dyn Spawn>) -> Self {
        self.spawner = Some(spawner);
        self
    }

    /// Checks all settings and builds the candidate. Sends nothing.
    ///
    /// # Errors
    /// `InvalidInput` if a setting or the name is not valid. `Unsupported` if the registry has no elections, or no strict ones.
    pub fn build(self) -> Result<Candidate> {
        let (elector, registry) = match self.source {
            Source::Elector(elector) => (elector, None),
            Source::Registry {
                registry,
                best_effort,
            } => {
                let elector = registry.elector()?;
                let elector: Arc<dyn Elector> = if best_effort {
                    elector.into_any()
                } else {
                    elector.into_strict()?
                };
                (elector, Some(registry))
            }
        };
        let name = self.name?;
        let value = self.value.unwrap_or_else(default_value);
        self.config.check(self.ttl)?;
        Ticket::new(name.clone(), Arc::clone(&value), self.ttl).check(elector.limits())?;
        let clock = match (self.clock, &registry) {
            (Some(clock), _) => clock,
            (None, Some(registry)) => Arc::clone(&registry.config().clock),
            (None, None) => Arc::new(BootClock),
        };
        let spawner = match self.spawner {
            Some(spawner) => spawner,
            None => Arc::new(ElectionThread::shared()?),
        };
        let (state, _) = watch::channel(CandidateState {
            phase: CandidatePhase::Idle,
            since: clock.now(),
            error: None,
        });
        let campaign = Campaign {
            elector,
            clock,
            name,
            value,
            ttl: self.ttl,
            config: self.config,
            was_admitted: Arc::default(),
            number: 0,
            last_number: Arc::default(),
            state,
            events: Arc::new(EventLog::keeping(EVENTS_KEPT)),
        };
        Ok(Candidate {
            campaign,
            registry,
            spawner,
        })
    }
}

fn default_value() -> Arc<[u8]> {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    format!("{host}/{}", std::process::id()).into_bytes().into()
}
