//! One candidate's entry: told where it stands, proved to be there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_backend::{CloseSignal, Place, QueueEntry, Queued, TermRecorder, Woken, is_unreachable};
use sd_core::clock::Clock;
use sd_core::port::{
    Confirmation, CountsFrom, Entry, Limits, Predecessor, Standing, Ticket, check_value,
};
use sd_core::{Error, ErrorKind, FencingToken, Result};
use tokio::time::{Instant, timeout_at};
use zookeeper_client as zk;

use crate::client::error::translate;
use crate::client::parents::make_parents;
use crate::election::candidate_node::CandidateNode;
use crate::election::deletion_watch::DeletionWatch;
use crate::election::keys::Ahead;
use crate::election::participation::Participation;
use crate::election::term_record;

/// How soon a connection that was lost may be back without a word of it.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// How often a value is written again because its node came or went meanwhile.
const MOST_ROUNDS: u32 = 5;

/// An entry that stands for one node.
#[derive(Debug)]
pub(crate) struct ZkEntry {
    queue: QueueEntry<CandidateNode>,
    participation: Arc<Participation>,
    clock: Arc<dyn Clock>,
    limits: Limits,
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
        let recorder = TermRecorder::new(ticket.id, &candidate.node, ttl);
        let term = ticket.records_term.then_some(recorder);
        Self {
            queue: QueueEntry::new(candidate, term),
            participation,
            clock,
            limits,
        }
    }

    fn candidate(&self) -> &CandidateNode {
        self.queue.candidate()
    }

    /// Where it stands, also over a connection that is lost and soon back. When a session ends, that is how its client learns of it.
    async fn standing_over_gaps(
        &self,
        op: &'static str,
        seen: Option<&Standing>,
    ) -> Result<Standing> {
        let mut give_up_at = None;
        loop {
            let error = match self.queue.standing(op, seen).await {
                Err(error) if is_unreachable(&error) => error,
                told => return told,
            };
            let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + BACK_WITHIN);
            let back = timeout_at(give_up_at, self.candidate().session().connected());
            if back.await.is_err() || Instant::now() >= give_up_at {
                return Err(error);
            }
        }
    }

    /// What the registry says before anything is asked of the server.
    fn check_usable(&self, op: &'static str) -> Result<()> {
        self.candidate().session.signal().check_open(op)?;
        self.queue.gone().map_or(Ok(()), Err)
    }

    /// Writes the value that observers see in place of the node's own, if the node is there: into a node that is `new`, or into one that
    /// exists. If it is the other way round, says so.
    async fn write_value(&self, op: &'static str, value: &[u8], new: bool) -> Result<Written> {
        let candidate = self.candidate();
        let (session, acls) = (candidate.session(), candidate.acls);
        let path = candidate.keys.value(&candidate.node);
        let failed = |error| translate(op, error);
        let client = session.client(op).await?;
        let mut write = client.new_multi_writer();
        write
            .add_check_version(&candidate.path, -1)
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
            (0, zk::Error::NoNode) => Err(candidate.deleted(op)),
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

impl Queued for CandidateNode {
    type Ahead = Ahead;
    type Watch = DeletionWatch;

    fn signal(&self) -> &CloseSignal {
        self.session.signal()
    }

    fn token(&self) -> FencingToken {
        self.token()
    }

    async fn look(&self, op: &'static str) -> Result<Place<Ahead>> {
        self.look(op).await
    }

    async fn begin_term(&self, recorder: &TermRecorder) -> Result<Option<Predecessor>> {
        term_record::begin(recorder, self).await
    }

    async fn watch(
        &self,
        op: &'static str,
        ahead: Option<&Ahead>,
    ) -> Result<Option<DeletionWatch>> {
        DeletionWatch::open(self, op, ahead).await
    }

    fn covers(watch: &DeletionWatch, ahead: Option<&Ahead>) -> bool {
        watch.covers(ahead)
    }

    async fn woken(
        &self,
        op: &'static str,
        watch: &mut DeletionWatch,
        _ahead: Option<&Ahead>,
    ) -> Result<Woken> {
        watch.woken(self, op).await
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
        let signal = self.candidate().session.signal();
        let standing = signal.unless_closed(OP, self.standing_over_gaps(OP, seen));
        match self.candidate().unless_lost(standing.await).await? {
            Ok(standing) => Ok(standing),
            Err(lost) => {
                let gone = Standing::Gone(self.queue.lose(lost));
                if seen.is_some_and(|seen| seen.is_same(&gone)) {
                    return Err(signal.closed(OP).await);
                }
                Ok(gone)
            }
        }
    }

    async fn confirm(&self) -> Result<Confirmation> {
        const OP: &str = "zk: confirm entry";
        self.check_usable(OP)?;
        let session = &self.candidate().session;
        let sent = self.clock.now();
        let checked = self.candidate().check(OP);
        if let Some(loss) = session.signal().unless_closed(OP, checked).await? {
            return Err(self.queue.lose(loss));
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
                    let error = self.candidate().session.explained(error).await;
                    let is_lost =
                        matches!(error.kind(), ErrorKind::LeaseLost | ErrorKind::NotFound);
                    return Err(if is_lost {
                        self.queue.lose(error)
                    } else {
                        error
                    });
                }
            }
        }
        Err(Error::new(ErrorKind::Unavailable, OP).because(format!(
            "what {} proclaims came and went each time before it was written: try again",
            self.candidate().path
        )))
    }
}
