//! One candidate's entry: told where it stands, proved to be there.
//!
//! Almost everything is decided by reading: watches only say when to read again. So a dropped call is made good by the next one. What a
//! watch may tell by itself is that the entry is the first now: see [`DeletionWatch`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sd_backend::{Borrowed, LastRead, TermRecorder};
use sd_core::clock::Clock;
use sd_core::port::{
    Confirmation, CountsFrom, Entry, Limits, Predecessor, Standing, Ticket, check_value,
};
use sd_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, timeout_at};
use zookeeper_client as zk;

use crate::client::error::translate;
use crate::client::parents::make_parents;
use crate::election::candidate_node::{CandidateNode, NodeState};
use crate::election::deletion_watch::{DeletionWatch, Woken};
use crate::election::participation::Participation;
use crate::election::term_record;

/// How soon a connection that was lost may be back without a word of it.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// How often a value is written again because its node came or went meanwhile.
const MOST_ROUNDS: u32 = 5;

/// An entry that stands for one node.
#[derive(Debug)]
pub(crate) struct ZkEntry {
    candidate: CandidateNode,
    participation: Arc<Participation>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    term: Option<TermRecorder>,
    /// Where the entry stands.
    known: LastRead<NodeState>,
    /// Taken out by the call that waits on it.
    deletions: Mutex<Option<DeletionWatch>>,
}

impl ZkEntry {
    /// The entry of `ticket`.
    pub(crate) fn new(
        candidate: CandidateNode,
        ticket: &Ticket,
        participation: Arc<Participation>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Self {
        let ttl = candidate.session().timeout();
        let recorder = || TermRecorder::new(ticket.id, &candidate.node, ttl);
        Self {
            term: ticket.records_term.then(recorder),
            candidate,
            participation,
            clock,
            limits,
            known: LastRead::default(),
            deletions: Mutex::default(),
        }
    }

    /// The entry is gone for good. Those who wait are told.
    fn lose(&self, why: Error) -> Error {
        self.known.set(NodeState::Gone(why.clone()));
        why
    }

    /// What to tell of a state; `None` if it changed meanwhile.
    async fn tell(&self, state: &NodeState) -> Result<Option<Standing>> {
        let before = match (state, &self.term) {
            // The entry is woken when the one before it goes, and not by others.
            (NodeState::Behind(_), _) => return Ok(Some(Standing::Waiting { ahead: None })),
            (NodeState::Gone(why), _) => return Ok(Some(Standing::Gone(why.clone()))),
            (NodeState::First, None) => Predecessor::None,
            (NodeState::First, Some(recorder)) => {
                let began = term_record::begin(recorder, &self.candidate).await;
                match self.candidate.unless_lost(began).await? {
                    Ok(Some(before)) => before,
                    Ok(None) => return Ok(None),
                    Err(lost) => return Ok(Some(Standing::Gone(self.lose(lost)))),
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
                // Nothing comes after that.
                NodeState::Gone(_) => std::future::pending().await,
                NodeState::First => None,
                NodeState::Behind(ahead) => Some(ahead),
            };
            if let Some(watch) = deletions.as_mut().filter(|watch| watch.covers(ahead)) {
                tokio::select! {
                    woken = watch.woken(&self.candidate, op) => match woken? {
                        // Unless a confirmation has just found something else.
                        Woken::First if self.known.still_holds(generation) => {
                            self.known.set(NodeState::First);
                        }
                        Woken::First | Woken::Unsure => {
                            *deletions = None;
                            self.known.invalidate();
                        }
                    },
                    () = self.known.invalidated(generation) => {}
                }
            } else {
                *deletions = DeletionWatch::open(&self.candidate, op, ahead).await?;
                if deletions.is_none() {
                    self.known.invalidate();
                }
            }
        }
    }

    /// The same, also over a connection that is lost and soon back. When a session ends, that is how its client learns of it.
    async fn next_standing_over_gaps(
        &self,
        op: &'static str,
        deletions: &mut Option<DeletionWatch>,
        seen: Option<&Standing>,
    ) -> Result<Standing> {
        let mut give_up_at = None;
        loop {
            let error = match self.next_standing(op, deletions, seen).await {
                Err(error) if is_unreachable(&error) => error,
                told => return told,
            };
            *deletions = None;
            self.known.invalidate();
            let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + BACK_WITHIN);
            let back = timeout_at(give_up_at, self.candidate.session().connected());
            if back.await.is_err() || Instant::now() >= give_up_at {
                return Err(error);
            }
        }
    }

    /// The same, unless the registry is closed or the session ends meanwhile.
    async fn standing_unless_closed(
        &self,
        op: &'static str,
        deletions: &mut Option<DeletionWatch>,
        seen: Option<&Standing>,
    ) -> Result<Standing> {
        let signal = self.candidate.session.signal();
        let standing = self.next_standing_over_gaps(op, deletions, seen);
        let standing = signal.unless_closed(op, standing).await;
        match self.candidate.unless_lost(standing).await? {
            Ok(standing) => Ok(standing),
            Err(lost) => {
                let gone = Standing::Gone(self.lose(lost));
                if seen.is_some_and(|seen| seen.is_same(&gone)) {
                    return Err(signal.closed(op).await);
                }
                Ok(gone)
            }
        }
    }

    /// What the registry says before anything is asked of the server.
    fn check_usable(&self, op: &'static str) -> Result<()> {
        self.candidate.session.signal().check_open(op)?;
        match self.known.value() {
            Some(NodeState::Gone(why)) => Err(why),
            _ => Ok(()),
        }
    }

    /// Writes the value that observers see in place of the node's own, if the node is there: into a node that is `new`, or into one that
    /// exists. If it is the other way round, says so.
    async fn write_value(&self, op: &'static str, value: &[u8], new: bool) -> Result<Written> {
        let (session, acls) = (self.candidate.session(), self.candidate.acls);
        let path = self.candidate.keys.value(&self.candidate.node);
        let failed = |error| translate(op, error);
        let client = session.client(op).await?;
        let mut write = client.new_multi_writer();
        write
            .add_check_version(&self.candidate.path, -1)
            .map_err(failed)?;
        if new {
            let options = zk::CreateMode::Ephemeral.with_acls(acls);
            write.add_create(&path, value, &options).map_err(failed)?;
        } else {
            write.add_set_data(&path, value, None).map_err(failed)?;
        }
        let (index, error) = match session.answer(op, write.commit()).await? {
            Ok(_) => return Ok(Written::Done),
            Err(zk::MultiWriteError::OperationFailed { index, source }) => (index, source),
            Err(error) => return Err(failed(error.into())),
        };
        match (index, error) {
            (0, zk::Error::NoNode) => Err(self.candidate.deleted(op)),
            (1, zk::Error::NodeExists) => Ok(Written::Not { new: false }),
            (1, zk::Error::NoNode) if new => {
                let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                make_parents(session, acls, op, parent).await?;
                Ok(Written::Not { new: true })
            }
            (1, zk::Error::NoNode) => Ok(Written::Not { new: true }),
            (_, error) => Err(failed(error)),
        }
    }
}

/// Whether a value was written.
#[derive(Clone, Copy, Debug)]
enum Written {
    Done,
    /// To be tried again like this.
    Not {
        new: bool,
    },
}

#[async_trait]
impl Entry for ZkEntry {
    async fn standing(&self, seen: Option<&Standing>) -> Result<Standing> {
        const OP: &str = "zk: standing";
        self.candidate.session.signal().check_open(OP)?;
        if seen.is_none() {
            self.known.invalidate();
        }
        let mut deletions = Borrowed::from(&self.deletions);
        let standing = self.standing_unless_closed(OP, &mut deletions.item, seen);
        let standing = standing.await;
        if standing.is_err() {
            deletions.item = None;
            self.known.invalidate();
        }
        standing
    }

