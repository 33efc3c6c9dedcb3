//! What an elector remembers of one participation, for as long as something of it may be at the server.

use std::sync::{Arc, Mutex};

use sd_backend::ParticipationId;
use sd_core::port::Ticket;
use sd_core::sync::lock;

use crate::election::keys::ElectionKeys;

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

impl Participation {
    /// The participation of a ticket, of which nothing is at the server yet.
    pub(crate) fn new(ticket: &Ticket, election_prefix: &str) -> Self {
        Self {
            id: ticket.into(),
            nonce: format!("{:016x}", fastrand::u64(..)),
            keys: ElectionKeys::new(election_prefix, &ticket.name),
            now: Mutex::new(Now {
                session: None,
                value: Arc::clone(&ticket.value),
            }),
        }
    }

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
