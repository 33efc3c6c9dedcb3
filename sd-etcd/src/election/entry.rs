//! One candidate's entry: told where it stands, kept alive, proved to be ours.
//!
//! Almost everything is decided by reading: the watch only says when to read again. So a lost, doubled or late event does no harm, and
//! a dropped call is made good by the next one. What a watch may tell by itself is that the entry is the first now: see
//! [`DeletionWatch`].

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use etcd_client::{PutOptions, Txn, TxnOp};
use sd_backend::{Borrowed, LastRead, TermRecorder};
use sd_core::port::{
    Confirmation, CountsFrom, Entry, Limits, Predecessor, Standing, Ticket, check_value,
};
use sd_core::{Error, ErrorKind, Result};

use crate::client::Client;
use crate::client::answer::{found, position};
use crate::election::candidate_key::{Ahead, CandidateKey, EntryState};
use crate::election::deletion_watch::{DeletionWatch, Woken};
use crate::election::term_record;

/// An entry under one key, attached to one lease.
#[derive(Debug)]
pub(crate) struct EtcdEntry {
    candidate: CandidateKey,
    limits: Limits,
    term: Option<TermRecorder>,
    /// Where the entry stands.
    known: LastRead<EntryState>,
    /// Taken out by the call that waits on it.
    deletions: Mutex<Option<DeletionWatch>>,
}

impl EtcdEntry {
    /// The entry of `ticket` under `candidate`.
    pub(crate) fn new(candidate: CandidateKey, ticket: &Ticket, limits: Limits) -> Self {
        let recorder = || {
            TermRecorder::new(
                ticket.id,
                term_record::entry_on(candidate.lease),
                candidate.ttl,
            )
        };
        Self {
            term: ticket.records_term.then(recorder),
            candidate,
            limits,
            known: LastRead::default(),
            deletions: Mutex::default(),
        }
    }

    fn client(&self) -> &Arc<Client> {
        &self.candidate.client
    }

    /// Reads whether the entry is there: `Some` says why not. Invalidates what is known if it is not there, or if the one before it is
    /// not.
    async fn check(&self, op: &'static str, ahead: Option<&Ahead>) -> Result<Option<Error>> {
        let (loss, same) = match ahead {
            Some(ahead) => self.candidate.check_both(op, ahead.next.clone()).await?,
            None => (self.candidate.check(op).await?, true),
        };
        if loss.is_some() || !same {
            self.known.invalidate();
        }
        Ok(loss)
    }

    /// What to tell of a state; `None` if it changed meanwhile.
    async fn tell(&self, state: &EntryState) -> Result<Option<Standing>> {
        let before = match (state, &self.term) {
            // To count them, the server would have to send them all.
            (EntryState::Behind(_), _) => return Ok(Some(Standing::Waiting { ahead: None })),
            (EntryState::Gone(why), _) => return Ok(Some(Standing::Gone(why.clone()))),
            (EntryState::First, None) => Predecessor::None,
            (EntryState::First, Some(recorder)) => {
                match term_record::begin(recorder, &self.candidate).await? {
                    Some(before) => before,
                    None => return Ok(None),
                }
            }
        };
        let token = self.candidate.token();
        Ok(Some(Standing::First { token, before }))
    }

    async fn next_standing(
        &self,
        op: &'static str,
        deletions: &mut Option<DeletionWatch>,
        seen: Option<&Standing>,
    ) -> Result<Standing> {
        loop {
            let look = self.candidate.look(op);
            let (state, generation) = self.known.get_or_read(look).await?;
            let Some(standing) = self.tell(&state).await? else {
                self.known.invalidate();
                continue;
            };
            if !seen.is_some_and(|seen| seen.is_same(&standing)) {
                return Ok(standing);
            }
            let ahead = match &state {
                EntryState::Gone(_) => return Err(self.client().signal.closed(op).await),
                EntryState::First => None,
                EntryState::Behind(ahead) => Some(ahead),
            };
            let covering = deletions.as_mut();
            if let Some(deletions) = covering.filter(|deletions| deletions.covers(ahead)) {
                tokio::select! {
                    woken = deletions.woken(&self.candidate, op, ahead) => match woken? {
                        // Unless a confirmation has just found something else.
                        Woken::First if self.known.still_holds(generation) => {
                            self.known.set(EntryState::First);
                        }
                        Woken::First | Woken::Unsure => self.known.invalidate(),
                    },
                    () = self.known.invalidated(generation) => {}
                }
            } else {
                let opened = DeletionWatch::open(&self.candidate, op, ahead).await?;
                // For what went before the watches stood. No entry can have come in between: one that joins later is further behind.
                self.check(op, ahead).await?;
                // Not sooner: a call that was dropped in between must not leave behind what only seems to cover.
                *deletions = Some(opened);
            }
        }
    }
}

