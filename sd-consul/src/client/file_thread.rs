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

use tokio::sync::{Semaphore, oneshot};

/// Runs one piece of work at a time, so that files that hang hold up one thread and no more.
#[derive(Debug)]
pub(crate) struct FileThread(Arc<Semaphore>);

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
    /// If there is no thread to be had, or `work` panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let (tell, told) = oneshot::channel();
        spawn(move || {
            let _permit = permit;
            // Fails if the caller has given up.
            let _ = tell.send(work());
        })?;
        told.await.map_err(|_| panicked())
    }
}

/// Runs `work` and blocks until it is done, but no longer than `limit`.
///
/// # Errors
/// `TimedOut` if it takes longer. If there is no thread to be had, or `work` panics.
pub(crate) fn run_within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (tell, told) = mpsc::sync_channel(1);
    spawn(move || {
        // Fails if the caller has given up.
        let _ = tell.send(work());
    })?;
    told.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the files were not read within {limit:?}"),
        ),
        RecvTimeoutError::Disconnected => panicked(),
    })
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("sd-consul files".to_owned());
    thread.spawn(work).map(drop)
}

fn panicked() -> io::Error {
    io::Error::other("the thread that reads files panicked")
}

/// A file in `folder` that hangs until something is written to it.
#[cfg(test)]
pub(crate) fn hanging_file(folder: &tempfile::TempDir) -> std::path::PathBuf {
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    path
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn work_is_done_in_order_and_what_nobody_waits_for_before_it_began_is_not_done() {
        let files = FileThread::default();
        let (go, gate) = mpsc::channel::<()>();
        let mut first = Box::pin(files.run(move || gate.recv()));
        assert!(first.as_mut().now_or_never().is_none());
        let (began, abandoned) = mpsc::channel::<()>();
        let second = files.run(move || began.send(()));
        assert!(second.now_or_never().is_none());
        // Nothing is sent, because what would have sent it is gone.
        assert!(abandoned.recv().is_err());
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(()));
        assert_eq!(files.run(|| 3).await.unwrap(), 3);
        assert!(files.run(|| panic!("of the test")).await.is_err());
        assert_eq!(files.run(|| 4).await.unwrap(), 4);
    }
}
