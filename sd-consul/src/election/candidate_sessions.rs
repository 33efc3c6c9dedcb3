//! The sessions of one participation: found or made, and ended.
//!
//! The server chooses the ids of sessions. So that a session is found again though the answer to its making was lost, its name holds
//! the id of the ticket, and a nonce that tells it from the session of another client with that id.

use std::time::Duration;

use sd_core::port::Ticket;
use sd_core::{Error, ErrorKind, Result};
use tokio::time::sleep;

use crate::client::Client;
use crate::election::participation::Participation;
use crate::election::term_record;

/// The servers write one thing after the other: first that the next leader has the lock, then that our session has ended.
const GIVE_WAY: Duration = Duration::from_millis(5);

/// What is done to the sessions of one participation.
pub(crate) struct CandidateSessions<'a> {
    pub(crate) client: &'a Client,
    pub(crate) op: &'static str,
    pub(crate) ticket: &'a Ticket,
    pub(crate) participation: &'a Participation,
}

impl CandidateSessions<'_> {
    /// The participation's session, freshly renewed, or a new one.
    pub(crate) async fn acquire(&self) -> Result<String> {
        if let Some(session) = self.participation.session() {
            match self.client.renew_session(self.op, &session).await {
                Ok(()) => return Ok(session),
                // So that a call that leaves looks for the one that is made now.
                Err(error) if error.kind() == ErrorKind::LeaseLost => {
                    self.participation.set_session(None);
                }
                Err(error) => return Err(error),
            }
        }
        let (ours, others) = self.find().await?;
        if others {
            return Err(Error::new(ErrorKind::Conflict, self.op).because(format!(
                "another candidate in {} has the id {}: give each candidate an id of its own",
                self.ticket.name, self.ticket.id
            )));
        }
        let session = if let Some(session) = ours.into_iter().next() {
            session
        } else {
            let (name, ttl) = (self.name(), self.ticket.ttl);
            self.client.create_session(self.op, &name, ttl).await?
        };
        self.participation.set_session(Some(session.clone()));
        Ok(session)
    }

    /// Gives up the lead if it is held, so that no lock-delay applies, and ends all sessions.
    pub(crate) async fn end(&self) -> Result<()> {
        let sessions = match self.participation.session() {
            Some(session) => vec![session],
            None => self.find().await?.0,
        };
        for session in sessions {
            let Self { client, op, .. } = self;
            let keys = &self.participation.keys;
            let led = (self.ticket.records_term
                && term_record::end(client, keys, &session).await?)
                || client.kv_release(op, keys.leader(), &session).await?;
            if led {
                sleep(GIVE_WAY).await;
            }
            client.destroy_session(op, &session).await?;
        }
        Ok(())
    }

    /// The sessions of this participation, and whether another one with its id has any.
    async fn find(&self) -> Result<(Vec<String>, bool)> {
        let candidate = self.participation.keys.candidate(self.ticket.id);
        let all = self.client.list_sessions(self.op).await?.into_iter();
        let (ours, others): (Vec<_>, Vec<_>) = all
            .filter(|session| session.name.starts_with(&candidate))
            .partition(|session| session.name == self.name());
        let ours = ours.into_iter().map(|session| session.id).collect();
        Ok((ours, !others.is_empty()))
    }

    fn name(&self) -> String {
        format!(
            "{}{}",
            self.participation.keys.candidate(self.ticket.id),
            self.participation.nonce
        )
    }
}
