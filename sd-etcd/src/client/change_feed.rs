//! The changes of a range of keys: a watch from now on, to be opened before the range is read.
//!
//! So there is no gap; what the read already holds is skipped by its revision. The other order, watching from the revision of the
//! read, would put the watch among those that etcd catches up only every 100 ms.
//!
//! The server is asked for its progress all the time, so silence means that it is gone. etcd's own proxy answers no such request: as long
//! as a connection never saw an answer, a read over it proves instead that the server is there. All feeds of a connection read at the same
//! moments, so that a process that follows many services wakes once for all of them. What a proxy may lose of a watch, core finds out when
//! it reads everything again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Event, GetOptions, KeyValue};
use futures_util::future::BoxFuture;
use sd_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::answer::{Position, position};
use crate::client::connection::Connection;
use crate::client::error::{caught, translate};
use crate::client::server_progress::Progress;
pub(crate) use crate::client::watch_stream::News;
use crate::client::watch_stream::{ALL_WATCHES, Ended, Watch};
use crate::client::{Client, no_answer};

/// The cluster id in a header that a proxy made up.
const NO_CLUSTER: u64 = 0;

/// One watch, and how much of it is known.
pub(crate) struct ChangeFeed {
    op: &'static str,
    client: Arc<Client>,
    connection: Connection,
    watch: Watch,
    /// Everything up to here is known.
    position: Position,
    /// A key in the watched range.
    key: String,
    /// When a read is to prove that the server is there, if that never tells its progress.
    prove_at: Instant,
    /// A read that is under way, to prove that the server is there.
    proof: Option<BoxFuture<'static, Result<()>>>,
}

impl ChangeFeed {
    /// Watches from now on.
    pub(crate) async fn open(
        client: &Arc<Client>,
        op: &'static str,
        range: (&str, &str),
    ) -> Result<Self> {
        let (connection, (created, watch)) = client.watch(op, range).await?;
        Ok(Self {
            op,
            client: Arc::clone(client),
            watch,
            position: position(op, created.header())?,
            key: range.0.to_owned(),
            prove_at: connection.progress().next_beat(Instant::now()),
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
                news = self.watch.next() => return match news {
                    Ok(news) => Ok(news),
                    Err(Ended::Failed(error)) => Err(self.failed(error)),
                    Err(Ended::Behind) => Err(Error::new(ErrorKind::Outdated, self.op)
                        .because("more has changed than was taken in time")),
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
                () = sleep_until(self.prove_at), if self.connection.progress().seen() != Progress::Told => {
                    self.prove_at = self.connection.progress().next_beat(Instant::now());
                    // Not only when no answer has come: silence is soon taken for an end.
                    self.prove();
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
        self.connection.progress().silence_limit()
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

impl fmt::Debug for ChangeFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeFeed")
            .field("key", &self.key)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
