//! One candidate's entry: where it stands, kept alive, proved to be ours.
//!
//! There is no queue. A candidate that finds the lock free takes it, by a transaction that the servers put in order. One that is
//! refused waits for the next change. Everything is decided by reading: a wait only says when to read again. So a dropped call is made
//! good by the next one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_backend::{ParticipationId, TermRecorder};
use sd_core::port::{
    Confirmation, CountsFrom, Entry, Limits, Predecessor, Standing, Ticket, check_value,
};
use sd_core::{Error, ErrorKind, FencingToken, Result};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::client::Client;
use crate::client::blocking_queries::Waiter;
use crate::client::kv::{KvEntry, KvOp, Txn};
use crate::client::sessions::ended;
use crate::election::keys::ElectionKeys;
use crate::election::lock_attempt::{self, LockAttempt};
use crate::election::participation::Participation;
use crate::election::{leader_record, term_record, token_domain};
use crate::write_queue::WriteQueue;

/// How soon to try again while a lock-delay lasts, which the server does not say. It grows to the second.
pub(crate) const DELAY_POLLS: [Duration; 2] =
    [Duration::from_millis(100), Duration::from_millis(800)];
/// Candidates that were too late try again within this time, not all at the same moment.
const LATE: Duration = Duration::from_millis(20);
/// How often a value is written again because another writer changed the key at the same time.
const MOST_ROUNDS: u32 = 5;

/// An entry on one session.
#[derive(Debug)]
pub(crate) struct ConsulEntry {
    client: Arc<Client>,
    writes: Arc<WriteQueue<ParticipationId>>,
    limits: Limits,
    participation: Arc<Participation>,
    session: String,
    ttl: Duration,
    recorder: Option<TermRecorder>,
    waiter: Waiter,
    known: watch::Sender<Known>,
}

/// What is known for good.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The token of its term, once it has led.
    token: Option<FencingToken>,
    gone: Option<Error>,
}

/// What was read of an election.
#[derive(Debug)]
struct Look {
    leader: Option<KvEntry>,
    /// Where to wait from.
    index: u64,
}

/// Whether an entry may try again to take the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entered {
    /// Not now, or never.
    Settled,
    /// At once.
    Late,
    /// In a while.
    Delayed,
}

impl ConsulEntry {
    pub(crate) fn new(
        client: Arc<Client>,
        writes: Arc<WriteQueue<ParticipationId>>,
        participation: Arc<Participation>,
        session: String,
        ticket: &Ticket,
        limits: &Limits,
    ) -> Self {
        let recorder = || TermRecorder::new(ticket.id, &session, ticket.ttl);
        Self {
            recorder: ticket.records_term.then(recorder),
            waiter: client.waiter(),
            client,
            writes,
            limits: limits.clone(),
            participation,
            session,
            ttl: ticket.ttl,
            known: watch::Sender::default(),
        }
    }

    fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// It will never be there again. Those who wait are told.
    fn lose(&self, error: Error) -> Error {
        self.known.send_modify(|known| {
            known.gone.get_or_insert(error.clone());
        });
        error
    }

    /// Returns when it is known to be gone. Cancel-safe.
    async fn lost(&self) {
        let mut known = self.known.subscribe();
        // Cannot fail: `self` holds the sender.
        let _ = known.wait_for(|known| known.gone.is_some()).await;
    }

    fn keys(&self) -> &ElectionKeys {
        &self.participation.keys
    }

    /// Whether our session has the lock.
    fn holds(&self, leader: &KvEntry) -> bool {
        leader.session == self.session
    }

    /// Why the term is over, if what was read is not it.
    fn end_of_term(
        &self,
        op: &'static str,
        token: &FencingToken,
        leader: Option<&KvEntry>,
    ) -> Option<Error> {
        let key = self.keys().leader();
        let (kind, what) = match leader {
            None => (ErrorKind::NotFound, "was deleted"),
            Some(leader) if leader.session.is_empty() => (
                ErrorKind::LeaseLost,
                "was released: our session has ended, or an operator released it",
            ),
            Some(leader) if leader.session != self.session => {
                (ErrorKind::Conflict, "is locked by another session")
            }
            Some(leader) if leader_record::token(leader) != token.value() => {
                (ErrorKind::Conflict, "was deleted and created again")
            }
            Some(_) => return None,
        };
        Some(Error::new(kind, op).because(format!("{key} {what}")))
    }

