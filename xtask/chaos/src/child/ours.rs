//! A candidate of `sd-election`, used as a program would, and now and then otherwise.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use sd_core::{Events, Registry};
use sd_election::{Candidate, ElectionEvent, Leadership};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::Result;
use crate::backend::Backend;
use crate::child::belief::{Belief, Holds};
use crate::child::journal::Journal;
use crate::child::prober::{Prober, Register};
use crate::child::{Brief, Order};
use crate::history::{At, Election, Event};

/// How long the end of a term is waited for. It is announced at once; when it is not, the history shows it.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

/// One candidate with what it needs.
pub(super) struct Stand {
    candidate: Candidate,
    election: Election,
    teller: Teller,
    rng: Rng,
    register: Option<Register>,
}

/// Passes on what the candidate tells.
struct Teller {
    events: Events<ElectionEvent>,
    election: Election,
    journal: Journal,
    /// The token of the last term whose end was told.
    ended: Option<u64>,
}

/// How a term is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// By being taken away.
    Lose,
    Resign,
    Drop,
}

impl Stand {
    pub(super) fn new(
        brief: &Brief,
        registry: &Registry,
        election: Election,
        journal: &Journal,
    ) -> Result<Self> {
        let delay = match election {
            Election::Delayed => brief.ttl,
            Election::Plain | Election::Naive => Duration::ZERO,
        };
        let candidate = match brief.backend {
            Backend::Redis => Candidate::best_effort(registry, election.name()),
            Backend::Etcd | Backend::Consul | Backend::Zk => {
                Candidate::builder(registry, election.name())
            }
        };
        let candidate = candidate
            .value(&brief.name)
            .ttl(brief.ttl)
            .takeover_delay(delay)
            .build()?;
        Ok(Self {
            teller: Teller {
                events: candidate.events(),
                election,
                journal: journal.clone(),
                ended: None,
            },
            candidate,
            election,
            rng: Rng::with_seed(brief.seed ^ (election as u64 + 1)),
            register: Some(Register::connect(brief, election)?),
        })
    }

    /// Campaigns and leads until it is told to leave.
    pub(super) async fn run(mut self, mut orders: watch::Receiver<Order>) -> Result<()> {
        while *orders.borrow() != Order::Leave {
            self.teller.journal.tell(Event::Campaigning {
                election: self.election,
            });
            match self.campaign(&mut orders).await {
                None => self.teller.journal.tell(Event::Cancelled {
                    election: self.election,
                }),
                Some(Ok(leadership)) => self.lead(leadership, &mut orders).await?,
                Some(Err(error)) => self.teller.journal.tell(Event::Failed {
                    election: self.election,
                    error: error.report().to_string(),
                }),
            }
            let pause = Duration::from_millis(self.rng.u64(50..200));
            self.teller.during(sleep(pause)).await;
        }
        Ok(())
    }

    /// `None` if the campaign was dropped, which happens to one in eight.
    async fn campaign(
        &mut self,
        orders: &mut watch::Receiver<Order>,
    ) -> Option<sd_core::Result<Leadership>> {
        let drops = self.rng.u8(..8) == 0;
        let drop_at = Instant::now() + Duration::from_millis(self.rng.u64(0..4_000));
        let mut campaign = pin!(self.candidate.campaign());
        loop {
            let order = *orders.borrow_and_update();
            if order == Order::Leave {
                return None;
            }
            tokio::select! {
                () = self.teller.next() => {}
                won = &mut campaign => return Some(won),
                () = sleep_until(drop_at), if drops && order == Order::Wander => return None,
                changed = orders.changed() => if changed.is_err() { return None },
            }
        }
    }

