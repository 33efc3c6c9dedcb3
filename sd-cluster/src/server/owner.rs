//! The thread that owns what the service knows.
//!
//! One thing at a time changes it, so that a connection that begins to follow something gets the list and every change after it, without
//! a lock over a wait. Writing to a file blocks this thread, and no runtime. What changes while a list is told to many is told with the
//! next one, so that a thousand modules that connect at once do not make a thousand lists for each of a thousand readers.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::state::{SessionId, State};

/// What waits to be done. Who has more to be done waits for room.
const MOST_WAITING: usize = 1024;
/// What is done before changes are told, if so much waits.
const MOST_AT_ONCE: usize = 256;

type Work = Box<dyn FnOnce(&mut State) + Send>;

/// Has work done by the thread, which ends when the last clone is gone.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    work: mpsc::Sender<Work>,
    /// Sessions that were dropped and are still listed.
    dropped: Arc<Mutex<Vec<SessionId>>>,
}

/// A session that is listed. It is listed no longer once this is dropped, also where its runtime has ended and nothing can be waited for.
#[derive(Debug)]
pub(crate) struct Listed {
    owner: Owner,
    pub(crate) id: SessionId,
}

impl Owner {
    /// Starts the thread. After `stop` it keeps what is listed then for the next start: connections end because of it.
    pub(crate) fn start(mut state: State, stop: CancellationToken) -> io::Result<Self> {
        let (work, mut waiting) = mpsc::channel::<Work>(MOST_WAITING);
        let dropped = Arc::<Mutex<Vec<SessionId>>>::default();
        let to_remove = Arc::clone(&dropped);
        let run = move || {
            while let Some(first) = waiting.blocking_recv() {
                first(&mut state);
                for _ in 1..MOST_AT_ONCE {
                    match waiting.try_recv() {
                        Ok(next) => next(&mut state),
                        Err(_) => break,
                    }
                }
                for id in std::mem::take(&mut *lock(&to_remove)) {
                    state.disconnect(id);
                }
                state.tell();
                if !stop.is_cancelled() {
                    state.keep_listed();
                }
            }
        };
        let thread = thread::Builder::new().name("sd config service".to_owned());
        thread.spawn(run)?;
        Ok(Self { work, dropped })
    }

    /// Has a session removed when this is dropped.
    pub(crate) fn listed(&self, id: SessionId) -> Listed {
        Listed {
            owner: self.clone(),
            id,
        }
    }

    /// How much waits to be done.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.work.max_capacity() - self.work.capacity()
    }

    /// Returns when the thread has ended, which only a panic in it can do.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn ended(&self) {
        self.work.closed().await;
    }

    /// Does `work` after all that was asked for before.
    ///
    /// # Cancel safety
    /// What has room is done, even if its result is waited for no longer.
    ///
    /// # Errors
    /// `Closed` if the thread has ended, which only a panic in it can do.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        let work = Box::new(move |state: &mut State| {
            // Fails if the caller has given up.
            let _ = tell.send(work(state));
        });
        let ended = || Error::new(ErrorKind::Closed, op).because("the service has ended");
        self.work.send(work).await.map_err(|_| ended())?;
        told.await.map_err(|_| ended())
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.owner.dropped).push(self.id);
        // Wakes the thread. It needs no waking if there is no room: it comes to the session after what it does.
        let _ = self.owner.work.try_send(Box::new(|_| {}));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::server::limits::Limits;
    use crate::server::store::{InMemory, Kept};

    #[tokio::test]
    async fn its_end_is_told_when_a_panic_has_ended_it_and_not_before() {
        let state = State::new(Limits::default(), Box::new(InMemory), Kept::default());
        let owner = Owner::start(state, CancellationToken::new()).unwrap();
        owner.call("test", |_| ()).await.unwrap();
        let early = timeout(Duration::from_millis(50), owner.ended()).await;
        early.unwrap_err();
        let broken: Result<()> = owner.call("test", |_| panic!("a bug")).await;
        assert_eq!(broken.unwrap_err().kind(), ErrorKind::Closed);
        timeout(Duration::from_secs(30), owner.ended())
            .await
            .unwrap();
    }
}
