//! One candidate's entry with one deliberate flaw.

use std::future::pending;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sd_core::port::{
    CandidateId, Confirmation, CountsFrom, Elector, Entry, Predecessor, Standing, Ticket,
    async_trait,
};
use sd_core::{FencingToken, Result};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::elector::FlawedElector;
use crate::flawed::{Flaw, Kind};

/// How often those with rules of their own look who leads.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How soon something is done again without being asked for.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct FlawedEntry {
    elector: FlawedElector,
    inner: Box<dyn Entry>,
    ticket: Ticket,
    token: u64,
    /// Who was last in the queue before this one.
    ahead: Option<CandidateId>,
    told: Mutex<Option<Standing>>,
    found_first: AtomicUsize,
}

impl FlawedEntry {
    pub(crate) fn new(
        elector: FlawedElector,
        inner: Box<dyn Entry>,
        ticket: &Ticket,
        token: u64,
        ahead: Option<CandidateId>,
    ) -> Self {
        Self {
            elector,
            inner,
            ticket: ticket.clone(),
            token,
            ahead,
            told: Mutex::default(),
            found_first: AtomicUsize::new(0),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.elector.has(flaw)
    }

    fn entries(&self) -> Vec<CandidateId> {
        self.elector.memory.operator().entries(&self.ticket.name)
    }

    /// Whether it leads by the flaw's own rule; `None` if the flaw has none.
    fn leads(&self) -> Option<bool> {
        match self.elector.flaw {
            Flaw::ElectsEverybody => Some(true),
            Flaw::HandsOverToTheNewest => {
                let entries = self.entries();
                let mut holders = self.elector.shared.holders.lock().unwrap();
                let holder = holders.entry(self.ticket.name.clone());
                let holder = holder.or_insert(self.ticket.id);
                if !entries.contains(holder) {
                    *holder = *entries.last()?;
                }
                Some(*holder == self.ticket.id)
            }
            Flaw::TakesAnyChangeForTheEnd => {
                let entries = self.entries();
                Some(self.ahead.is_none_or(|ahead| !entries.contains(&ahead)))
            }
            _ => None,
        }
    }

    /// Where it stands by the flaw's own rule, as soon as that differs from `seen`.
    async fn stand_by_own_rule(&self, seen: Option<&Standing>) -> Standing {
        loop {
            let standing = if self.leads().unwrap_or(false) {
                Standing::First {
                    token: FencingToken::new("flawed", self.token),
                    before: Predecessor::None,
                }
            } else {
                Standing::Waiting { ahead: None }
            };
            if seen.is_none_or(|seen| !seen.is_same(&standing)) {
                return standing;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// What is told of a true standing.
    fn disguise(&self, standing: Standing) -> Standing {
        let Standing::First { token, before } = standing else {
            return standing;
        };
        let found_before = self.found_first.fetch_add(1, Ordering::Relaxed) > 0;
        let ttl = self.ticket.ttl;
        Standing::First {
            token: match self.elector.flaw {
                Flaw::CountsTokensPerClient | Flaw::CountsTokensAnewWhenEmpty => {
                    FencingToken::new("flawed", self.token)
                }
                _ => token,
            },
            before: match (self.elector.flaw, before) {
                (Flaw::MakesUpATerm, Predecessor::None)
                | (Flaw::RecordsOnlyResignations, Predecessor::Unknown { .. }) => {
                    Predecessor::Resigned
                }
                (Flaw::TellsTheShorterTtl, Predecessor::Unknown { ttl: before }) => {
                    Predecessor::Unknown {
                        ttl: before.min(ttl),
                    }
                }
                (Flaw::ForgetsWhatItFound, _) if found_before => Predecessor::Unknown { ttl },
                (_, Predecessor::Unknown { .. }) if self.elector.kind == Kind::OnSessions => {
                    Predecessor::Unknown {
                        ttl: self.reported_ttl(),
                    }
                }
                (_, before) => before,
            },
        }
    }

    fn reported_ttl(&self) -> Duration {
        if self.has(Flaw::ReportsLessThanWasAskedFor) {
            self.ticket.ttl / 2
        } else if self.elector.kind == Kind::OnSessions {
            // Its session's, whatever was asked for.
            *self.elector.limits().ttl.end()
        } else {
            self.ticket.ttl
        }
    }
}

#[async_trait]
impl Entry for FlawedEntry {
    async fn standing(&self, seen: Option<&Standing>) -> Result<Standing> {
        if self.leads().is_some() {
            return Ok(self.stand_by_own_rule(seen).await);
        }
        match (self.elector.flaw, seen) {
            (Flaw::StaysSilentUntilAChange, None) => {
                let now = self.inner.standing(None).await?;
                return self.inner.standing(Some(&now)).await;
            }
            (Flaw::NeverTellsOfAChange, Some(_))
            | (Flaw::LooksNoMoreOnceItLeads, Some(Standing::First { .. })) => {
                return pending().await;
            }
            (Flaw::TellsAgain, Some(seen)) => {
                return match timeout(AGAIN_AFTER, self.inner.standing(Some(seen))).await {
                    Ok(told) => told,
                    Err(_) => Ok(seen.clone()),
                };
            }
            (Flaw::ConfirmsWhileItStands, Some(seen)) => loop {
                let waiting = timeout(AGAIN_AFTER, self.inner.standing(Some(seen))).await;
                match waiting {
                    Ok(told) => return told,
                    Err(_) => self.inner.confirm().await?,
                };
            },
            (Flaw::LosesWhatADroppedQuestionTook, Some(_)) => {
                let last = self.told.lock().unwrap().clone();
                let told = self.inner.standing(last.as_ref()).await?;
                *self.told.lock().unwrap() = Some(told.clone());
                yield_now().await;
                return Ok(told);
            }
            _ => {}
        }
        let seen_by_inner = match seen {
            // Its own tokens mean nothing to the store.
            Some(Standing::First { .. }) => self.told.lock().unwrap().clone(),
            seen => seen.cloned(),
        };
        let told = self.inner.standing(seen_by_inner.as_ref()).await?;
        *self.told.lock().unwrap() = Some(told.clone());
        if let (Flaw::WatchesOnlyTheOneBefore, Some(Standing::Waiting { .. }), Standing::Gone(_)) =
            (self.elector.flaw, seen, &told)
        {
            return pending().await;
        }
        Ok(self.disguise(told))
    }

    async fn confirm(&self) -> Result<Confirmation> {
        let confirmed = Confirmation::new(self.reported_ttl(), CountsFrom::ThisSend);
        if self.has(Flaw::ConfirmsNothing) {
            return Ok(confirmed);
        }
        match self.inner.confirm().await {
            Err(_) if self.has(Flaw::ConfirmsWithoutLooking) => Ok(confirmed),
            Err(_) if self.has(Flaw::ConfirmsByJoiningAgain) => {
                let entry = self.elector.inner.join(&self.ticket).await?;
                entry.confirm().await
            }
            Err(error) => Err(error),
            Ok(_) => Ok(confirmed),
        }
    }

    async fn proclaim(&self, value: &[u8]) -> Result<()> {
        match self.elector.flaw {
            Flaw::ProclaimsNothing => return Ok(()),
            Flaw::EntersAnything if value.is_empty() => return Ok(()),
            _ => {}
        }
        let proclaimed = self.inner.proclaim(value).await;
        if proclaimed.is_ok() {
            let mut all = self.elector.shared.proclaimed.lock().unwrap();
            all.insert(self.ticket.name.clone(), value.into());
        }
        match proclaimed {
            Err(_) if self.has(Flaw::ProclaimsWithoutLooking) => Ok(()),
            proclaimed => proclaimed,
        }
    }
}

impl Drop for FlawedEntry {
    fn drop(&mut self) {
        if self.has(Flaw::LeavesWhenDropped) {
            let Ticket { name, id, .. } = &self.ticket;
            self.elector.memory.operator().remove_entry(name, *id);
        }
    }
}
