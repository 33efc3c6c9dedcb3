//! What one elector remembers of each of its participations, for as long as something of it may be at the server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sd_core::ElectionName;
use sd_core::port::{CandidateId, Ticket};
use sd_core::sync::lock;

use crate::client::session::Session;
use crate::config::ZkConfig;
use crate::election::candidate_sessions::CandidateSession;
use crate::election::keys::ElectionKeys;

/// The participations of one elector.
#[derive(Debug, Default)]
pub(crate) struct Participations(Mutex<BTreeMap<(ElectionName, CandidateId), Arc<Participation>>>);

/// One candidate in one election.
#[derive(Debug)]
pub(crate) struct Participation {
    pub(crate) keys: ElectionKeys,
    /// What the names of its nodes begin with. No other participation has nodes that do.
    pub(crate) node_prefix: String,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    /// Where its node was asked for last.
    session: Option<Arc<CandidateSession>>,
    /// Its last node that was seen.
    node: Option<String>,
    /// Whether nothing was asked for since it was seen, so that there is no other one.
    is_settled: bool,
    has_proclaimed: bool,
}

impl Participations {
    /// What is remembered of a participation; from now on, if nothing was.
    pub(crate) fn begin(&self, ticket: &Ticket, config: &ZkConfig) -> Arc<Participation> {
        let mut participations = lock(&self.0);
        let participation = participations
            .entry((ticket.name.clone(), ticket.id))
            .or_insert_with(|| {
                let keys = ElectionKeys::new(config, &ticket.name);
                Arc::new(Participation {
                    node_prefix: keys.node_prefix(ticket.id, fastrand::u32(..)),
                    keys,
                    now: Mutex::default(),
                })
            });
        Arc::clone(participation)
    }

    pub(crate) fn find(&self, ticket: &Ticket) -> Option<Arc<Participation>> {
        let participations = lock(&self.0);
        let participation = participations.get(&(ticket.name.clone(), ticket.id));
        participation.map(Arc::clone)
    }

    /// Forgets all, and returns them.
    pub(crate) fn take_all(&self) -> impl Iterator<Item = Arc<Participation>> + use<> {
        std::mem::take(&mut *lock(&self.0)).into_values()
    }

    /// Forgets a participation of which nothing is at the server any more.
    pub(crate) fn end(&self, ticket: &Ticket) {
        lock(&self.0).remove(&(ticket.name.clone(), ticket.id));
    }
}

impl Participation {
    /// Notes that a node may come into being in this session. Returns whether one may have before.
    pub(crate) fn asks_in(&self, session: &Arc<CandidateSession>) -> bool {
        let mut now = lock(&self.now);
        now.is_settled = false;
        now.session.replace(Arc::clone(session)).is_some()
    }

    /// Where its node was asked for last. `None` if it never was.
    pub(crate) fn session(&self) -> Option<Arc<CandidateSession>> {
        lock(&self.now).session.clone()
    }

    /// Whether its last node that was seen is in this session, and there is no other one.
    pub(crate) fn is_settled_in(&self, session: &Session) -> bool {
        let now = lock(&self.now);
        let is_same = |other: &Arc<CandidateSession>| other.session.id() == session.id();
        now.is_settled && now.session.as_ref().is_some_and(is_same)
    }

    pub(crate) fn set_node(&self, node: &str) {
        let mut now = lock(&self.now);
        now.node = Some(node.to_owned());
        now.is_settled = true;
    }

    pub(crate) fn node(&self) -> Option<String> {
        lock(&self.now).node.clone()
    }

    pub(crate) fn proclaims(&self) {
        lock(&self.now).has_proclaimed = true;
    }

    pub(crate) fn has_proclaimed(&self) -> bool {
        lock(&self.now).has_proclaimed
    }
}
