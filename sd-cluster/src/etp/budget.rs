//! How much of one connection may be in memory: queues of messages that are bounded by bytes, because one may have 4 MiB and most have few.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::etp::in_flight::Part;
use crate::etp::message::{MOST_BYTES, Message};

/// Bytes of messages that wait in one direction: as many as the largest one has.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

/// Bytes of a message that is in memory. They are free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Spent {
    _permit: Option<OwnedSemaphorePermit>,
    /// Of what all connections have.
    _part: Option<Part>,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MOST_BYTES)))
    }

    /// Waits until there is room for so many bytes. What is larger than all room has all of it. `part` is what they count beyond this
    /// connection. Cancel-safe.
    pub(crate) async fn spend(&self, bytes: usize, part: Option<Part>) -> Spent {
        let permits = u32::try_from(bytes.min(MOST_BYTES)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.0).acquire_many_owned(permits).await;
        Spent {
            // Fails only for a semaphore that was closed, and this one is not.
            _permit: permit.ok(),
            _part: part,
        }
    }
}

/// An event of a peer. Its bytes are spent until this is dropped.
#[derive(Debug)]
pub(crate) struct Event {
    message: Message,
    #[cfg_attr(
        not(feature = "server"),
        expect(dead_code, reason = "held until the event is dropped")
    )]
    spent: Spent,
}

#[cfg(feature = "server")]
impl Event {
    /// What stays spent until the event is answered.
    pub(crate) fn into_spent(self) -> Spent {
        self.spent
    }
}

impl Deref for Event {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// The events of a peer, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Events(mpsc::Receiver<(Message, Spent)>);

impl Events {
    pub(crate) fn new(receiver: mpsc::Receiver<(Message, Spent)>) -> Self {
        Self(receiver)
    }

    /// The next event. `None` when the connection is over. Cancel-safe.
    pub(crate) async fn recv(&mut self) -> Option<Event> {
        let (message, spent) = self.0.recv().await?;
        Some(Event { message, spent })
    }

    /// The next event, if there is one already.
    #[cfg(feature = "server")]
    pub(crate) fn try_recv(&mut self) -> Option<Event> {
        let (message, spent) = self.0.try_recv().ok()?;
        Some(Event { message, spent })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_waits_has_at_most_as_many_bytes_as_the_largest_message() {
        let budget = Budget::new();
        let half = budget.spend(MOST_BYTES / 2, None).now_or_never().unwrap();
        let small: Vec<_> = (0..1000)
            .map(|_| budget.spend(1, None).now_or_never().unwrap())
            .collect();
        assert!(budget.spend(MOST_BYTES / 2, None).now_or_never().is_none());
        drop(small);
        let other = budget.spend(MOST_BYTES / 2, None).now_or_never().unwrap();
        assert!(budget.spend(1, None).now_or_never().is_none());
        drop((half, other));
        assert!(budget.spend(2 * MOST_BYTES, None).now_or_never().is_some());
    }
}
