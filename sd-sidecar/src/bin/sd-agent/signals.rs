//! The signals that ask the agent to stop, or to read its configuration again.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// A signal that follows another this closely was sent along with it: GNU `timeout`, for one, sends two.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// From here on these signals no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signalled {
    ToStop,
    ToReload,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signalled {
        tokio::select! {
            _ = self.interrupt.recv() => Signalled::ToStop,
            _ = self.terminate.recv() => Signalled::ToStop,
            _ = self.hang_up.recv() => Signalled::ToReload,
        }
    }

    /// Waits until the agent is asked to stop. A request to reload has nothing to do yet.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Signalled::ToStop {}
    }

    /// Once the agent stops: waits for another request to do so.
    pub(crate) async fn insisted(&mut self) {
        let first = Instant::now();
        loop {
            self.stop().await;
            if first.elapsed() > SAME_REQUEST {
                return;
            }
        }
    }
}