    async fn lead(
        &mut self,
        leadership: Leadership,
        orders: &mut watch::Receiver<Order>,
    ) -> Result<()> {
        let election = self.election;
        let term = leadership.term();
        let token = term.token().value();
        // The clock before the question, as in `belief`.
        let at = At::now();
        let event = if term.is_leader() {
            Event::Elected {
                election,
                id: term.id().to_string(),
                token,
                domain: term.token().domain().to_owned(),
            }
        } else {
            Event::ElectedLate { election, token }
        };
        self.teller.journal.tell_at(at, event);
        let holds: Holds = {
            let term = term.clone();
            Arc::new(move || term.is_leader())
        };
        let belief = Belief::watch(
            self.teller.journal.clone(),
            election,
            token,
            Arc::clone(&holds),
        );
        let register = self.register.take().ok_or("two terms at once")?;
        let prober = Prober::start(register, term.token().clone(), holds);

        let plan = self.wait_for_end(&leadership, orders).await;
        // What only a leader may do ends before the leadership does.
        let mut register = prober.stop()?;
        match plan {
            Plan::Resign => {
                self.teller
                    .journal
                    .tell(Event::Resigning { election, token });
                if let Err(error) = self.teller.during(leadership.resign()).await {
                    tracing::info!(error = %error.report(), "resigned without an answer");
                }
                self.teller
                    .journal
                    .tell(Event::Resigned { election, token });
            }
            Plan::Drop => {
                self.teller
                    .journal
                    .tell(Event::Dropping { election, token });
                drop(leadership);
            }
            Plan::Lose => drop(leadership),
        }
        self.teller.end_of(token).await;
        self.teller
            .during(sleep(Duration::from_millis(self.rng.u64(0..1_000))))
            .await;
        belief.stop();
        // What a process does that does not know: the register has to refuse it as soon as the next leader has written.
        register.write(term.token(), true)?;
        self.register = Some(register);
        Ok(())
    }

    async fn wait_for_end(
        &mut self,
        leadership: &Leadership,
        orders: &mut watch::Receiver<Order>,
    ) -> Plan {
        let plan = match self.rng.u8(..8) {
            0..4 => Plan::Resign,
            4 => Plan::Drop,
            _ => Plan::Lose,
        };
        let act_at = Instant::now() + Duration::from_millis(self.rng.u64(200..6_000));
        loop {
            let order = *orders.borrow_and_update();
            if order == Order::Leave {
                return Plan::Resign;
            }
            let acts = plan != Plan::Lose && order == Order::Wander;
            tokio::select! {
                () = self.teller.next() => {}
                _ = leadership.lost() => return Plan::Lose,
                () = sleep_until(act_at), if acts => return plan,
                changed = orders.changed() => if changed.is_err() { return Plan::Resign },
            }
        }
    }
}

impl Teller {
    /// Tells the next event. Cancel-safe.
    async fn next(&mut self) {
        let Some(event) = self.events.next().await else {
            // The candidate is gone, and so are its events.
            return std::future::pending().await;
        };
        let election = self.election;
        let event = match event {
            ElectionEvent::Waiting { ahead, error } => Event::Waiting {
                election,
                ahead,
                error: error.map(|error| error.report().to_string()),
            },
            ElectionEvent::Taking => Event::Taking { election },
            ElectionEvent::AtRisk { token, .. } => Event::AtRisk {
                election,
                token: token.value(),
            },
            ElectionEvent::Recovered { token } => Event::Recovered {
                election,
                token: token.value(),
            },
            ElectionEvent::Ended { token, reason, .. } => {
                self.ended = Some(token.value());
                Event::Ended {
                    election,
                    token: token.value(),
                    reason: reason.as_str().to_owned(),
                }
            }
            ElectionEvent::Lost { reason } => Event::Lost {
                election,
                reason: reason.as_str().to_owned(),
            },
            // `Elected` is told when the campaign returns.
            _ => return,
        };
        self.journal.tell(event);
    }

    /// Tells events until `work` is done.
    async fn during<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                output = &mut work => return output,
                () = self.next() => {}
            }
        }
    }

    /// Tells events until the end of this term was among them.
    async fn end_of(&mut self, token: u64) {
        let told = async {
            while self.ended != Some(token) {
                self.next().await;
            }
        };
        // Without an end the history shows that there was none.
        let _ = timeout(ENDED_WITHIN, told).await;
    }
}
