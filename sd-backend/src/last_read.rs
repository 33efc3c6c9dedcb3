//! What was last read of something that changes at a server.

use sd_core::Result;
use tokio::sync::watch;

/// What was last read, for calls that read again only if it may have changed since, and for those that wait until it may have.
pub(crate) struct LastRead<T>(watch::Sender<Known<T>>);

struct Known<T> {
    /// `None` if it may have changed.
    value: Option<T>,
    /// Counts how often that happened: the result of a read that began before the last time is not kept.
    generation: u64,
}

impl<T: Clone> LastRead<T> {
    /// What was last read, if it has not changed since as far as is known here.
    pub(crate) fn value(&self) -> Option<T> {
        self.0.borrow().value.clone()
    }

    /// What was last read, and its generation. Reads it if it may have changed.
    ///
    /// # Errors
    /// Those of `read`.
    ///
    /// # Cancel safety
    /// A dropped call drops `read`.
    pub(crate) async fn get_or_read(
        &self,
        read: impl Future<Output = Result<T>>,
    ) -> Result<(T, u64)> {
        let (value, generation) = {
            let known = self.0.borrow();
            (known.value.clone(), known.generation)
        };
        if let Some(value) = value {
            return Ok((value, generation));
        }
        let value = read.await?;
        self.0.send_if_modified(|known| {
            if known.generation == generation {
                known.value = Some(value.clone());
            }
            false
        });
        Ok((value, generation))
    }

    /// Makes calls that wait read again.
    pub(crate) fn invalidate(&self) {
        self.note(None);
    }

    /// Takes it that this is so now. What a read says that began before is not kept.
    pub(crate) fn set(&self, value: T) {
        self.note(Some(value));
    }

    /// As [`set`](Self::set), unless something else became known after this generation.
    pub(crate) fn set_after(&self, generation: u64, value: T) {
        self.0.send_if_modified(|known| {
            let is_newer = known.generation == generation;
            if is_newer {
                known.value = Some(value);
                known.generation += 1;
            }
            is_newer
        });
    }

    fn note(&self, value: Option<T>) {
        self.0.send_modify(|known| {
            known.value = value;
            known.generation += 1;
        });
    }

    /// Returns when what was known in this generation no longer holds. Cancel-safe.
    pub(crate) async fn invalidated(&self, generation: u64) {
        let mut known = self.0.subscribe();
        // Cannot fail: `self` holds the sender.
        let _ = known.wait_for(|known| known.generation != generation).await;
    }
}

impl<T> Default for LastRead<T> {
    /// Nothing was read yet.
    fn default() -> Self {
        Self(watch::Sender::new(Known {
            value: None,
            generation: 0,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures_util::FutureExt;

    use super::*;

    async fn get(last: &LastRead<u32>, new: u32) -> (u32, u64) {
        last.get_or_read(ready(Ok(new))).await.unwrap()
    }

    #[tokio::test]
    async fn what_became_known_since_is_not_replaced() {
        let last = LastRead::default();
        let (_, first) = get(&last, 1).await;
        last.set_after(first, 2);
        assert_eq!(last.value(), Some(2));
        last.set_after(first, 3);
        assert_eq!(last.value(), Some(2));
    }

    #[tokio::test]
    async fn what_was_read_is_kept_until_it_may_have_changed() {
        let last = LastRead::default();
        let (value, first) = get(&last, 1).await;
        assert_eq!((value, get(&last, 2).await), (1, (1, first)));
        let mut waiting = Box::pin(last.invalidated(first));
        assert!(waiting.as_mut().now_or_never().is_none());
        last.invalidate();
        waiting.await;
        assert!(last.value().is_none());
        let (value, second) = get(&last, 3).await;
        assert!(value == 3 && get(&last, 4).await.1 == second);
        last.set(4);
        last.invalidated(second).await;
        assert_eq!(last.value(), Some(4));
    }

    #[tokio::test]
    async fn what_a_read_says_that_began_before_the_last_change_is_not_kept() {
        let last = LastRead::default();
        let reading = async {
            last.invalidate();
            Ok(1)
        };
        let (value, generation) = last.get_or_read(reading).await.unwrap();
        assert_eq!(value, 1);
        assert!(last.invalidated(generation).now_or_never().is_some());
        assert_eq!(last.value(), None);
    }
}
