//! What waits to be sent to one connection: answers, and of each event the newest. So a peer that reads slowly holds up no other, and is
//! owed no more than one message for each thing that it follows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sd_core::sync::lock;
use tokio::sync::Notify;

use crate::etp::budget::Spent;

/// The end that messages are put in. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<VecDeque<Waiting>>,
    wake: Notify,
}

struct Waiting {
    /// Of an event. An answer has none.
    name: Option<Arc<str>>,
    message: Bytes,
    /// What is spent for an answer until it is on its way.
    _spent: Option<Spent>,
}

impl Outbox {
    /// Sends an event. One of this name that still waits is left out: each tells everything.
    pub(crate) fn event(&self, name: &Arc<str>, message: Bytes) {
        let mut waiting = lock(&self.0.waiting);
        // The newest stands at the end, also behind what was put in later than the one that it replaces: events of two names can tell
        // of the same thing.
        waiting.retain(|one| one.name.as_ref() != Some(name));
        waiting.push_back(Waiting {
            name: Some(Arc::clone(name)),
            message,
            _spent: None,
        });
        drop(waiting);
        self.0.wake.notify_one();
    }

    /// Sends an answer, which repeats the name of its event and so may be as large: what was spent for the event stays spent. The caller
    /// handles no other event before the answer is on its way, so that no second one waits.
    pub(crate) fn answer(&self, message: Bytes, spent: Option<Spent>) {
        lock(&self.0.waiting).push_back(Waiting {
            name: None,
            message,
            _spent: spent,
        });
        self.0.wake.notify_one();
    }

    /// Whether an answer waits.
    pub(crate) fn owes_answer(&self) -> bool {
        let waiting = lock(&self.0.waiting);
        waiting.iter().any(|one| one.name.is_none())
    }

    /// How many answers wait.
    #[cfg(test)]
    pub(crate) fn waiting_answers(&self) -> usize {
        let waiting = lock(&self.0.waiting);
        waiting.iter().filter(|one| one.name.is_none()).count()
    }

    /// The next message, if one waits.
    pub(crate) fn take(&self) -> Option<Bytes> {
        lock(&self.0.waiting).pop_front().map(|one| one.message)
    }

    /// The next message. For one caller at a time.
    ///
    /// # Cancel safety
    /// Safe: a message is taken only when it is returned.
    pub(crate) async fn next(&self) -> Bytes {
        loop {
            if let Some(message) = self.take() {
                return message;
            }
            self.0.wake.notified().await;
        }
    }
}

/// Messages are not shown: they may hold secrets.
impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.message.len();
        write!(f, "{:?} ({bytes} bytes)", self.name)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn all(outbox: &Outbox) -> Vec<Bytes> {
        std::iter::from_fn(|| outbox.take()).collect()
    }

    #[tokio::test]
    async fn the_newest_event_of_a_name_replaces_the_older_ones_and_stands_last() {
        let outbox = Outbox::default();
        let (connected, changed) = (Arc::from("connected"), Arc::from("changed"));
        outbox.event(&connected, Bytes::from_static(b"1"));
        outbox.event(&changed, Bytes::from_static(b"2"));
        outbox.answer(Bytes::from_static(b"ok"), None);
        outbox.event(&connected, Bytes::from_static(b"3"));
        outbox.answer(Bytes::from_static(b"ok"), None);
        assert_eq!(all(&outbox), ["2", "ok", "3", "ok"]);
        for nth in 0..1000 {
            outbox.event(&changed, Bytes::from(format!("{nth}")));
        }
        assert_eq!(all(&outbox), ["999"]);
    }

    #[tokio::test]
    async fn what_is_put_in_wakes_and_a_dropped_wait_loses_nothing() {
        let outbox = Outbox::default();
        assert!(outbox.next().now_or_never().is_none());
        let mut next = Box::pin(outbox.next());
        assert!(next.as_mut().now_or_never().is_none());
        outbox.answer(Bytes::from_static(b"ok"), None);
        drop(next);
        assert_eq!(outbox.next().now_or_never().unwrap(), "ok");
    }
}
