//! The end of a backend, which all its clients share.

use std::sync::{Arc, Mutex, Weak};

use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result};
use tokio_util::sync::CancellationToken;

/// Tells whether a backend is closed. Clones are of the same backend: an elector's client, which has a connection of its own, is
/// closed together with the client that all others share.
#[derive(Clone, Debug, Default)]
pub struct CloseSignal {
    token: CancellationToken,
    connections: Arc<Mutex<Vec<Weak<dyn LetGo>>>>,
}

/// What keeps a connection as long as the backend is open.
pub(crate) trait LetGo: Send + Sync {
    fn let_go(&self);
}

impl CloseSignal {
    /// The signal of a backend that is open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Closes the backend: every call that asks here answers `Closed` from now on, also those under way, and each
    /// [`SharedConnection`](crate::SharedConnection) lets go of its connection.
    pub fn close(&self) {
        self.token.cancel();
        let connections = std::mem::take(&mut *lock(&self.connections));
        for connection in connections.iter().filter_map(Weak::upgrade) {
            connection.let_go();
        }
    }

    /// Whether the backend is closed.
    pub fn is_closed(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Fails if the backend is closed.
    ///
    /// # Errors
    /// `Closed`.
    pub fn check_open(&self, op: &'static str) -> Result<()> {
        if self.is_closed() {
            return Err(closed(op));
        }
        Ok(())
    }

    /// Returns `Closed` when the backend is closed. Cancel-safe.
    pub async fn closed(&self, op: &'static str) -> Error {
        self.token.cancelled().await;
        closed(op)
    }

    /// Does `work` unless the backend is closed before it is done.
    ///
    /// # Errors
    /// `Closed`, or those of `work`.
    ///
    /// # Cancel safety
    /// As that of `work`, which is dropped when the backend is closed.
    pub async fn unless_closed<T>(
        &self,
        op: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            closed = self.closed(op) => Err(closed),
            done = work => done,
        }
    }

    /// Lets this one go when the backend is closed, if it is in use then.
    pub(crate) fn add(&self, connection: Weak<dyn LetGo>) {
        let mut connections = lock(&self.connections);
        connections.retain(|other| other.strong_count() > 0);
        connections.push(connection);
    }
}

fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op).because("the registry was closed")
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn work_is_done_until_the_backend_is_closed_and_given_up_then_with_every_clone() {
        let signal = CloseSignal::new();
        let done = signal.unless_closed("test", async { Ok(7) });
        assert_eq!(done.now_or_never().unwrap().unwrap(), 7);
        let clone = signal.clone();
        let mut under_way = Box::pin(clone.unless_closed("test", pending::<Result<()>>()));
        assert!(under_way.as_mut().now_or_never().is_none());
        signal.check_open("test").unwrap();
        signal.close();
        for error in [
            under_way.now_or_never().unwrap().unwrap_err(),
            clone.closed("test").now_or_never().unwrap(),
            clone.check_open("test").unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Closed);
        }
        let late = clone.unless_closed("test", async { Ok(7) });
        assert!(late.now_or_never().unwrap().is_err());
    }
}
