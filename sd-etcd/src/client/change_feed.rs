//! The changes of a range of keys: a watch from now on, to be opened before the range is read.
//!
//! So there is no gap; what the read already holds is skipped by its revision. The other order, watching from the revision of the
//! read, would put the watch among those that etcd catches up only every 100 ms.
//!
//! The server is asked for its progress all the time, so silence means that it is gone. All watches of a connection ask at the same
//! moments: a process that follows many services wakes once for all of them, and their requests go out together. etcd's own proxy
//! answers no such request: if a connection never saw an answer, a read over it proves instead that the server is there. What a proxy
//! may lose of a watch, core finds out when it reads everything again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Event, GetOptions, KeyValue, WatchResponse, WatchStream};
use futures_util::future::BoxFuture;
use sd_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::info;

use crate::client::answer::{Position, position};
use crate::client::connection::{Connection, Progress};
use crate::client::error::{caught, stream_ended, translate};
use crate::client::{Client, no_answer};

/// The watch id in an answer to a progress request, which concerns all watches of a stream.
const ALL_WATCHES: i64 = -1;
/// The cluster id in a header that a proxy made up.
const NO_CLUSTER: u64 = 0;

/// One watch on a stream of its own.
pub(crate) struct ChangeFeed {
    op: &'static str,
    client: Arc<Client>,
    connection: Connection,
    stream: WatchStream,
    /// Everything up to here is known.
    position: Position,
    /// A key in the watched range.
    key: String,
    ask_at: Instant,
    ask_every: Duration,
    /// By when a server that was never seen to tell its progress should have told it.
    told_by: Option<Instant>,
    /// A read that is under way, to prove that the server is there.
    proof: Option<BoxFuture<'static, Result<()>>>,
}

/// What a server says.
#[derive(Debug)]
pub(crate) enum News {
    /// It answers the watch.
    Told(WatchResponse),
    /// It is there, and the watch has nothing to tell.
    Alive,
}

impl ChangeFeed {
    /// Watches from now on.
    pub(crate) async fn open(
        client: &Arc<Client>,
        op: &'static str,
        range: (&str, &str),
    ) -> Result<Self> {
        let (connection, stream, created) = client.watch(op, range).await?;
        let ask_every = client.config().keep_alive_interval;
        Ok(Self {
            op,
            client: Arc::clone(client),
            stream,
            position: position(op, created.header())?,
            key: range.0.to_owned(),
            ask_at: connection.next_beat(Instant::now(), ask_every),
            ask_every,
            told_by: None,
            proof: None,
            connection,
        })
    }

    /// Skips what a read at this position, made since the feed was opened, already holds.
    pub(crate) fn skip_to(&mut self, read: Position) -> Result<()> {
        let watched = self.position;
        let is_other = read.cluster != watched.cluster || read.revision < watched.revision;
        if is_other && watched.cluster != NO_CLUSTER {
            return Err(Error::new(ErrorKind::Outdated, self.op)
                .because("the watch and the read were answered from different histories"));
        }
        self.position = read;
        Ok(())
    }

    /// Everything up to here is known.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The server's next news. An error ends the feed. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<News> {
        loop {
            tokio::select! {
                biased;
                closed = self.client.signal.closed(self.op) => return Err(closed),
                answer = caught(self.stream.message()) => return match answer {
                    Ok(Some(answer)) => {
                        if answer.watch_id() == ALL_WATCHES {
                            self.connection.note_progress(Progress::Told);
                            self.told_by = None;
                        }
                        Ok(News::Told(answer))
                    }
                    Ok(None) => Err(self.failed(stream_ended())),
                    Err(error) => Err(self.failed(error)),
                },
                proved = ended(&mut self.proof) => {
                    self.proof = None;
                    return match proved {
                        Ok(()) => Ok(News::Alive),
                        Err(error) => {
                            self.client.retire(&self.connection);
                            Err(error)
                        }
                    };
                }
                () = at(self.told_by) => {
                    self.told_by = None;
                    self.note_no_progress();
                }
                () = sleep_until(self.ask_at) => {
                    self.ask_at = self.connection.next_beat(Instant::now(), self.ask_every);
                    match self.connection.progress() {
                        Progress::NeverTold => self.prove(),
                        known => {
                            if let Err(error) = self.stream.request_progress().await {
                                return Err(self.failed(error));
                            }
                            if known == Progress::Unknown {
                                // Not only when no answer has come: silence is soon taken for an end.
                                self.prove();
                                let limit = self.client.config().keep_alive_timeout;
                                self.told_by.get_or_insert(Instant::now() + limit);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Reads over the connection of the watch.
    fn prove(&mut self) {
        let (op, cluster) = (self.op, self.position.cluster);
        let limit = self.client.config().request_timeout;
        let (mut kv, key) = (self.connection.kv(), self.key.clone());
        self.proof.get_or_insert_with(|| {
            Box::pin(async move {
                let keys_only = GetOptions::new().with_keys_only();
                let reading = timeout(limit, caught(kv.get(key, Some(keys_only)))).await;
                let read = reading.map_err(|_| no_answer(op, limit))?;
                let read = read.map_err(|error| translate(op, error))?;
                check_cluster(op, cluster, position(op, read.header())?)
            })
        });
    }

    fn note_no_progress(&self) {
        if self.connection.progress() == Progress::Unknown {
            info!(
                endpoint = self.connection.endpoint(),
                "the server does not tell how far a watch is, as etcd's proxy: reads show that it is there"
            );
            self.connection.note_progress(Progress::NeverTold);
        }
    }

    /// Hands each entry that is told as new to `apply`. A deleted one has no version.
    pub(crate) fn take(&mut self, news: &News, mut apply: impl FnMut(&KeyValue)) -> Result<()> {
        let News::Told(answer) = news else {
            return Ok(());
        };
        self.client.check_watch(self.op, &self.connection, answer)?;
        let at = position(self.op, answer.header())?;
        check_cluster(self.op, self.position.cluster, at)?;
        // Several events may have one revision, but they come in one answer.
        let seen = self.position.revision;
        for entry in answer.events().iter().filter_map(Event::kv) {
            if entry.mod_revision() > seen {
                apply(entry);
                self.position.revision = self.position.revision.max(entry.mod_revision());
            }
        }
        // Servers before 3.4.25 and 3.5.8 may answer a progress request before the events up to its revision. So it proves
        // that the server lives, but moves nothing. A notification for this very watch does.
        let is_of_watch = answer.watch_id() != ALL_WATCHES && at.cluster != NO_CLUSTER;
        if answer.events().is_empty() && is_of_watch {
            self.position.revision = seen.max(at.revision);
        }
        Ok(())
    }

    /// A longer silence means that the server is gone.
    pub(crate) fn silence_limit(&self) -> Duration {
        self.ask_every * 2 + self.client.config().keep_alive_timeout
    }

    fn failed(&self, error: etcd_client::Error) -> Error {
        self.client.retire(&self.connection);
        translate(self.op, error)
    }
}

/// An error if an answer comes from another cluster than that of the watch.
fn check_cluster(op: &'static str, watched: u64, answered: Position) -> Result<()> {
    if answered.cluster != watched && answered.cluster != NO_CLUSTER {
        return Err(
            Error::new(ErrorKind::Outdated, op).because("another cluster answers the watch now")
        );
    }
    Ok(())
}

/// The outcome of what is under way. Cancel-safe.
async fn ended<T>(running: &mut Option<BoxFuture<'static, T>>) -> T {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl fmt::Debug for ChangeFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeFeed")
            .field("key", &self.key)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
