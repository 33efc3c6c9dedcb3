//! Steps that are carried out to their end, one after the other for each key.
//!
//! Consul carries out a request that it has received, even if the sender does not wait any more. So a write that was dropped
//! would otherwise race with the one that cleans up after it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, Weak};

use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result};

/// One queue of steps for each key.
#[derive(Debug)]
pub(crate) struct WriteQueue<K>(Mutex<BTreeMap<K, Weak<tokio::sync::Mutex<()>>>>);

impl<K> Default for WriteQueue<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone> WriteQueue<K> {
    /// Runs `work` when all earlier work for this key is done. Once begun it goes on in a task of its own if the call is dropped;
    /// so it must have an end.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        key: &K,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let turn = self.queue(key).lock_owned().await;
        let task = tokio::spawn(async move {
            let _turn = turn;
            work.await
        });
        task.await
            .unwrap_or_else(|error| Err(Error::new(ErrorKind::Unavailable, op).with_source(error)))
    }

    fn queue(&self, key: &K) -> Arc<tokio::sync::Mutex<()>> {
        let mut queues = lock(&self.0);
        // A step that waits or runs holds its queue.
        queues.retain(|_, queue| queue.strong_count() > 0);
        if let Some(queue) = queues.get(key).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Arc::default();
        queues.insert(key.clone(), Arc::downgrade(&queue));
        queue
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_begun_is_done_before_what_follows_even_if_no_caller_waits() {
        let queue = WriteQueue::default();
        let (go, gate) = oneshot::channel::<()>();
        let (done, mut seen) = oneshot::channel();
        let dropped = queue.run("test", &1, async move {
            let _ = gate.await;
            let _ = done.send(());
            Ok(())
        });
        assert!(dropped.now_or_never().is_none());
        let next = queue.run("test", &1, async move { Ok(seen.try_recv().is_ok()) });
        let waiting = tokio::time::timeout(Duration::from_secs(1), next).await;
        assert!(waiting.is_err(), "begun beside the one before it");
        go.send(()).unwrap();
        assert!(queue.run("test", &1, async { Ok(()) }).await.is_ok());
    }

    #[tokio::test]
    async fn keys_do_not_wait_for_each_other_and_are_forgotten() {
        let queue = WriteQueue::default();
        let stuck = queue.run("test", &1, std::future::pending::<Result<()>>());
        assert!(stuck.now_or_never().is_none());
        assert!(queue.run("test", &2, async { Ok(7) }).await.is_ok());
        assert!(queue.run("test", &3, async { Ok(7) }).await.is_ok());
        assert_eq!(lock(&queue.0).len(), 2);
    }
}
