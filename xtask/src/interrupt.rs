//! Ctrl-C, SIGTERM and SIGHUP: passed on to every running command, so that the caller unwinds and stops its servers.
//!
//! Each command runs in a process group of its own. A signal therefore reaches xtask alone, and this module hands it to
//! the whole group: to cargo and to the tests that cargo runs.

use std::collections::BTreeSet;
use std::process::Child;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static RECEIVED: AtomicI32 = AtomicI32::new(0);
static GROUPS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Starts to listen; once, before the first command.
pub(crate) fn listen() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            RECEIVED.store(signal, Ordering::SeqCst);
            for group in groups().iter() {
                pass_on(*group, signal);
            }
        }
    });
    Ok(())
}

/// The exit status that says "ended by this signal", when one came.
pub(crate) fn exit_code() -> Option<u8> {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => None,
        signal => u8::try_from(128 + signal).ok(),
    }
}

/// Fails once a signal came: what waits or repeats asks this between its steps.
pub(crate) fn check() -> Result<()> {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => Ok(()),
        signal => bail!("stopped by signal {signal}"),
    }
}

/// While it lives, signals are passed on to the child's process group.
pub(crate) struct Forwarding(u32);

impl Forwarding {
    /// `child` must have been started in a process group of its own.
    pub(crate) fn to(child: &Child) -> Self {
        let group = child.id();
        groups().insert(group);
        // A signal between the start and the line above found no group to go to.
        let received = RECEIVED.load(Ordering::SeqCst);
        if received != 0 {
            pass_on(group, received);
        }
        Self(group)
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        groups().remove(&self.0);
    }
}

fn groups() -> MutexGuard<'static, BTreeSet<u32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass_on(group: u32, signal: i32) {
    let pid = i32::try_from(group).ok().and_then(Pid::from_raw);
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
        // The group may have ended a moment ago, which is what the signal is for.
        let _ = kill_process_group(pid, signal);
    }
}
