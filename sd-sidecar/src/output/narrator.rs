//! Tells what happens, one line for each step.

use std::time::Duration;

use sd_core::{Events, Missed};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::failure::Failure;

/// How long the last lines may take if they are not read.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Prints on a thread of its own, because a program that does not read must not hold up what the lines are about. It misses lines. So does
/// an output that cannot be written to, as a file on a full disk: that is said once, and changes nothing else.
#[derive(Debug)]
pub(crate) struct Narrator(JoinHandle<()>);

impl Narrator {
    /// Has each event told until the last one.
    pub(crate) fn start<E: Clone + From<Missed> + Send + Sync + 'static>(
        mut events: Events<E>,
        mut tell: impl FnMut(E) -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        let runtime = Handle::current();
        Self(tokio::task::spawn_blocking(move || {
            let mut failed = false;
            while let Some(event) = runtime.block_on(events.next()) {
                if let Err(failure) = tell(event)
                    && !std::mem::replace(&mut failed, true)
                {
                    failure.tell();
                }
            }
        }))
    }

    /// Waits for the last lines. There must be no more events.
    pub(crate) async fn finish(self) {
        // A reader that is too slow misses them.
        let _ = timeout(LAST_LINES, self.0).await;
    }
}
