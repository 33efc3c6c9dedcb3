//! Whether the machine lets processes run at all. What a bound promises, it promises to those that get processor time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::history::{At, Event};
use crate::scene::{Chronicle, RUN};

const BEAT: Duration = Duration::from_millis(20);
/// A thread that sleeps is woken far sooner, also by a busy machine.
const LATE: Duration = Duration::from_millis(200);

/// Tells when the machine stood still. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Pulse(Arc<AtomicBool>);

impl Pulse {
    pub(crate) fn start(chronicle: Chronicle) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || beat(&chronicle, &stopped));
        Self(stop)
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, and no runtime"
)]
fn beat(chronicle: &Chronicle, stop: &AtomicBool) {
    let mut last = At::now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(BEAT);
        let now = At::now();
        if now.since(last) > BEAT + LATE {
            chronicle.tell(RUN, Event::StoodStill { since: last });
        }
        last = now;
    }
}
