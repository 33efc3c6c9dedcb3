//! What one elector remembers of each of its participations, for as long as something of it may be at the server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sd_core::ElectionName;
use sd_core::port::{CandidateId, Ticket};
use sd_core::sync::lock;

use crate::election::keys::ElectionKeys;

/// One candidate in one election.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ParticipationId {
    election: ElectionName,
    pub(crate) candidate: CandidateId,
}

impl ParticipationId {
    /// The participation that a ticket is for.
    pub(crate) fn of(ticket: &Ticket) -> Self {
        Self {
            election: ticket.name.clone(),
            candidate: ticket.id,
        }
    }
}

/// The participations of one elector.
#[derive(Debug, Default)]
pub(crate) struct Participations(Mutex<BTreeMap<ParticipationId, Arc<Participation>>>);

/// One participation.
#[derive(Debug)]
pub(crate) struct Participation {
    pub(crate) id: ParticipationId,
    /// In the names of its sessions. The server chooses their ids, so this is how one is found whose making was not answered.
    pub(crate) nonce: String,
    pub(crate) keys: ElectionKeys,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    session: Option<String>,
    value: Arc<[u8]>,
}

impl Participations {
    /// What is remembered of a participation; from now on, if nothing was.
    pub(crate) fn begin(&self, ticket: &Ticket, election_prefix: &str) -> Arc<Participation> {
        let id = ParticipationId::of(ticket);
        let mut participations = lock(&self.0);
        let participation = participations.entry(id.clone()).or_insert_with(|| {
            Arc::new(Participation {
                id,
                nonce: format!("{:016x}", fastrand::u64(..)),
                keys: ElectionKeys::new(election_prefix, &ticket.name),
                now: Mutex::new(Now {
                    session: None,
                    value: Arc::clone(&ticket.value),
                }),
            })
        });
        Arc::clone(participation)
    }

    pub(crate) fn find(&self, ticket: &Ticket) -> Option<Arc<Participation>> {
        lock(&self.0)
            .get(&ParticipationId::of(ticket))
            .map(Arc::clone)
    }

    /// Forgets a participation of which nothing is at the server any more.
    pub(crate) fn end(&self, id: &ParticipationId) {
        if let Some(participation) = lock(&self.0).remove(id) {
            participation.set_session(None);
        }
    }
}

impl Participation {
    /// The session that was made last, unless it is known to be gone.
    pub(crate) fn session(&self) -> Option<String> {
        lock(&self.now).session.clone()
    }

    pub(crate) fn set_session(&self, session: Option<String>) {
        lock(&self.now).session = session;
    }

    /// What observers are to be told.
    pub(crate) fn value(&self) -> Arc<[u8]> {
        Arc::clone(&lock(&self.now).value)
    }

    pub(crate) fn set_value(&self, value: &[u8]) {
        lock(&self.now).value = value.into();
    }
}
