//! The ownership port of the embedded registry with one deliberate flaw.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::memory::Memory;
use sd_core::port::{
    CandidateId, Entry, Guarantee, LeaderWatcher, Limits, Safety, StrictElector, Ticket,
    async_trait,
};
use sd_core::{ElectionName, Elector, Error, ErrorKind, Result};
use tokio::time::sleep;

use crate::entry::FlawedEntry;
use crate::feed::FlawedFeed;
use crate::flawed::{Flaw, Kind, Shared, elector_of};

/// How late something arrives that arrives too late.
const LATE: Duration = Duration::from_millis(20);
/// How long a session lives without its client.
const SESSION: Duration = Duration::from_secs(10);
/// As long as the name of an election that the fixture makes up.
const CUT_AT: usize = "conformance/".len() + 16;

#[derive(Clone, Debug)]
pub(crate) struct FlawedElector {
    pub(crate) memory: Memory,
    pub(crate) inner: Arc<dyn Elector>,
    pub(crate) flaw: Flaw,
    pub(crate) shared: Arc<Shared>,
    pub(crate) kind: Kind,
    limits: Limits,
    own: Arc<Own>,
}

/// What the flaws of one client remember.
#[derive(Debug, Default)]
pub(crate) struct Own {
    joins: AtomicU64,
    left: Mutex<BTreeSet<CandidateId>>,
    /// What its session keeps, if there are sessions.
    kept: Mutex<Vec<Ticket>>,
}

impl Own {
    pub(crate) fn keeps(&self, ticket: &Ticket) -> bool {
        self.kept.lock().unwrap().contains(ticket)
    }

    pub(crate) fn end_session(&self, memory: &Memory) {
        for Ticket { name, id, .. } in self.kept.lock().unwrap().drain(..) {
            memory.operator().expire_entry(&name, id);
        }
    }
}

impl FlawedElector {
    pub(crate) fn new(
        memory: Memory,
        inner: Arc<dyn Elector>,
        flaw: Flaw,
        shared: Arc<Shared>,
        kind: Kind,
    ) -> Self {
        let own = Arc::<Own>::default();
        shared.clients.lock().unwrap().push(Arc::clone(&own));
        let mut limits = inner.limits().clone();
        if kind == Kind::OnSessions {
            limits.ttl = *limits.ttl.start()..=SESSION;
        }
        Self {
            memory,
            inner,
            flaw,
            shared,
            kind,
            limits,
            own,
        }
    }

    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    /// The ticket as it is handed on.
    fn mend(&self, ticket: &Ticket) -> Ticket {
        let limits = self.inner.limits();
        let mut ticket = ticket.clone();
        if self.kind == Kind::OnSessions && self.limits.ttl.contains(&ticket.ttl) {
            ticket.ttl = *limits.ttl.end();
        }
        match self.flaw {
            Flaw::JoinsAnewEachTime => ticket.id = CandidateId::random(),
            Flaw::EntersAnything => {
                ticket.ttl = ticket.ttl.clamp(*limits.ttl.start(), *limits.ttl.end());
                if ticket.check(limits).is_err() {
                    ticket.value = Arc::from(*b"?");
                }
            }
            Flaw::CutsNames => {
                let name = ticket.name.as_str();
                ticket.name = ElectionName::new(&name[..CUT_AT]).unwrap();
            }
            Flaw::GrantsMoreThanItSays => ticket.ttl *= 100,
            Flaw::GrantsLessThanItSays => ticket.ttl /= 2,
            Flaw::RecordsUnasked => ticket.records_term = true,
            _ => {}
        }
        ticket
    }

    /// The token that a flaw gives to the next join.
    fn count(&self, name: &ElectionName) -> u64 {
        match self.flaw {
            Flaw::CountsTokensPerClient => self.own.joins.fetch_add(1, Ordering::Relaxed),
            Flaw::CountsTokensAnewWhenEmpty => {
                let mut joins = self.shared.joins_since_empty.lock().unwrap();
                let joins = joins.entry(name.clone()).or_default();
                if self.memory.operator().entries(name).is_empty() {
                    *joins = 0;
                }
                *joins += 1;
                *joins
            }
            _ => self.shared.joins.fetch_add(1, Ordering::Relaxed),
        }
    }

    async fn enter(&self, ticket: &Ticket) -> Result<Box<dyn Entry>> {
        let joined = self.inner.join(ticket).await;
        match joined {
            Err(error) if error.kind() == ErrorKind::Closed && self.has(Flaw::JoinsWhenClosed) => {
                elector_of(self.memory.backend()).join(ticket).await
            }
            joined => joined,
        }
    }
}

#[async_trait]
impl Elector for FlawedElector {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn safety(&self) -> Result<Safety> {
        let mut safety = self.inner.safety().await?;
        if self.has(Flaw::PromisesWhatItsTypeDoesNot) || self.kind == Kind::BestEffort {
            safety.guarantee = Guarantee::BestEffort;
        }
        Ok(safety)
    }

    async fn join(&self, ticket: &Ticket) -> Result<Box<dyn Entry>> {
        let handed_on = self.mend(ticket);
        if self.kind == Kind::OnSessions {
            ticket.check(&self.limits)?;
        }
        let came_back = self.own.left.lock().unwrap().contains(&ticket.id);
        if self.has(Flaw::RejoinsInPlaceOfOthers) && came_back {
            for id in self.memory.operator().entries(&ticket.name) {
                self.memory.operator().remove_entry(&ticket.name, id);
            }
        }
        if self.has(Flaw::JoinsOnWhenDropped) {
            let (elector, late) = (self.clone(), handed_on.clone());
            let joining = async move {
                sleep(LATE).await;
                elector.enter(&late).await.map(drop)
            };
            tokio::spawn(joining).await.unwrap()?;
        }
        let token = self.count(&ticket.name);
        let ahead = self.memory.operator().entries(&ticket.name).last().copied();
        let inner = self.enter(&handed_on).await?;
        self.own.kept.lock().unwrap().push(ticket.clone());
        Ok(Box::new(FlawedEntry::new(
            self.clone(),
            inner,
            ticket,
            token,
            ahead,
        )))
    }

    async fn leave(&self, ticket: &Ticket) -> Result<()> {
        let ticket = &match self.flaw {
            // A random id would leave no entry.
            Flaw::JoinsAnewEachTime => ticket.clone(),
            Flaw::RecordsEveryEnd => ticket.clone().with_term_record(),
            _ => self.mend(ticket),
        };
        self.own.left.lock().unwrap().insert(ticket.id);
        let entries = self.memory.operator().entries(&ticket.name);
        let absent = !entries.contains(&ticket.id);
        match (self.flaw, entries.first()) {
            (Flaw::IgnoresLeaving, _) => return Ok(()),
            (Flaw::LeavesForAnyHolderOfTheId | Flaw::RecordsNoResignation, _) => {
                self.memory.operator().remove_entry(&ticket.name, ticket.id);
            }
            (Flaw::LeavesForTheLeader, Some(leader)) => {
                self.memory.operator().remove_entry(&ticket.name, *leader);
            }
            (Flaw::FailsToLeaveWhatIsAbsent, _) if absent => {
                return Err(Error::new(ErrorKind::NotFound, "leave election"));
            }
            _ => {}
        }
        self.inner.leave(ticket).await
    }

    async fn observe(&self, name: &ElectionName) -> Result<Box<dyn LeaderWatcher>> {
        let inner = self.inner.observe(name).await?;
        Ok(Box::new(FlawedFeed::new(self.clone(), name, inner)))
    }
}

impl StrictElector for FlawedElector {}