#[async_trait]
impl Entry for EtcdEntry {
    async fn standing(&self, seen: Option<&Standing>) -> Result<Standing> {
        const OP: &str = "etcd: standing";
        self.client().signal.check_open(OP)?;
        if seen.is_none() {
            self.known.invalidate();
        }
        let mut deletions = Borrowed::from(&self.deletions);
        let standing = self.next_standing(OP, &mut deletions.item, seen).await;
        if standing.is_err() {
            deletions.item = None;
            self.known.invalidate();
        }
        standing
    }

    /// The check also looks after the one that the entry waits for: events get lost in some versions of etcd, and in connections
    /// that died.
    async fn confirm(&self) -> Result<Confirmation> {
        const OP: &str = "etcd: confirm entry";
        let ahead = match self.known.value() {
            Some(EntryState::Behind(ahead)) => Some(ahead),
            _ => None,
        };
        let (extended, loss) = tokio::join!(
            self.client().keep_alive(OP, self.candidate.lease),
            self.check(OP, ahead.as_ref()),
        );
        // What is known for good says more than what could not be asked.
        if let Ok(Some(loss)) = loss {
            return Err(loss);
        }
        extended?;
        loss?;
        // Each keep-alive grants the same again.
        Ok(Confirmation::new(self.candidate.ttl, CountsFrom::ThisSend))
    }

    async fn proclaim(&self, value: &[u8]) -> Result<()> {
        const OP: &str = "etcd: proclaim";
        check_value(OP, value, &self.limits)?;
        let attached = PutOptions::new().with_lease(self.candidate.lease);
        let txn = Txn::new()
            .when(self.candidate.is_there())
            .and_then([TxnOp::put(
                self.candidate.key.as_str(),
                value,
                Some(attached),
            )])
            .or_else([self.candidate.get_own()]);
        let answer = self.client().txn(OP, &txn).await?;
        if answer.succeeded() {
            return Ok(());
        }
        let at = position(OP, answer.header())?;
        let loss = self.candidate.loss(OP, at, found(&answer).as_ref());
        Err(loss.unwrap_or_else(|| {
            Error::new(ErrorKind::InvalidData, OP)
                .because("the server refused the write, but says that the entry is there and ours")
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::ElectionName;
    use sd_core::clock::BootClock;
    use sd_core::sync::lock;
    use sd_testing::required_env;
    use tokio::time::timeout;

    use super::*;
    use crate::config::EtcdConfig;
    use crate::election::elector::EtcdElector;

    const LONG: Duration = Duration::from_secs(30);

    fn elector() -> EtcdElector {
        let url = required_env("SD_TEST_ETCD").unwrap();
        let config = EtcdConfig::new([url]).with_election_prefix("/sd-test-elections");
        let shared = Client::new(config.checked().unwrap());
        EtcdElector::new(Arc::new(shared), Arc::new(BootClock))
    }

    fn tickets() -> [Ticket; 2] {
        let name = format!("{:016x}", fastrand::u64(..));
        let name = ElectionName::new(name).unwrap();
        [b"a", b"b"].map(|value| Ticket::new(name.clone(), *value, LONG * 2))
    }

    /// As with a server that loses events, or a connection that died on one side.
    #[tokio::test]
    #[ignore = "needs etcd: cargo xtask test --backend etcd"]
    async fn a_confirmation_finds_what_the_watch_was_not_told() {
        use sd_core::Elector;

        let (elector, [a, b]) = (elector(), tickets());
        elector.enter(&a).await.unwrap();
        let next = elector.enter(&b).await.unwrap();
        let waiting = next.standing(None).await.unwrap();
        // Of an entry that never was.
        let mut nothing = elector.enter(&tickets()[0]).await.unwrap().candidate;
        nothing.key.push_str("-nothing");
        let EntryState::Behind(ahead) = next.candidate.look("test").await.unwrap() else {
            panic!("the leader is there");
        };
        let deaf = async || DeletionWatch::open(&nothing, "test", None).await.unwrap();
        *lock(&next.deletions) = Some(deaf().await.deaf_to(&ahead));

        let told = next.standing(Some(&waiting));
        tokio::pin!(told);
        elector.leave(&a).await.unwrap();
        let moment = Duration::from_millis(300);
        assert!(timeout(moment, &mut told).await.is_err());
        next.confirm().await.unwrap();
        let told = timeout(LONG, told).await.unwrap().unwrap();
        assert!(matches!(told, Standing::First { .. }), "{told:?}");

        // And its own end.
        let leading = told;
        *lock(&next.deletions) = Some(deaf().await);
        let told = next.standing(Some(&leading));
        tokio::pin!(told);
        elector.leave(&b).await.unwrap();
        assert!(timeout(moment, &mut told).await.is_err());
        next.confirm().await.unwrap_err();
        let told = timeout(LONG, told).await.unwrap().unwrap();
        assert!(matches!(told, Standing::Gone(_)), "{told:?}");
    }
}
