//! Reads files on a thread of their own.
//!
//! A file can hang: on a network share, or as a pipe that no program writes to. No thread of a runtime may wait for it then. The
//! runtimes' own pools for blocking work are no place for it either: a runtime that is shut down waits for what it runs there, and
//! the other runtimes that use the same client would lose what they asked for.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use sd_core::{Error, ErrorKind, Result};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::rules::Rules;

/// Runs one piece of work at a time, so that files that hang hold up one thread and no more.
#[derive(Debug)]
pub struct FileThread(Arc<Semaphore>);

impl Default for FileThread {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl FileThread {
    /// Runs `work` after all that was begun before.
    ///
    /// # Cancel safety
    /// Safe: work that has begun is carried out, other work is not.
    ///
    /// # Errors
    /// `Unavailable` if there is no thread to be had, or `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let (tell, told) = oneshot::channel();
        let spawned = spawn(move || {
            let _permit = permit;
            // Fails if the caller has given up.
            let _ = tell.send(work());
        });
        let done = match spawned {
            Ok(()) => told.await.map_err(|_| panicked()),
            Err(error) => Err(error),
        };
        done.map_err(|error| Error::new(ErrorKind::Unavailable, op).with_source(error))
    }

    /// Reads the files that the settings `keys` name once more. They could be read at the start, so an operator is at work on them if they
    /// cannot be read now.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    ///
    /// # Errors
    /// `Denied`, with those of `read`. `Timeout` names `keys` if it takes longer than `limit`. Those of [`run`](Self::run).
    pub async fn read_again<T: Send + 'static>(
        &self,
        op: &'static str,
        keys: &str,
        limit: Duration,
        read: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Ok(read) = timeout(limit, self.run(op, read)).await else {
            return Err(
                Error::new(ErrorKind::Timeout, op).because(format!("{keys}: {}", too_long(limit)))
            );
        };
        read?.map_err(|error| Error::new(ErrorKind::Denied, op).with_source(error))
    }
}

impl Rules {
    /// Runs `read`, which reads the files that the settings `keys` name, before a backend is opened: a wrong one is told at the start.
    /// Blocks, but not longer than `limit`.
    ///
    /// # Errors
    /// Those of `read`. `InvalidInput` names `keys` if it takes longer, or panics, or if there is no thread to be had.
    pub fn read_within<T: Send + 'static>(
        &self,
        keys: &str,
        limit: Duration,
        read: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        run_within(limit, read).unwrap_or_else(|error| Err(self.broken(keys, error)))
    }
}

/// Runs `work` and blocks until it is done, but no longer than `limit`.
fn run_within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (tell, told) = mpsc::sync_channel(1);
    spawn(move || {
        // Fails if the caller has given up.
        let _ = tell.send(work());
    })?;
    told.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => io::Error::new(io::ErrorKind::TimedOut, too_long(limit)),
        RecvTimeoutError::Disconnected => panicked(),
    })
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("sd files".to_owned());
    thread.spawn(work).map(drop)
}

fn too_long(limit: Duration) -> String {
    format!("the files were not read within {limit:?}: look for one that hangs")
}

fn panicked() -> io::Error {
    io::Error::other("the thread that reads files panicked")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn work_is_done_in_order_and_what_no_caller_waits_for_when_it_would_begin_is_not_done() {
        let files = FileThread::default();
        let (go, gate) = mpsc::channel::<()>();
        let mut first = Box::pin(files.run("test", move || gate.recv()));
        assert!(first.as_mut().now_or_never().is_none());
        let (began, abandoned) = mpsc::channel::<()>();
        let second = files.run("test", move || began.send(()));
        assert!(second.now_or_never().is_none());
        // Nothing is sent, because what would have sent it is gone.
        assert!(abandoned.recv().is_err());
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(()));
        assert_eq!(files.run("test", || 3).await.unwrap(), 3);
        assert!(files.run("test", || panic!("of the test")).await.is_err());
        assert_eq!(files.run("test", || 4).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn files_that_cannot_be_read_again_are_denied_and_those_that_hang_are_named() {
        let files = FileThread::default();
        let limit = Duration::from_millis(50);
        let wrong = || Err::<(), _>(Error::invalid_input("newdb: configuration", "ca: is empty"));
        let error = files.read_again("test", "ca", limit * 100, wrong).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.report().to_string().contains("ca: is empty"));
        let (go, gate) = mpsc::channel::<()>();
        let hanging = move || Ok(gate.recv().is_err());
        let error = files.read_again("test", "ca", limit, hanging).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let report = error.report().to_string();
        assert!(
            report.contains("ca: the files were not read within 50ms"),
            "{report}"
        );
        drop(go);
        let read = files.read_again("test", "ca", limit * 100, || Ok(3)).await;
        assert_eq!(read.unwrap(), 3);
    }

    #[test]
    fn a_file_that_hangs_and_one_that_makes_its_reader_panic_are_refused_by_their_keys() {
        const RULES: Rules = Rules::new("newdb: configuration");
        let limit = Duration::from_millis(50);
        let (_go, gate) = mpsc::channel::<()>();
        let hanging = RULES.read_within("ca", limit, move || Ok(gate.recv()));
        let panicking = RULES.read_within("ca", limit * 100, || -> Result<()> {
            panic!("of the test")
        });
        for (error, why) in [
            (
                hanging.unwrap_err(),
                "ca: the files were not read within 50ms",
            ),
            (
                panicking.unwrap_err(),
                "ca: the thread that reads files panicked",
            ),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let report = error.report().to_string();
            assert!(report.contains(why), "{report}");
        }
        assert_eq!(RULES.read_within("ca", limit * 100, || Ok(3)).unwrap(), 3);
    }
}
