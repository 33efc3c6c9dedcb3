//! Where elections run: a thread of their own, so that a blocked application loses no term by accident.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, Weak};
use std::thread;

use futures_util::future::BoxFuture;
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What drives a participation to its end.
pub(crate) trait Spawn: Debug + Send + Sync {
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// `InvalidInput` if the caller of `op` cannot wait for a moment: tokio's timers are those of the runtime that it is in.
    fn check_caller(&self, op: &'static str) -> Result<()> {
        Handle::try_current()
            .map(drop)
            .map_err(|_| Error::invalid_input(op, "call it inside a tokio runtime"))
    }
}

impl Spawn for Handle {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(Handle::spawn(self, task));
    }
}

/// A thread with a runtime, shared by all candidates of the process. Ends when the last candidate and the last task are gone.
#[derive(Debug)]
pub(crate) struct ElectionThread {
    runtime: Handle,
    _stop_on_drop: DropGuard,
}

static SHARED: Mutex<Weak<ElectionThread>> = Mutex::new(Weak::new());

impl ElectionThread {
    /// The process's thread; starts it if there is none.
    pub(crate) fn shared() -> Result<Arc<Self>> {
        // A panic elsewhere cannot leave a `Weak` half done.
        let mut shared = lock(&SHARED);
        if let Some(running) = shared.upgrade() {
            return Ok(running);
        }
        let started = Arc::new(Self::start().map_err(|error| {
            Error::new(ErrorKind::Unavailable, "start the election thread").with_source(error)
        })?);
        *shared = Arc::downgrade(&started);
        Ok(started)
    }

    fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        thread::Builder::new()
            .name("sd-election".to_owned())
            .spawn(move || {
                runtime.block_on(stopped.cancelled());
                // A look-up of a host name may still hang in a thread that nothing can end.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            runtime: handle,
            _stop_on_drop: stop.drop_guard(),
        })
    }
}

impl Spawn for Arc<ElectionThread> {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let keep_running = Arc::clone(self);
        drop(self.runtime.spawn(async move {
            task.await;
            drop(keep_running);
        }));
    }
}
