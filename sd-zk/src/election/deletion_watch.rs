//! What wakes a candidate: the deletion of its own node, or of the one before it.
//!
//! A candidate behind the leader leads on the deletion of the leader's node: ZooKeeper tells the events of one connection in the order in
//! which they happened. So if the deletion of its own node was not told before, that node was there, and the first. Across connections
//! there is no order, since a server that takes over tells at once whatever has changed.

use std::pin::Pin;

use futures_util::FutureExt;
use sd_backend::Woken;
use sd_core::{Error, ErrorKind, Result};
use zookeeper_client as zk;

use crate::client::error::translate;
use crate::client::session::Watching;
use crate::client::watch::fired;
use crate::election::candidate_node::CandidateNode;
use crate::election::keys::Ahead;

type Event = Pin<Box<dyn Future<Output = Result<zk::WatchedEvent>> + Send>>;

/// The watches of one candidate. Each tells once.
pub(crate) struct DeletionWatch {
    states: zk::StateWatcher,
    own: Event,
    ahead: Option<(Ahead, Event)>,
    /// Whether it tells no more.
    is_spent: bool,
    _watching: Watching,
}

impl DeletionWatch {
    /// Watches from now on for a candidate that stands behind this one. `None` if one of both nodes is not there.
    pub(crate) async fn open(
        candidate: &CandidateNode,
        op: &'static str,
        ahead: Option<&Ahead>,
    ) -> Result<Option<Self>> {
        let session = candidate.session();
        // From before the watches on.
        let states = session.states();
        let mut watching = session.watching();
        let paths = [
            Some(candidate.path.len()),
            ahead.map(|ahead| candidate.keys.candidate(&ahead.next).len()),
        ];
        watching.set(paths.into_iter().flatten());
        let client = session.client(op).await?;
        // Not a look whether they exist: one for a node that does not would stay at the server.
        let own = session.answer(op, client.get_and_watch_data(&candidate.path));
        let before = async {
            let Some(ahead) = ahead else {
                return Ok(Ok(None));
            };
            let path = candidate.keys.candidate(&ahead.next);
            let watched = client.get_and_watch_data(&path);
            let watched = session.answer(op, watched).await?;
            Ok(watched.map(|(_, _, watcher)| Some((ahead.clone(), event(op, watcher)))))
        };
        match tokio::try_join!(own, before)? {
            (Ok((_, _, watcher)), Ok(ahead)) => Ok(Some(Self {
                states,
                own: event(op, watcher),
                ahead,
                is_spent: false,
                _watching: watching,
            })),
            (Err(zk::Error::NoNode), _) | (_, Err(zk::Error::NoNode)) => Ok(None),
            (Err(error), _) | (_, Err(error)) => Err(translate(op, error)),
        }
    }

    /// Whether it tells all that matters to a candidate that stands behind this one, or is first.
    pub(crate) fn covers(&self, ahead: Option<&Ahead>) -> bool {
        let is_enough = ahead.is_none() || self.ahead.as_ref().map(|(ahead, _)| ahead) == ahead;
        !self.is_spent && is_enough
    }

    /// Returns when something that matters has happened, or may have. Cancel-safe.
    ///
    /// # Errors
    /// The connection or the session was lost.
    pub(crate) async fn woken(
        &mut self,
        candidate: &CandidateNode,
        op: &'static str,
    ) -> Result<Woken> {
        if self.states.peek_state() == zk::SessionState::Disconnected {
            return Err(disconnected(op));
        }
        let woken = self.next(candidate, op).await;
        self.is_spent = !matches!(woken, Ok(Woken::First));
        woken
    }

    async fn next(&mut self, candidate: &CandidateNode, op: &'static str) -> Result<Woken> {
        let (own, ahead) = (&mut self.own, &mut self.ahead);
        let next = async {
            match ahead {
                Some((_, event)) => event.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            lost = candidate.session().ended(op) => Err(lost),
            state = self.states.changed() => match state {
                zk::SessionState::Disconnected => Err(disconnected(op)),
                // Or the session has ended, as the next look says.
                _ => Ok(Woken::Unsure),
            },
            _ = &mut *own => Ok(Woken::Unsure),
            event = next => {
                let was_first = self.ahead.take().is_some_and(|(ahead, _)| ahead.is_first);
                let is_deletion =
                    event.is_ok_and(|event| event.event_type == zk::EventType::NodeDeleted);
                // Both may have come since they were looked at above.
                let is_in_order = self.states.changed().now_or_never().is_none()
                    && (&mut self.own).now_or_never().is_none();
                let leads = was_first && is_deletion && is_in_order;
                Ok(if leads { Woken::First } else { Woken::Unsure })
            }
        }
    }
}

impl std::fmt::Debug for DeletionWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ahead = self.ahead.as_ref().map(|(ahead, _)| ahead);
        f.debug_tuple("DeletionWatch").field(&ahead).finish()
    }
}

fn event(op: &'static str, watcher: zk::OneshotWatcher) -> Event {
    Box::pin(fired(op, watcher))
}

fn disconnected(op: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, op).because("the connection to the server was lost")
}
