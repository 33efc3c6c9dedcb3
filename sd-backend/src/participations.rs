//! What an elector remembers of each of its participations, for as long as something of it may be at the server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sd_core::ElectionName;
use sd_core::port::{CandidateId, Ticket};
use sd_core::sync::lock;

/// One candidate in one election.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParticipationId {
    /// The election.
    pub election: ElectionName,
    /// The id of the ticket.
    pub candidate: CandidateId,
}

impl From<&Ticket> for ParticipationId {
    /// The participation that a ticket is for.
    fn from(ticket: &Ticket) -> Self {
        Self {
            election: ticket.name.clone(),
            candidate: ticket.id,
        }
    }
}

/// The participations of one elector. Of each, a `P` is remembered, from the first [`begin`](Self::begin) to its [`end`](Self::end), so
/// that attempts whose answers were lost are found again.
#[derive(Debug)]
pub struct Participations<P>(Mutex<BTreeMap<ParticipationId, Arc<P>>>);

impl<P> Participations<P> {
    /// What is remembered of a participation; `new` from now on, if nothing was.
    pub fn begin(&self, ticket: &Ticket, new: impl FnOnce() -> P) -> Arc<P> {
        let mut participations = lock(&self.0);
        let begun = participations.entry(ticket.into());
        Arc::clone(begun.or_insert_with(|| Arc::new(new())))
    }

    /// What is remembered of a participation.
    pub fn find(&self, ticket: &Ticket) -> Option<Arc<P>> {
        lock(&self.0).get(&ticket.into()).map(Arc::clone)
    }

    /// Forgets a participation of which nothing is at the server any more. Returns what was remembered.
    pub fn end(&self, ticket: &Ticket) -> Option<Arc<P>> {
        lock(&self.0).remove(&ticket.into())
    }

    /// Forgets all of them, and returns what was remembered.
    pub fn take_all(&self) -> impl Iterator<Item = Arc<P>> + use<P> {
        std::mem::take(&mut *lock(&self.0)).into_values()
    }
}

impl<P> Default for Participations<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_participation_is_remembered_from_its_first_attempt_to_its_end() {
        let ticket = |name| {
            let name = ElectionName::new(name).unwrap();
            Ticket::new(name, *b"v", Duration::from_secs(1))
        };
        let one = ticket("a");
        let other = ticket("b").with_id(one.id);
        let participations = Participations::default();
        let first = participations.begin(&one, || 1);
        assert_eq!(*participations.begin(&other, || 2), 2);
        assert!(Arc::ptr_eq(&first, &participations.begin(&one, || 3)));
        assert_eq!(participations.end(&one).as_deref(), Some(&1));
        assert_eq!(participations.find(&one), None);
        assert_eq!(participations.find(&other).as_deref(), Some(&2));
        assert!(participations.take_all().map(|number| *number).eq([2]));
        assert_eq!(participations.find(&other), None);
    }
}
