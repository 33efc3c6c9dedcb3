//! One candidate's entry: told where it stands, kept alive, proved to be ours.

use async_trait::async_trait;
use sd_backend::{QueueEntry, TermRecorder};
use sd_core::Result;
use sd_core::port::{Confirmation, CountsFrom, Entry, Limits, Standing, Ticket, check_value};

use crate::election::candidate::{Confirmed, RedisCandidate};
use crate::election::scripts;

/// An entry in the queue of an election.
#[derive(Debug)]
pub(crate) struct RedisEntry {
    queue: QueueEntry<RedisCandidate>,
    limits: Limits,
}

impl RedisEntry {
    /// The entry of `ticket`, which `candidate` has joined with.
    pub(crate) fn new(candidate: RedisCandidate, ticket: &Ticket, limits: Limits) -> Self {
        let recorder = TermRecorder::new(ticket.id, &candidate.owner, candidate.ttl);
        let term = ticket.records_term.then_some(recorder);
        Self {
            queue: QueueEntry::new(candidate, term),
            limits,
        }
    }
}

#[async_trait]
impl Entry for RedisEntry {
    async fn standing(&self, seen: Option<&Standing>) -> Result<Standing> {
        self.queue.standing("redis: standing", seen).await
    }

    /// One script renews the lease and checks the entry. It also finds what no message has told.
    async fn confirm(&self) -> Result<Confirmation> {
        const OP: &str = "redis: confirm entry";
        let candidate = self.queue.candidate();
        let waits = self.queue.ahead().is_some();
        match candidate.confirm(OP).await? {
            Confirmed::Gone(loss) => return Err(self.queue.lose(loss)),
            Confirmed::First if waits => self.queue.invalidate(),
            Confirmed::First | Confirmed::Behind => {}
        }
        // The server has counted from when it got the request.
        Ok(Confirmation::new(candidate.ttl, CountsFrom::ThisSend))
    }

    async fn proclaim(&self, value: &[u8]) -> Result<()> {
        const OP: &str = "redis: proclaim";
        check_value(OP, value, &self.limits)?;
        let candidate = self.queue.candidate();
        let keys = candidate.keys.queue();
        let rest = [value];
        let (said, _) = candidate.run(OP, &scripts::PROCLAIM, &keys, &rest).await?;
        match said.as_str() {
            "ok" => Ok(()),
            why => Err(self.queue.lose(candidate.loss(OP, why))),
        }
    }
}
