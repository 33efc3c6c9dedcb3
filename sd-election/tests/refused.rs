//! A candidate that the server does not let in is told at once, and leaves whatever may be left while nothing waits for that.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use sd_core::memory::Memory;
use sd_core::port::{Entry, LeaderWatcher, Limits, Safety, StrictElector, Ticket, async_trait};
use sd_core::{ElectionName, Elector, Error, ErrorKind, Result};
use sd_election::{Candidate, CandidatePhase, EndReason};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

const TTL: Duration = Duration::from_secs(60);

/// Lets nothing in. What it is asked to leave it refuses as well, so often.
#[derive(Debug)]
struct Refusing {
    elector: Arc<dyn StrictElector>,
    kind: ErrorKind,
    leaving_fails_with: ErrorKind,
    refusals: usize,
    asked_to_leave: watch::Sender<usize>,
}

#[async_trait]
impl Elector for Refusing {
    fn limits(&self) -> &Limits {
        self.elector.limits()
    }

    async fn safety(&self) -> Result<Safety> {
        self.elector.safety().await
    }

    async fn join(&self, _: &Ticket) -> Result<Box<dyn Entry>> {
        Err(Error::new(self.kind, "join").because("wrong password"))
    }

    async fn leave(&self, _: &Ticket) -> Result<()> {
        let mut asked = 0;
        self.asked_to_leave.send_modify(|times| {
            *times += 1;
            asked = *times;
        });
        if asked <= self.refusals {
            return Err(Error::new(self.leaving_fails_with, "leave"));
        }
        Ok(())
    }

    async fn observe(&self, name: &ElectionName) -> Result<Box<dyn LeaderWatcher>> {
        self.elector.observe(name).await
    }
}

impl StrictElector for Refusing {}

fn candidate(
    kind: ErrorKind,
    leaving_fails_with: ErrorKind,
    refusals: usize,
) -> (Candidate, watch::Receiver<usize>) {
    let registry = Memory::new().connect();
    let (asked_to_leave, asked) = watch::channel(0);
    let elector = Refusing {
        elector: registry.elector().unwrap().into_strict().unwrap(),
        kind,
        leaving_fails_with,
        refusals,
        asked_to_leave,
    };
    let candidate = Candidate::with_elector(Arc::new(elector), "a")
        .ttl(TTL)
        .clock(Arc::clone(&registry.config().clock))
        .on_runtime(Handle::current())
        .build();
    (candidate.unwrap(), asked)
}

async fn is_idle(candidate: &Candidate) {
    let left = async {
        while candidate.state().phase != CandidatePhase::Idle {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(2 * TTL, left).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_at_once_and_what_may_be_left_is_left_in_the_background() {
    for kind in [ErrorKind::Denied, ErrorKind::Rejected] {
        let (candidate, mut asked) = candidate(kind, ErrorKind::Unavailable, 3);
        let mut events = candidate.events();
        let since = Instant::now();
        let error = candidate.campaign().await.unwrap_err();
        assert_eq!((error.kind(), since.elapsed()), (kind, Duration::ZERO));
        assert_eq!(candidate.state().phase, CandidatePhase::Leaving);
        assert_eq!(candidate.state().error.unwrap().kind(), kind);
        let told = events.next().await.unwrap();
        assert!(
            matches!(
                &told,
                sd_election::ElectionEvent::Lost {
                    reason: EndReason::Fatal(_)
                }
            ),
            "{told:?}"
        );
        asked.wait_for(|times| *times == 4).await.unwrap();
        is_idle(&candidate).await;
        let more = timeout(Duration::from_secs(1), events.next()).await;
        assert!(more.is_err(), "it is told once: {more:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_may_neither_join_nor_leave_does_not_go_on_asking() {
    let (candidate, asked) = candidate(ErrorKind::Denied, ErrorKind::Denied, usize::MAX);
    candidate.campaign().await.unwrap_err();
    is_idle(&candidate).await;
    assert_eq!(*asked.borrow(), 1);
}