    /// Reads who leads and whether our session is there. What that settles for good is then known.
    async fn look(&self, op: &'static str) -> Result<Look> {
        let (client, keys) = (&self.client, self.keys());
        // Before what is read: a token of later is not in it.
        let Known { token, .. } = self.known();
        let (read, alive) = tokio::join!(
            client.kv_get(op, keys.leader()),
            client.session_exists(op, &self.session),
        );
        let (leader, meta) = read?;
        match token {
            Some(token) => {
                if let Some(over) = self.end_of_term(op, &token, leader.as_ref()) {
                    self.lose(over);
                }
            }
            None if !alive? => {
                self.lose(ended(op));
            }
            None => {
                if let Some(leader) = leader.as_ref().filter(|leader| self.holds(leader)) {
                    self.adopt(op, leader).await?;
                }
            }
        }
        let index = meta.index;
        Ok(Look { leader, index })
    }

    /// Leads by a lock that was not seen to be taken: by a call that was dropped or not answered, or by an earlier entry of this
    /// ticket. Does not if that changes meanwhile.
    async fn adopt(&self, op: &'static str, found: &KvEntry) -> Result<()> {
        let (client, keys) = (&self.client, self.keys());
        let domain = token_domain::ensure(client, op, keys).await?;
        let value = leader_record::leader(found, &domain).map(|leader| leader.value);
        // Another one may have been proclaimed after the lock was asked for.
        if value.as_deref() == Some(&*self.participation.value()) || self.write(op, found).await? {
            self.lead(FencingToken::new(domain, leader_record::token(found)));
        }
        Ok(())
    }

    /// Writes the participation's value for the term of this entry if it still is as it was found, and says whether it was.
    async fn write(&self, op: &'static str, found: &KvEntry) -> Result<bool> {
        let (client, session) = (Arc::clone(&self.client), self.session.clone());
        let (participation, found) = (Arc::clone(&self.participation), found.clone());
        let writing = async move {
            let keys = &participation.keys;
            let (id, token) = (participation.id.candidate, leader_record::token(&found));
            let value = leader_record::encode(id, Some(token), &participation.value());
            let put = [
                KvOp::check_unchanged(keys.leader(), Some(&found)),
                // A plain write would reset what the key says of how often it was locked.
                KvOp::lock(keys.leader(), &session, value),
            ];
            client.txn(op, &put).await
        };
        let written = self.writes.run(op, &self.participation.id, writing);
        Ok(matches!(written.await?, Txn::Done(_)))
    }

    fn lead(&self, token: FencingToken) {
        self.known.send_modify(|known| known.token = Some(token));
    }

    /// Takes the lock if it still is as it was found, free.
    async fn attempt(&self, op: &'static str, found: Option<KvEntry>) -> Result<LockAttempt> {
        let (client, session) = (Arc::clone(&self.client), self.session.clone());
        let participation = Arc::clone(&self.participation);
        let taking = async move {
            lock_attempt::attempt(&client, op, &participation, &session, found.as_ref()).await
        };
        self.writes.run(op, &self.participation.id, taking).await
    }

    fn may_lead(&self) -> bool {
        let Known { token, gone } = self.known();
        token.is_none() && gone.is_none()
    }

    /// Takes the lock if it was found free and the entry has neither led nor gone.
    async fn enter(&self, op: &'static str, found: Option<KvEntry>) -> Result<Entered> {
        if !self.may_lead() || !is_free(found.as_ref()) {
            return Ok(Entered::Settled);
        }
        Ok(match self.attempt(op, found).await? {
            LockAttempt::Won(token) => {
                self.lead(token);
                Entered::Settled
            }
            LockAttempt::Gone(error) => {
                self.lose(error);
                Entered::Settled
            }
            LockAttempt::Late => Entered::Late,
            LockAttempt::Delayed => Entered::Delayed,
        })
    }

    /// Takes the lock if it is free now: an entry may lead before its first standing is asked for.
    pub(crate) async fn begin(&self, op: &'static str) -> Result<()> {
        let (client, keys) = (&self.client, self.keys());
        // Who may not read the history of tokens must not take the lock.
        let (look, _) = tokio::try_join!(self.look(op), token_domain::find(client, op, keys))?;
        self.enter(op, look.leader).await.map(drop)
    }

    /// What to tell of what is known; `None` if it changed meanwhile.
    async fn tell(&self) -> Result<Option<Standing>> {
        let Known { token, gone } = self.known();
        let token = match (gone, token) {
            (Some(gone), _) => return Ok(Some(Standing::Gone(gone))),
            (None, None) => return Ok(Some(Standing::Waiting { ahead: None })),
            (None, Some(token)) => token,
        };
        let (client, keys) = (&self.client, self.keys());
        let before = match &self.recorder {
            None => Some(Predecessor::None),
            Some(recorder) => {
                term_record::begin(recorder, client, keys, &self.session, token.value()).await?
            }
        };
        Ok(before.map(|before| Standing::First { token, before }))
    }

