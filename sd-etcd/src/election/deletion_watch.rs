//! What wakes a candidate: watches of its own entry and of the one before it, for their deletion, on one stream.
//!
//! It begins now, not at a position, so nothing that etcd compacts can break it; and it asks nothing of the server while all is
//! quiet. A connection that died is found out by HTTP/2 pings, or sooner by confirmations, which also look at the same two keys.

use etcd_client::{Event, KeyValue, WatchStream};
use sd_core::Result;

use crate::client::Client;
use crate::client::connection::Connection;
use crate::client::error::{caught, stream_ended, translate};

/// A stream with one or two watches.
#[derive(Debug)]
pub(crate) struct DeletionWatch {
    connection: Connection,
    stream: WatchStream,
    /// The key of the entry before ours that it watches.
    behind: Option<Vec<u8>>,
}

impl DeletionWatch {
    /// Watches from now on: read where the entry stands only after this has returned.
    pub(crate) async fn open(
        client: &Client,
        op: &'static str,
        own: &str,
        behind: Option<Vec<u8>>,
    ) -> Result<Self> {
        let keys: Vec<&[u8]> = std::iter::once(own.as_bytes())
            .chain(behind.as_deref())
            .collect();
        let (connection, stream) = client.watch_deletions(op, &keys).await?;
        Ok(Self {
            connection,
            stream,
            behind,
        })
    }

    /// Whether it wakes an entry that stands behind this one, or is first.
    pub(crate) fn covers(&self, behind: Option<&[u8]>) -> bool {
        !self.connection.is_retired() && (behind.is_none() || behind == self.behind.as_deref())
    }

    /// Returns when one of the keys was deleted, or may have been; true if it is known to be that of the entry before ours alone. An
    /// error ends it. Cancel-safe.
    pub(crate) async fn woken(&mut self, client: &Client, op: &'static str) -> Result<bool> {
        loop {
            let answer = tokio::select! {
                biased;
                closed = client.closed(op) => return Err(closed),
                answer = caught(self.stream.message()) => answer,
                () = self.connection.retired() => return Ok(false),
            };
            match answer.and_then(|answer| answer.ok_or_else(stream_ended)) {
                Ok(answer) => {
                    client.check_watch(op, &self.connection, &answer)?;
                    let mut deleted = answer.events().iter().map(Event::kv).peekable();
                    if deleted.peek().is_some() {
                        let before = self.behind.as_deref();
                        return Ok(deleted.all(|kv| kv.map(KeyValue::key) == before));
                    }
                }
                Err(error) => {
                    client.retire(&self.connection);
                    return Err(translate(op, error));
                }
            }
        }
    }
}

#[cfg(test)]
impl DeletionWatch {
    /// One that seems to watch `behind`, but will never hear of it.
    pub(crate) fn deaf_to(mut self, behind: Vec<u8>) -> Self {
        self.behind = Some(behind);
        self
    }
}
