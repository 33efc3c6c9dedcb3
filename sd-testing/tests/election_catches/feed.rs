//! A feed of who leads with one deliberate flaw.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use sd_core::port::{Leader, LeaderFeed, LeaderWatcher, async_trait};
use sd_core::{ElectionName, FencingToken, Result};
use tokio::task::yield_now;

use crate::elector::FlawedElector;
use crate::flawed::Flaw;

#[derive(Debug)]
pub(crate) struct FlawedFeed {
    elector: FlawedElector,
    name: ElectionName,
    inner: Box<dyn LeaderWatcher>,
    /// The leaders that were told, oldest first.
    leaders: Vec<Leader>,
    told_old_term: bool,
}

impl FlawedFeed {
    pub(crate) fn new(
        elector: FlawedElector,
        name: &ElectionName,
        inner: Box<dyn LeaderWatcher>,
    ) -> Self {
        Self {
            elector,
            name: name.clone(),
            inner,
            leaders: Vec::new(),
            told_old_term: false,
        }
    }

    /// Whether nothing is told of what is true.
    fn hides(&self, leader: Option<&Leader>) -> bool {
        match (self.elector.flaw, self.leaders.last()) {
            (Flaw::NeverTellsThatNoneLeads, Some(_)) | (Flaw::TellsNothingUntilAChange, None) => {
                leader.is_none()
            }
            (Flaw::ComparesLeadersOnly, Some(last)) => {
                leader.is_some_and(|leader| leader.id == last.id)
            }
            (Flaw::ComparesNothingAfterTheFirst, Some(_)) => true,
            _ => false,
        }
    }

    /// What is told of a true leader.
    fn disguise(&self, mut leader: Leader) -> Leader {
        match self.elector.flaw {
            Flaw::ReadsValuesAsText => {
                let text = String::from_utf8_lossy(&leader.value).into_owned();
                leader.value = Arc::from(text.into_bytes());
            }
            Flaw::TellsItsOwnTokens => {
                leader.token = FencingToken::new("flawed", self.leaders.len() as u64);
            }
            Flaw::TellsWhatAnyCandidateProclaims => {
                let proclaimed = self.elector.shared.proclaimed.lock().unwrap();
                if let Some(value) = proclaimed.get(&self.name) {
                    leader.value = Arc::clone(value);
                }
            }
            _ => {}
        }
        leader
    }
}

#[async_trait]
impl LeaderWatcher for FlawedFeed {
    async fn next(&mut self) -> Result<LeaderFeed> {
        if let [.., old, new] = self.leaders.as_slice()
            && self.elector.has(Flaw::TellsOldTermsAgain)
            && !self.told_old_term
            && old.token < new.token
        {
            self.told_old_term = true;
            return Ok(LeaderFeed::Leader {
                leader: Some(old.clone()),
                as_of: sd_core::clock::Clock::now(&sd_core::clock::TokioClock),
            });
        }
        loop {
            let told = self.inner.next().await?;
            let (leader, as_of) = match told {
                LeaderFeed::Leader { leader, as_of } => (leader, as_of),
                _ if self.elector.has(Flaw::NeverSaysThatItIsAlive) => return pending().await,
                alive => return Ok(alive),
            };
            if self.hides(leader.as_ref()) {
                continue;
            }
            let leader = leader.map(|leader| self.disguise(leader));
            self.leaders.extend(leader.clone());
            if self.elector.has(Flaw::LosesWhatADroppedCallTook) {
                yield_now().await;
            }
            return Ok(LeaderFeed::Leader { leader, as_of });
        }
    }

    fn silence_limit(&self) -> Duration {
        self.inner.silence_limit()
    }
}
