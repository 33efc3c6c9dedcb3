//! A backend that panics costs one term, and every waiting task is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_core::memory::Memory;
use sd_core::port::{
    Confirmation, Entry, LeaderWatcher, Limits, Safety, Standing, StrictElector, Ticket,
    async_trait,
};
use sd_core::{ElectionName, Elector, Result};
use sd_election::{Candidate, CandidatePhase};
use tokio::runtime::Handle;
use tokio::time::timeout;

const TTL: Duration = Duration::from_secs(3);

/// Panics at the next confirmation once it is told to.
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

#[tokio::test(start_paused = true)]
async fn a_backend_that_panics_ends_the_term_and_the_candidate_can_campaign_again() {
    let registry = Memory::new().connect();
    let panics = Arc::new(AtomicBool::new(false));
    let elector = Panicking {
        elector: registry.elector().unwrap().into_strict().unwrap(),
        now: Arc::clone(&panics),
    };
    let candidate = Candidate::with_elector(Arc::new(elector), "a")
        .ttl(TTL)
        .clock(Arc::clone(&registry.config().clock))
        .on_runtime(Handle::current())
        .build()
        .unwrap();
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
