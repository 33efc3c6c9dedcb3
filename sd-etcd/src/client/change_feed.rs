//! The changes of a range of keys: a watch from now on, to be opened before the range is read.
//!
//! So there is no gap; what the read already holds is skipped by its revision. The other order, watching from the revision of the
//! read, would put the watch among those that etcd catches up only every 100 ms.
//!
//! The server is asked for its progress all the time, so silence means that it is gone.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Event, KeyValue, WatchResponse, WatchStream};
use sd_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::client::answer::{Position, position};
use crate::client::connection::Connection;
use crate::client::error::{caught, stream_ended, translate};

/// The watch id in an answer to a progress request, which concerns all watches of a stream.
const ALL_WATCHES: i64 = -1;

/// One watch on a stream of its own.
#[derive(Debug)]
pub(crate) struct ChangeFeed {
    op: &'static str,
    client: Arc<Client>,
    connection: Connection,
    stream: WatchStream,
    /// Everything up to here is known.
    position: Position,
    ask_at: Instant,
    ask_every: Duration,
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
            connection,
            stream,
            position: position(op, created.header())?,
            ask_at: Instant::now() + ask_every,
            ask_every,
        })
    }

    /// Skips what a read at this position, made since the feed was opened, already holds.
    pub(crate) fn skip_to(&mut self, read: Position) -> Result<()> {
        if read.cluster != self.position.cluster || read.revision < self.position.revision {
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

    /// The server's next answer. An error ends the feed. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<WatchResponse> {
        loop {
            tokio::select! {
                biased;
                closed = self.client.closed(self.op) => return Err(closed),
                answer = caught(self.stream.message()) => return match answer {
                    Ok(Some(answer)) => Ok(answer),
                    Ok(None) => Err(self.failed(stream_ended())),
                    Err(error) => Err(self.failed(error)),
                },
                () = sleep_until(self.ask_at) => {
                    self.ask_at = Instant::now() + self.ask_every;
                    if let Err(error) = self.stream.request_progress().await {
                        return Err(self.failed(error));
                    }
                }
            }
        }
    }

    /// Hands each entry that an answer tells as new to `apply`. A deleted one has no version.
    pub(crate) fn take(
        &mut self,
        answer: &WatchResponse,
        mut apply: impl FnMut(&KeyValue),
    ) -> Result<()> {
        self.client.check_watch(self.op, &self.connection, answer)?;
        let at = position(self.op, answer.header())?;
        if at.cluster != self.position.cluster {
            return Err(Error::new(ErrorKind::Outdated, self.op)
                .because("another cluster answers the watch now"));
        }
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
        if answer.events().is_empty() && answer.watch_id() != ALL_WATCHES {
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