    /// Waits until something may have changed since it was read.
    async fn changed(&self, op: &'static str, index: u64, most: Duration) -> Result<Option<Look>> {
        let (client, keys) = (&self.client, self.keys());
        tokio::select! {
            biased;
            () = self.lost() => Ok(None),
            waited = client.kv_wait(op, &self.waiter, keys.leader(), index, most) => {
                let (leader, meta) = waited?;
                let index = meta.index;
                Ok(Some(Look { leader, index }))
            }
        }
    }
}

#[async_trait]
impl Entry for ConsulEntry {
    async fn standing(&self, seen: Option<&Standing>) -> Result<Standing> {
        const OP: &str = "consul: standing";
        self.client.signal.check_open(OP)?;
        let mut delay: Option<Duration> = None;
        let mut woken: Option<Look> = None;
        loop {
            // Who was woken because the lock is free tries at once: the attempt itself finds out what else has changed.
            let look = match woken.take() {
                Some(look) => look,
                None => self.look(OP).await?,
            };
            let mut most = self.ttl / 3;
            match self.enter(OP, look.leader).await? {
                Entered::Settled => {}
                Entered::Late => {
                    sleep(LATE.mul_f64(fastrand::f64())).await;
                    continue;
                }
                Entered::Delayed => {
                    let [first, longest] = DELAY_POLLS;
                    let pause = delay.map_or(first, |delay| (delay * 2).min(longest));
                    delay = Some(pause);
                    // Not all at the same time.
                    most = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
                }
            }
            let Some(standing) = self.tell().await? else {
                continue;
            };
            if !seen.is_some_and(|seen| seen.is_same(&standing)) {
                return Ok(standing);
            }
            if matches!(standing, Standing::Gone(_)) {
                return Err(self.client.signal.closed(OP).await);
            }
            woken = self.changed(OP, look.index, most).await?;
            woken = woken.filter(|look| self.may_lead() && is_free(look.leader.as_ref()));
        }
    }

    async fn confirm(&self) -> Result<Confirmation> {
        const OP: &str = "consul: confirm entry";
        let (client, keys) = (&self.client, self.keys());
        client.signal.check_open(OP)?;
        let Known { token, gone } = self.known();
        if let Some(gone) = gone {
            return Err(gone);
        }
        let (renewed, read) = tokio::join!(
            client.renew_session(OP, &self.session),
            client.kv_get(OP, keys.leader()),
        );
        // What is known for good says more than what could not be asked.
        if let (Some(token), Ok((leader, _))) = (&token, &read)
            && let Some(over) = self.end_of_term(OP, token, leader.as_ref())
        {
            return Err(self.lose(over));
        }
        match renewed {
            Err(error) if error.kind() == ErrorKind::LeaseLost => return Err(self.lose(error)),
            renewed => renewed?,
        }
        read?;
        // Consul grants what it is asked for, and ends the session after twice as long.
        Ok(Confirmation::new(self.ttl, CountsFrom::ThisSend))
    }

    async fn proclaim(&self, value: &[u8]) -> Result<()> {
        const OP: &str = "consul: proclaim";
        check_value(OP, value, &self.limits)?;
        self.client.signal.check_open(OP)?;
        let (participation, session) = (Arc::clone(&self.participation), self.session.clone());
        let value = value.to_owned();
        // Whatever attempts to take the lock follow write this value. If an earlier one that was not answered takes it still, the
        // value is written when that is seen.
        let setting = async move {
            if participation.session().as_deref() == Some(&*session) {
                participation.set_value(&value);
            }
            Ok(())
        };
        self.writes.run(OP, &self.participation.id, setting).await?;
        for _ in 0..MOST_ROUNDS {
            let look = self.look(OP).await?;
            let Known { token, gone } = self.known();
            if let Some(gone) = gone {
                return Err(gone);
            }
            let Some(leader) = look.leader.filter(|leader| self.holds(leader)) else {
                return Ok(());
            };
            if token.is_some() && self.write(OP, &leader).await? {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Unavailable, OP).because(format!(
            "{} was changed by another writer each time before it was written: try again",
            self.keys().leader()
        )))
    }
}

fn is_free(leader: Option<&KvEntry>) -> bool {
    leader.is_none_or(|leader| leader.session.is_empty())
}
