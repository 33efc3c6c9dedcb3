//! What one elector remembers of each of its participations, for as long as something of it may be at the server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sd_core::{CandidateId, ElectionName};

use crate::election::keys::ElectionKeys;

/// One candidate in one election.
pub(crate) type Participation = (ElectionName, CandidateId);

/// The participations of one elector.
#[derive(Debug, Default)]
pub(crate) struct Seats(Mutex<BTreeMap<Participation, Arc<Seat>>>);

/// One participation.
#[derive(Debug)]
pub(crate) struct Seat {
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

impl Seats {
    /// The seat of a participation, a new one if it has none.
    pub(crate) fn take(
        &self,
        owner: &Participation,
        keys: &ElectionKeys,
        value: &Arc<[u8]>,
    ) -> Arc<Seat> {
        let mut seats = lock(&self.0);
        let seat = seats.entry(owner.clone()).or_insert_with(|| {
            Arc::new(Seat {
                nonce: format!("{:016x}", fastrand::u64(..)),
                keys: keys.clone(),
                now: Mutex::new(Now {
                    session: None,
                    value: Arc::clone(value),
                }),
            })
        });
        Arc::clone(seat)
    }

    pub(crate) fn find(&self, owner: &Participation) -> Option<Arc<Seat>> {
        lock(&self.0).get(owner).map(Arc::clone)
    }

    /// Nothing of the participation is at the server any more.
    pub(crate) fn leave(&self, owner: &Participation) {
        if let Some(seat) = lock(&self.0).remove(owner) {
            seat.set_session(None);
        }
    }
}

impl Seat {
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

/// Each change under a lock is one step, so that a panic elsewhere cannot leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
