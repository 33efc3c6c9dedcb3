//! The signals that ask to stop, or to pause.

use std::future::pending;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::failure::Failure;

/// A signal that follows another this closely was sent along with it: GNU `timeout`, for one, sends two, and a process that has to wait
/// for a processor learns of the second one late.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// From here on these signals no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal was closed. None if that is to be ignored.
    hang_up: Option<Signal>,
    /// Ctrl-Z, where it is listened for.
    pause: Option<Signal>,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    ToStop,
    /// [To stop this process](pause_this_process) until it is told to go on.
    ToPause,
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
            pause: None,
        })
    }

    /// From here on Ctrl-Z does not stop the process by itself, either.
    #[cfg(target_os = "linux")]
    pub(crate) fn or_pause(mut self) -> Result<Self, Failure> {
        let pause = signal(SignalKind::from_raw(signal_hook::consts::SIGTSTP));
        let pause =
            pause.map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))?;
        self.pause = Some(pause);
        Ok(self)
    }

    /// Waits for the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::ToStop,
            _ = self.terminate.recv() => Asked::ToStop,
            () = one(&mut self.hang_up) => Asked::ToStop,
            () = one(&mut self.pause) => Asked::ToPause,
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

async fn one(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => pending().await,
    }
}

/// Stops this process as Ctrl-Z would. Returns when it is told to go on.
#[cfg(target_os = "linux")]
pub(crate) fn pause_this_process() -> Result<(), Failure> {
    use rustix::process::{Signal, getpid, kill_process};
    kill_process(getpid(), Signal::STOP)
        .map_err(|error| Failure::new(format!("cannot stop: {error}")))
}

/// The kernel keeps signals from the first process of a container that it does not handle. For a command that leaves nothing behind: has
/// those signals end it that end all other processes.
pub(crate) fn end_as_first_process() -> Result<(), Failure> {
    if std::process::id() != 1 {
        return Ok(());
    }
    let mut signals = vec![SIGINT, SIGTERM];
    if !hang_up_is_ignored() {
        signals.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(signals)
        .map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))?;
    // It ends with the process.
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            std::process::exit(128 + signal);
        }
    });
    Ok(())
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
