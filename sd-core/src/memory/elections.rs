//! The elections of an embedded registry, behind one lock: for each name a queue of candidates, in the order in which they
//! joined.
//!
//! A candidate's token is the number of its join, counted over all elections and never reset. Each leader joined before all
//! later leaders of its election, so each term has a greater token than the terms before it.
//!
//! No task runs here. The next call notices a lease that has ended. A waiting candidate calls when its own lease, or the lease
//! of the candidate ahead, may have ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Result};
use crate::model::name::ElectionName;
use crate::model::token::FencingToken;
use crate::port::elector::{CandidateId, Leader, Predecessor, Ticket};
use crate::sync::lock;

/// How many recorded terms are kept. Beyond that, the oldest terms of elections without candidates and observers are forgotten.
const TERMS_KEPT: usize = 1024;

#[derive(Debug)]
pub(super) struct Elections {
    domain: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    electors: u64,
    /// How many candidates have joined so far, which is also the newest token.
    joins: u64,
    elections: BTreeMap<ElectionName, Election>,
    terms: BTreeMap<ElectionName, Term>,
}

#[derive(Debug, Default)]
struct Election {
    /// By token.
    queue: BTreeMap<u64, Participant>,
    /// Signals a new leader, or a new value of the leader.
    leadership: watch::Sender<()>,
}

#[derive(Debug)]
struct Participant {
    id: CandidateId,
    elector: ElectorNumber,
    value: Arc<[u8]>,
    ttl: Duration,
    expires: Moment,
    records_term: bool,
    /// How the previous term had ended when this candidate was first found to lead.
    before: Option<Predecessor>,
    /// Signals that the candidate may have moved to the front. The last signal says why it is gone.
    news: watch::Sender<Option<End>>,
}

/// The newest recorded term of an election.
#[derive(Debug)]
struct Term {
    token: u64,
    ttl: Duration,
    resigned: bool,
}

/// Tells the electors of a [`Memory`](super::Memory) apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ElectorNumber(u64);

/// Why an entry is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Left,
    Removed,
    Expired,
}

impl End {
    pub(super) fn error(self, op: &'static str) -> Error {
        match self {
            Self::Left => Error::new(ErrorKind::NotFound, op)
                .because("the candidate has left the election: join again to take part"),
            Self::Removed => Error::new(ErrorKind::NotFound, op)
                .because("an operator removed the candidate's entry"),
            Self::Expired => Error::new(ErrorKind::LeaseLost, op)
                .because("the entry was not confirmed within its time-to-live"),
        }
    }
}

/// A new entry: its token, and the channel that reports on it.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) token: u64,
    pub(super) news: watch::Receiver<Option<End>>,
}

/// Where an existing entry stands, and when that may change by itself.
#[derive(Debug)]
pub(super) struct Place {
    /// How the previous term ended, if the entry leads.
    pub(super) leads: Option<Predecessor>,
    pub(super) look_again: Moment,
}

impl Election {
    /// Ends entries. Signals the ended ones, the candidates that are now behind another one, and the observers.
    fn end(&mut self, end: impl Fn(u64, &Participant) -> Option<End>) {
        let leader = self.leader();
        let mut gap = false;
        self.queue.retain(|token, participant| {
            let ended = end(*token, participant);
            if ended.is_some() || gap {
                participant.news.send_replace(ended);
            }
            gap = ended.is_some();
            ended.is_none()
        });
        if self.leader() != leader {
            self.leadership.send_replace(());
        }
    }

    fn expire(&mut self, now: Moment) {
        self.end(|_, participant| (participant.expires <= now).then_some(End::Expired));
    }

    fn leader(&self) -> Option<u64> {
        self.queue.first_key_value().map(|(token, _)| *token)
    }

    fn find(&self, id: CandidateId) -> Option<(u64, &Participant)> {
        let mut participants = self.queue.iter();
        let found = participants.find(|(_, participant)| participant.id == id);
        found.map(|(token, participant)| (*token, participant))
    }
}

impl State {
    /// The election, without entries whose leases have ended. `None` if it has no candidates and no observers.
    fn at(&mut self, name: &ElectionName, now: Moment) -> Option<&mut Election> {
        self.elections.get_mut(name)?.expire(now);
        self.tidy(name);
        self.elections.get_mut(name)
    }

    /// Forgets an election that is not in use.
    fn tidy(&mut self, name: &ElectionName) {
        let idle = |e: &Election| e.queue.is_empty() && e.leadership.receiver_count() == 0;
        if self.elections.get(name).is_some_and(idle) {
            self.elections.remove(name);
            self.forget_a_term();
        }
    }

