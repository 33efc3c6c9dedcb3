//! Who waits for which answer.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use sd_core::sync::lock;
use tokio::sync::oneshot;

/// The events of one end of a connection that were not answered yet. Each end counts its own, from 1.
#[derive(Debug, Default)]
pub(crate) struct Acks(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    last_id: i64,
    waiting: HashMap<i64, oneshot::Sender<Bytes>>,
}

/// One event that waits for its answer. Dropped, it waits no more.
#[derive(Debug)]
pub(crate) struct Pending<'a> {
    acks: &'a Acks,
    pub(crate) id: i64,
    answer: oneshot::Receiver<Bytes>,
}

impl Acks {
    /// The id of the next event, and its answer.
    pub(crate) fn wait(&self) -> Pending<'_> {
        let (tell, answer) = oneshot::channel();
        let mut waiting = lock(&self.0);
        waiting.last_id = waiting.last_id.checked_add(1).unwrap_or(1);
        let id = waiting.last_id;
        waiting.waiting.insert(id, tell);
        Pending {
            acks: self,
            id,
            answer,
        }
    }

    /// An answer has come. One that is not waited for, such as a second one, is of no use.
    pub(crate) fn answered(&self, id: i64, data: Bytes) {
        let waiting = lock(&self.0).waiting.remove(&id);
        if let Some(tell) = waiting {
            // Fails if the caller has given up.
            let _ = tell.send(data);
        }
    }
}

impl Pending<'_> {
    /// The answer. Never returns where none comes: the caller watches the connection. Cancel-safe.
    pub(crate) async fn answer(&mut self) -> Bytes {
        match (&mut self.answer).await {
            Ok(data) => data,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        lock(&self.acks.0).waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn answers_are_told_apart_by_their_ids_and_count_once() {
        let acks = Acks::default();
        let (mut first, mut second) = (acks.wait(), acks.wait());
        assert_eq!((first.id, second.id), (1, 2));
        acks.answered(2, Bytes::from_static(b"two"));
        acks.answered(2, Bytes::from_static(b"again"));
        acks.answered(7, Bytes::from_static(b"unknown"));
        assert_eq!(second.answer().now_or_never().unwrap(), "two");
        assert!(first.answer().now_or_never().is_none());
        acks.answered(1, Bytes::new());
        assert_eq!(first.answer().now_or_never().unwrap(), "");
    }

    #[test]
    fn nothing_is_kept_of_an_event_that_was_given_up() {
        let acks = Acks::default();
        drop(acks.wait());
        acks.answered(1, Bytes::new());
        assert!(lock(&acks.0).waiting.is_empty());
        assert_eq!(acks.wait().id, 2);
    }
}