    async fn confirm(&self) -> Result<Confirmation> {
        const OP: &str = "zk: confirm entry";
        self.check_usable(OP)?;
        let session = &self.candidate.session;
        let sent = self.clock.now();
        let checked = self.candidate.check(OP);
        if let Some(loss) = session.signal().unless_closed(OP, checked).await? {
            return Err(self.lose(loss));
        }
        let counts_from = CountsFrom::EarlierSend(session.proven(sent));
        Ok(Confirmation::new(session.session.timeout(), counts_from))
    }

    async fn proclaim(&self, value: &[u8]) -> Result<()> {
        const OP: &str = "zk: proclaim";
        check_value(OP, value, &self.limits)?;
        self.check_usable(OP)?;
        let mut new = !self.participation.has_proclaimed();
        self.participation.proclaims();
        for _ in 0..MOST_ROUNDS {
            match self.write_value(OP, value, new).await {
                Ok(Written::Done) => return Ok(()),
                Ok(Written::Not { new: other }) => new = other,
                Err(error) => {
                    let error = self.candidate.session.explained(error).await;
                    let is_lost =
                        matches!(error.kind(), ErrorKind::LeaseLost | ErrorKind::NotFound);
                    return Err(if is_lost { self.lose(error) } else { error });
                }
            }
        }
        Err(Error::new(ErrorKind::Unavailable, OP).because(format!(
            "what {} proclaims came and went each time before it was written: try again",
            self.candidate.path
        )))
    }
}

fn is_unreachable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}
