//! When a process believed that it leads: asked every millisecond, from a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::child::journal::Journal;
use crate::history::{At, Election, Event};

const ASK_EVERY: Duration = Duration::from_millis(1);
/// What was not told when the process is killed is lost.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Whether a term is believed in, whenever it is asked.
pub(super) type Holds = Arc<dyn Fn() -> bool + Send + Sync>;

/// Asks until it is stopped, also after the first no: a belief must not come back.
#[derive(Debug)]
pub(super) struct Belief {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Belief {
    pub(super) fn watch(journal: Journal, election: Election, token: u64, holds: Holds) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || ask(&journal, election, token, &holds, &stopped));
        Self { stop, thread }
    }

    /// Returns when everything was told.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            std::process::abort();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, and no runtime"
)]
fn ask(journal: &Journal, election: Election, token: u64, holds: &Holds, stop: &AtomicBool) {
    let mut belief: Option<(At, At)> = None;
    let mut told = At::now();
    let tell = |(since, until)| {
        journal.tell(Event::Believed {
            election,
            token,
            since,
            until,
        });
    };
    while !stop.load(Ordering::Relaxed) {
        // The clock before the question: a pause in between makes the belief look shorter, never longer.
        let asked = At::now();
        if holds() {
            let since = belief.map_or(asked, |(since, _)| since);
            if belief.is_none() || asked.since(told) >= TELL_EVERY {
                tell((since, asked));
                told = asked;
            }
            belief = Some((since, asked));
        } else if let Some(over) = belief.take() {
            tell(over);
        }
        thread::sleep(ASK_EVERY);
    }
    if let Some(last) = belief {
        tell(last);
    }
}
