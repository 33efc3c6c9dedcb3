//! The signals that ask to stop.

use std::future::pending;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::failure::Failure;

/// A signal that follows another this closely was sent along with it: GNU `timeout`, for one, sends two.
const SAME_REQUEST: Duration = Duration::from_millis(200);

/// From here on these signals no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal was closed. None if that is to be ignored.
    hang_up: Option<Signal>,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))
        };
        let hang_up = if hang_up_is_ignored() {
            None
        } else {
            Some(listen(SignalKind::hangup())?)
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up,
        })
    }

    /// Waits for the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hang_up => {}
        }
    }

    /// Once the first signal has come: waits for another Ctrl-C or SIGTERM, from a user who insists. A terminal that is closed may well
    /// say so twice.
    pub(crate) async fn insisted(&mut self) {
        let first = Instant::now();
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            if first.elapsed() > SAME_REQUEST {
                return;
            }
        }
    }
}

/// Whether this process was started with SIGHUP ignored, as by `nohup`, which then stays so. To be asked before it is listened for.
#[cfg(target_os = "linux")]
pub(crate) fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    // The lowest bit is that of signal 1.
    ignored.is_some_and(|signals| signals & 1 == 1)
}

#[cfg(not(target_os = "linux"))]
fn hang_up_is_ignored() -> bool {
    false
}
