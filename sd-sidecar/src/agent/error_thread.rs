//! Hands errors to the process's handler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use super::error::AgentError;
use super::parts::ErrorHandler;

/// How many errors wait for a handler that is slow.
const QUEUED_ERRORS: usize = 64;

/// Hands errors to the handler on a thread of its own, where it may block for as long as it likes: a runtime that ends waits for those of
/// its own. The thread begins with the first error, and ends after the last one.
pub(crate) struct Errors {
    handler: Option<ErrorHandler>,
    queue: OnceLock<Option<SyncSender<AgentError>>>,
}

impl Errors {
    pub(crate) fn new(handler: Option<ErrorHandler>) -> Self {
        Self {
            handler,
            queue: OnceLock::new(),
        }
    }

    pub(crate) fn tell(&self, error: AgentError) {
        tracing::debug!(%error, "agent");
        let Some(handler) = &self.handler else { return };
        let queue = self.queue.get_or_init(|| start(handler));
        if let Some(queue) = queue
            && queue.try_send(error).is_err()
        {
            tracing::warn!("the handler of the agent's errors is slow and misses one");
        }
    }
}

fn start(handler: &ErrorHandler) -> Option<SyncSender<AgentError>> {
    let (queue, errors) = sync_channel::<AgentError>(QUEUED_ERRORS);
    let handler = Arc::clone(handler);
    let thread = thread::Builder::new().name("agent-errors".to_owned());
    let started = thread.spawn(move || {
        for error in errors {
            let told = catch_unwind(AssertUnwindSafe(|| handler(&error)));
            if told.is_err() {
                tracing::warn!("the handler of the agent's errors has panicked");
            }
        }
    });
    match started {
        Ok(_) => Some(queue),
        Err(error) => {
            tracing::warn!(%error, "no thread for the handler of the agent's errors: it hears nothing");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_handler_that_blocks_or_panics_is_called_without_a_runtime_and_until_the_end() {
        let (heard, hearing) = channel();
        let (go_on, blocked) = channel();
        let blocked = std::sync::Mutex::new(blocked);
        let errors = Errors::new(Some(Arc::new(move |error| {
            blocked.lock().unwrap().recv().unwrap();
            heard.send(error.to_string()).unwrap();
            assert_ne!(error.to_string(), "first", "a handler that fails");
        })));
        errors.tell(AgentError::own("first"));
        for _ in 0..2 * QUEUED_ERRORS {
            errors.tell(AgentError::own("more"));
        }
        drop(errors);
        // The first one waits no more for room, but may have been in the queue.
        for _ in 0..QUEUED_ERRORS {
            go_on.send(()).unwrap();
        }
        let heard = |_| hearing.recv_timeout(Duration::from_secs(60)).unwrap();
        let all: Vec<String> = (0..QUEUED_ERRORS).map(heard).collect();
        assert_eq!((all[0].as_str(), all[1].as_str()), ("first", "more"));
    }
}