    /// Begins the term of an entry that leads, and returns how the previous term ended.
    fn begin_term(&mut self, name: &ElectionName, token: u64) -> Option<Predecessor> {
        let own = self.elections.get_mut(name)?.queue.get_mut(&token)?;
        let before = if own.records_term {
            let before = match self.terms.get(name) {
                None => Predecessor::None,
                Some(term) if term.resigned => Predecessor::Resigned,
                Some(term) => Predecessor::Unknown { ttl: term.ttl },
            };
            let term = Term {
                token,
                ttl: before.recorded_ttl(own.ttl),
                resigned: false,
            };
            self.terms.insert(name.clone(), term);
            before
        } else {
            // The record of an older term says nothing about the term before the next one.
            self.terms.remove(name);
            Predecessor::None
        };
        own.before = Some(before);
        Some(before)
    }

    /// Makes room after an election whose term is kept was forgotten.
    fn forget_a_term(&mut self) {
        if self.terms.len() <= TERMS_KEPT {
            return;
        }
        let terms = self.terms.iter();
        let oldest = terms
            .filter(|(name, _)| !self.elections.contains_key(*name))
            .min_by_key(|(_, term)| term.token)
            .map(|(name, _)| name.clone());
        if let Some(name) = oldest {
            self.terms.remove(&name);
        }
    }
}

impl Elections {
    pub(super) fn new(domain: Arc<str>) -> Self {
        Self {
            domain,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic can come only after a change is complete.
        lock(&self.state)
    }

    pub(super) fn token(&self, value: u64) -> FencingToken {
        FencingToken::new(Arc::clone(&self.domain), value)
    }

    pub(super) fn new_elector(&self) -> ElectorNumber {
        let mut state = self.lock();
        state.electors += 1;
        ElectorNumber(state.electors)
    }

    /// Joins at the end of the queue, or finds the entry that this elector already made for the ticket.
    pub(super) fn join(
        &self,
        elector: ElectorNumber,
        ticket: &Ticket,
        now: Moment,
    ) -> Result<Joined> {
        let mut state = self.lock();
        let token = state.joins + 1;
        state.at(&ticket.name, now);
        let election = state.elections.entry(ticket.name.clone()).or_default();
        if let Some((token, held)) = election.find(ticket.id) {
            if held.elector != elector {
                return Err(Error::new(ErrorKind::Conflict, "memory: join election").because(
                    format!(
                        "another client takes part in {:?} with the candidate id {}: use a new id for each participation",
                        ticket.name, ticket.id
                    ),
                ));
            }
            let news = held.news.subscribe();
            return Ok(Joined { token, news });
        }
        let (news, joined) = watch::channel(None);
        let participant = Participant {
            id: ticket.id,
            elector,
            value: Arc::clone(&ticket.value),
            ttl: ticket.ttl,
            expires: now + ticket.ttl,
            records_term: ticket.records_term,
            before: None,
            news,
        };
        election.queue.insert(token, participant);
        if election.queue.len() == 1 {
            election.leadership.send_replace(());
        }
        state.joins = token;
        Ok(Joined {
            token,
            news: joined,
        })
    }

    /// Where the entry stands. `None` if it is gone. A candidate that is first found to lead here begins its term.
    pub(super) fn place(&self, name: &ElectionName, token: u64, now: Moment) -> Option<Place> {
        let mut state = self.lock();
        let queue = &state.at(name, now)?.queue;
        let own = queue.get(&token)?;
        if let Some((_, ahead)) = queue.range(..token).next_back() {
            return Some(Place {
                leads: None,
                look_again: own.expires.min(ahead.expires),
            });
        }
        let look_again = own.expires;
        let leads = match own.before {
            Some(before) => before,
            None => state.begin_term(name, token)?,
        };
        Some(Place {
            leads: Some(leads),
            look_again,
        })
    }

    /// Extends the entry's lease from `now` on; `None` if it is gone.
    pub(super) fn confirm(&self, name: &ElectionName, token: u64, now: Moment) -> Option<Duration> {
        let mut state = self.lock();
        let own = state.at(name, now)?.queue.get_mut(&token)?;
        own.expires = own.expires.max(now + own.ttl);
        Some(own.ttl)
    }

    /// Replaces the entry's value; `None` if it is gone.
    pub(super) fn proclaim(
        &self,
        name: &ElectionName,
        token: u64,
        value: &[u8],
        now: Moment,
    ) -> Option<()> {
        let mut state = self.lock();
        let election = state.at(name, now)?;
        election.queue.get_mut(&token)?.value = value.into();
        if election.leader() == Some(token) {
            election.leadership.send_replace(());
        }
        Some(())
    }

    /// Removes the entry that this elector made for the ticket, on purpose.
    pub(super) fn leave(&self, elector: ElectorNumber, ticket: &Ticket, now: Moment) {
        let mut state = self.lock();
        let Some(election) = state.at(&ticket.name, now) else {
            return;
        };
        let Some((own, _)) = election
            .find(ticket.id)
            .filter(|(_, held)| held.elector == elector)
        else {
            return;
        };
        election.end(|token, _| (token == own).then_some(End::Left));
        let recorded = state.terms.get_mut(&ticket.name);
        if let Some(term) = recorded.filter(|term| ticket.records_term && term.token == own) {
            term.resigned = true;
        }
        state.tidy(&ticket.name);
    }

    /// Ends an entry without its owner. Returns whether it was there.
    pub(super) fn end(&self, name: &ElectionName, id: CandidateId, end: End, now: Moment) -> bool {
        let mut state = self.lock();
        let Some(election) = state.at(name, now) else {
            return false;
        };
        let found = election.find(id).is_some();
        election.end(|_, participant| (participant.id == id).then_some(end));
        state.tidy(name);
        found
    }

    /// The candidates, first to last.
    pub(super) fn entries(&self, name: &ElectionName, now: Moment) -> Vec<CandidateId> {
        let mut state = self.lock();
        let queue = state.at(name, now).map(|election| &election.queue);
        queue
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|participant| participant.id)
            .collect()
    }

