//! The feed of one service: watch from now on, read everything, then apply what the watch tells.
//!
//! The watch is opened before the read, so there is no gap; what the read already holds is skipped by its revision. The other
//! order, watching from the revision of the read, would put the watch among those that etcd catches up only every 100 ms.
//!
//! The server is asked for its progress all the time, so silence means that it is gone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Event, KeyValue, WatchResponse, WatchStream};
use sd_core::{Clock, Error, ErrorKind, Feed, Result, ServiceName, Snapshot, Watcher};
use tokio::time::{Instant, sleep_until};

use crate::backend::EtcdBackend;
use crate::client::{Client, Position, position};
use crate::connection::Connection;
use crate::entries::{Entries, revision};
use crate::error::{cancel_kind, translate};
use crate::instancer::read;

const OP: &str = "etcd: watch service";

/// The watch id in an answer to a progress request, which concerns all watches of a stream.
const ALL_WATCHES: i64 = -1;

/// One watch on a stream of its own.
#[derive(Debug)]
pub(crate) struct EtcdWatcher {
    client: Arc<Client>,
    connection: Connection,
    clock: Arc<dyn Clock>,
    stream: WatchStream,
    entries: Entries,
    /// Everything up to here is in `entries`.
    position: Position,
    first: Option<Snapshot>,
    ask_at: Instant,
    ask_every: Duration,
}

impl EtcdWatcher {
    pub(crate) async fn open(
        backend: &EtcdBackend,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Self> {
        let client = &backend.client;
        let (from, to) = backend.layout.service(service);
        let (connection, stream, created) = client.watch(OP, (&from, &to)).await?;
        check_cancelled(client, &connection, &created)?;
        let watched_from = position(OP, created.header())?;

        let as_of = backend.clock.now();
        let (mut entries, position) = read(client, &backend.layout, OP, service, known).await?;
        if position.cluster != watched_from.cluster || position.revision < watched_from.revision {
            return Err(Error::new(ErrorKind::Outdated, OP)
                .because("watch and read were answered by different histories"));
        }
        let first = entries.snapshot(position, as_of);
        let ask_every = client.config().keep_alive_interval;
        Ok(Self {
            client: Arc::clone(client),
            connection,
            clock: Arc::clone(&backend.clock),
            stream,
            entries,
            position,
            first: Some(first),
            ask_at: Instant::now() + ask_every,
            ask_every,
        })
    }

    /// What an answer on the stream means.
    fn take(&mut self, answer: &WatchResponse) -> Result<Feed> {
        check_cancelled(&self.client, &self.connection, answer)?;
        let at = position(OP, answer.header())?;
        if at.cluster != self.position.cluster {
            return Err(Error::new(ErrorKind::Outdated, OP).because("another cluster answers"));
        }
        let as_of = self.clock.now();
        // Several events may have one revision, but they come in one answer.
        let seen = self.position.revision;
        for entry in answer.events().iter().filter_map(Event::kv) {
            if entry.mod_revision() > seen {
                self.apply(entry);
            }
        }
        // Servers before 3.4.25 and 3.5.8 may answer a progress request before the events up to its revision. So it proves
        // that the server lives, but moves nothing. A notification for this very watch does.
        if answer.events().is_empty() && answer.watch_id() != ALL_WATCHES {
            self.position.revision = seen.max(at.revision);
        }
        Ok(if self.entries.is_changed() {
            Feed::Set(self.entries.snapshot(self.position, as_of))
        } else {
            Feed::Alive {
                revision: revision(self.position),
                as_of,
            }
        })
    }

    fn apply(&mut self, entry: &KeyValue) {
        // A deleted key has no version. `Event::event_type` would panic on a type that it does not know.
        if entry.version() == 0 {
            self.entries.delete(entry.key());
        } else {
            self.entries
                .put(entry.key(), entry.value(), entry.into(), None);
        }
        self.position.revision = self.position.revision.max(entry.mod_revision());
    }

    fn failed(&self, error: etcd_client::Error) -> Error {
        self.client.retire(&self.connection);
        translate(OP, error)
    }
}

#[async_trait]
impl Watcher for EtcdWatcher {
    async fn next(&mut self) -> Result<Feed> {
        if let Some(first) = self.first.take() {
            return Ok(Feed::Set(first));
        }
        loop {
            tokio::select! {
                biased;
                closed = self.client.closed() => return Err(closed),
                answer = self.stream.message() => return match answer {
                    Ok(Some(answer)) => self.take(&answer),
                    Ok(None) => {
                        self.client.retire(&self.connection);
                        Err(Error::new(ErrorKind::Unavailable, OP).because("the server ended the stream"))
                    }
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

    fn silence_limit(&self) -> Duration {
        self.ask_every * 2 + self.client.config().keep_alive_timeout
    }
}

fn check_cancelled(client: &Client, connection: &Connection, answer: &WatchResponse) -> Result<()> {
    if !answer.canceled() {
        return Ok(());
    }
    if answer.compact_revision() > 0 {
        return Err(Error::new(ErrorKind::Outdated, OP).because(format!(
            "the server has forgotten everything before revision {}",
            answer.compact_revision()
        )));
    }
    // Perhaps the login has become outdated: the next feed logs in anew.
    client.retire(connection);
    let reason = answer.cancel_reason();
    Err(Error::new(cancel_kind(reason), OP)
        .because(format!("the server cancelled the watch: {reason}")))
}
