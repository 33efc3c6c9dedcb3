//! What panics costs as little as can be, and every waiting task is told.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_core::clock::{Clock, Moment, Sleep};
use sd_core::memory::Memory;
use sd_core::port::{
    Confirmation, Entry, LeaderWatcher, Limits, Safety, Standing, StrictElector, Ticket,
    async_trait,
};
use sd_core::{ElectionName, Elector, Registry, Result};
use sd_election::{Candidate, CandidatePhase, ElectionEvent};
use tokio::runtime::Handle;
use tokio::time::timeout;

const TTL: Duration = Duration::from_secs(3);

/// Panics at each confirmation while it is told to.
#[derive(Debug)]
struct Panicking {
    elector: Arc<dyn StrictElector>,
    now: Arc<AtomicBool>,
}

#[derive(Debug)]
struct PanickingEntry {
    entry: Box<dyn Entry>,
    now: Arc<AtomicBool>,
}

#[async_trait]
impl Elector for Panicking {
    fn limits(&self) -> &Limits {
        self.elector.limits()
    }

    async fn safety(&self) -> Result<Safety> {
        self.elector.safety().await
    }

    async fn join(&self, ticket: &Ticket) -> Result<Box<dyn Entry>> {
        Ok(Box::new(PanickingEntry {
            entry: self.elector.join(ticket).await?,
            now: Arc::clone(&self.now),
        }))
    }

    async fn leave(&self, ticket: &Ticket) -> Result<()> {
        self.elector.leave(ticket).await
    }

    async fn observe(&self, name: &ElectionName) -> Result<Box<dyn LeaderWatcher>> {
        self.elector.observe(name).await
    }
}

impl StrictElector for Panicking {}

#[async_trait]
impl Entry for PanickingEntry {
    async fn standing(&self, seen: Option<&Standing>) -> Result<Standing> {
        self.entry.standing(seen).await
    }

    async fn confirm(&self) -> Result<Confirmation> {
        assert!(!self.now.load(Ordering::Relaxed), "a backend's mistake");
        self.entry.confirm().await
    }

    async fn proclaim(&self, value: &[u8]) -> Result<()> {
        self.entry.proclaim(value).await
    }
}

/// The registry's clock, whose timers panic while it is told to.
#[derive(Debug)]
struct PanickingClock {
    clock: Arc<dyn Clock>,
    now: Arc<AtomicBool>,
}

impl Clock for PanickingClock {
    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        assert!(!self.now.load(Ordering::Relaxed), "a clock's mistake");
        self.clock.sleep_until(at)
    }
}

/// A candidate over these, and what makes one of them panic.
fn candidate(registry: &Registry, panics: [&Arc<AtomicBool>; 2]) -> Candidate {
    let [elector, clock] = panics.map(Arc::clone);
    let elector = Panicking {
        elector: registry.elector().unwrap().into_strict().unwrap(),
        now: elector,
    };
    let clock = PanickingClock {
        clock: Arc::clone(&registry.config().clock),
        now: clock,
    };
    Candidate::with_elector(Arc::new(elector), "a")
        .ttl(TTL)
        .clock(Arc::new(clock))
        .on_runtime(Handle::current())
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_that_panics_has_failed_and_costs_no_term() {
    let registry = Memory::new().connect();
    let panics = Arc::new(AtomicBool::new(false));
    let candidate = candidate(&registry, [&panics, &Arc::default()]);
    let mut events = candidate.events();
    let leadership = candidate.campaign().await.unwrap();
    let mut told = async |name: &str| loop {
        let event = timeout(TTL * 3, events.next()).await.unwrap().unwrap();
        if event.as_str() == name {
            return event;
        }
    };

    panics.store(true, Ordering::Relaxed);
    let ElectionEvent::AtRisk { error, .. } = told("at_risk").await else {
        panic!("not at risk");
    };
    let why = error.report().to_string();
    assert!(why.contains("panicked: a backend's mistake"), "{why}");
    panics.store(false, Ordering::Relaxed);
    told("recovered").await;
    assert!(leadership.is_leader());

    panics.store(true, Ordering::Relaxed);
    assert_eq!(leadership.lost().await.as_str(), "lease_expired");
    leadership.resign().await.unwrap();
    panics.store(false, Ordering::Relaxed);
    let again = timeout(TTL, candidate.campaign()).await;
    assert!(again.unwrap().unwrap().is_leader());
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_panics_ends_the_term_and_the_candidate_can_campaign_again() {
    let registry = Memory::new().connect();
    let panics = Arc::new(AtomicBool::new(false));
    let candidate = candidate(&registry, [&Arc::default(), &panics]);
    let mut events = candidate.events();
    let leadership = candidate.campaign().await.unwrap();

    panics.store(true, Ordering::Relaxed);
    assert_eq!(leadership.lost().await.as_str(), "fatal");
    assert!(!leadership.is_leader());
    let mut told = Vec::new();
    while let Ok(Some(event)) = timeout(TTL, events.next()).await {
        told.push(event.as_str());
    }
    assert_eq!(told, ["taking", "elected", "ended"]);
    assert_eq!(candidate.state().phase, CandidatePhase::Idle);
    assert!(leadership.resign().await.is_err(), "the entry was not left");

    panics.store(false, Ordering::Relaxed);
    // The entry that was not left goes with its time-to-live.
    let again = timeout(TTL * 3, candidate.campaign()).await;
    assert!(again.unwrap().unwrap().is_leader());
}