    /// Gives every lease that has not ended its full time-to-live again.
    pub(super) fn restart_leases(&self, now: Moment) {
        let mut state = self.lock();
        for election in state.elections.values_mut() {
            election.expire(now);
            for participant in election.queue.values_mut() {
                participant.expires = now + participant.ttl;
            }
        }
    }

    /// The leader, and when its lease ends.
    pub(super) fn leader(&self, name: &ElectionName, now: Moment) -> Option<(Leader, Moment)> {
        let mut state = self.lock();
        let (token, leading) = state.at(name, now)?.queue.first_key_value()?;
        let leader = Leader {
            id: Some(leading.id),
            value: Arc::clone(&leading.value),
            token: self.token(*token),
        };
        Some((leader, leading.expires))
    }

    /// Signals each change of the leader or its value. Give it back with [`forget`](Self::forget).
    pub(super) fn leadership(&self, name: &ElectionName) -> watch::Receiver<()> {
        let mut state = self.lock();
        let election = state.elections.entry(name.clone()).or_default();
        election.leadership.subscribe()
    }

    /// Call this after an observer has gone.
    pub(super) fn forget(&self, name: &ElectionName) {
        self.lock().tidy(name);
    }

    /// How many elections, and how many terms, are held in memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        let state = self.lock();
        (state.elections.len(), state.terms.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::ZERO;

    fn ticket(name: &str) -> Ticket {
        let name = ElectionName::new(name).unwrap();
        Ticket::new(name, *b"v", Duration::from_secs(1)).with_term_record()
    }

    #[test]
    fn the_oldest_terms_are_forgotten_but_not_those_of_elections_that_go_on() {
        let elections = Elections::new("test".into());
        let elector = elections.new_elector();
        let lead = |ticket: &Ticket| {
            let Joined { token, .. } = elections.join(elector, ticket, NOW).unwrap();
            elections.place(&ticket.name, token, NOW).unwrap().leads
        };
        let goes_on = ticket("goes-on");
        lead(&goes_on);
        elections.join(elector, &ticket("goes-on"), NOW).unwrap();
        for number in 0..2 * TERMS_KEPT {
            let over = ticket(&format!("over-{number}"));
            lead(&over);
            elections.leave(elector, &over, NOW);
        }
        assert_eq!(elections.held(), (1, TERMS_KEPT));
        assert_eq!(lead(&ticket("over-0")), Some(Predecessor::None));
        let newest = ticket(&format!("over-{}", 2 * TERMS_KEPT - 1));
        assert_eq!(lead(&newest), Some(Predecessor::Resigned));
        elections.leave(elector, &goes_on, NOW);
        let waiting = elections.entries(&goes_on.name, NOW);
        assert_eq!(waiting.len(), 1);
        let next = ticket("goes-on").with_id(waiting[0]);
        assert_eq!(lead(&next), Some(Predecessor::Resigned));
    }
}
