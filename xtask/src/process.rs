//! A process on this machine, told apart from a later one with the same number.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Number and start time. Numbers are given out again; the two together are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Clock ticks after boot.
    started: u64,
}

impl ProcessId {
    /// The running process with this number.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| {
            format!("cannot read /proc/{pid}/stat: the process has ended, or /proc is not mounted")
        })?;
        let (_, started) = state_and_start(&stat)
            .with_context(|| format!("cannot parse /proc/{pid}/stat: `{stat}`"))?;
        Ok(Self { pid, started })
    }

    /// The process runs and is still the one that was recorded.
    pub(crate) fn is_alive(self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else {
            return false;
        };
        // A zombie has ended and only waits for its parent to ask.
        matches!(state_and_start(&stat), Some((state, started)) if started == self.started && state != 'Z')
    }

    /// Ends it: SIGTERM, and SIGKILL when that does not help. Nothing happens if it has ended.
    ///
    /// # Errors
    /// It may not be signalled, or outlives SIGKILL.
    pub(crate) fn stop(self) -> Result<()> {
        for signal in [Signal::TERM, Signal::KILL] {
            if !self.is_alive() {
                return Ok(());
            }
            let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
            let pid = pid.with_context(|| format!("{} is not a process id", self.pid))?;
            match kill_process(pid, signal) {
                // A frozen process answers SIGTERM only after it was continued.
                Ok(()) => drop(kill_process(pid, Signal::CONT)),
                Err(_) if !self.is_alive() => return Ok(()),
                Err(error) => bail!("cannot end process {}: {error}", self.pid),
            }
            let deadline = Instant::now() + GRACE;
            while self.is_alive() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if self.is_alive() {
            bail!("process {} survived SIGKILL", self.pid);
        }
        Ok(())
    }
}

/// The processor time that a process has used, with that of its children that it waited for. Zero once it can no longer be known.
pub(crate) fn processor_time(pid: u32) -> Duration {
    /// What the kernel counts in there on Linux, whatever it counts in inside.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    processor_ticks(&stat).map_or(Duration::ZERO, |ticks| TICK * ticks)
}

/// Fields 14 to 17 of `/proc/<pid>/stat`, added.
fn processor_ticks(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields = after_name.split_whitespace().skip(11).take(4);
    fields.map(|field| field.parse::<u32>().ok()).sum()
}

/// Fields 3 and 22 of `/proc/<pid>/stat`. Field 2, the name, is in brackets and may hold anything, brackets too.
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn reads_state_and_start_behind_an_odd_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3";
        assert_eq!(state_and_start(stat), Some(('S', 987_654)));
        assert_eq!(state_and_start("12 (cut"), None);
    }

    #[test]
    fn adds_its_own_processor_time_and_that_of_its_children() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194304 1 2 3 4 50 6 700 8 20 0 1 0 987654 1 2 3";
        assert_eq!(processor_ticks(stat), Some(764));
        assert_eq!(processor_ticks("12 (cut"), None);
        assert_eq!(processor_time(0), Duration::ZERO);
    }

    #[test]
    fn a_number_given_out_again_is_another_process() {
        let mine = ProcessId::of(std::process::id()).unwrap();
        assert!(mine.is_alive());
        let earlier = ProcessId {
            started: mine.started - 1,
            ..mine
        };
        assert!(!earlier.is_alive());
        earlier.stop().unwrap();
    }

    #[test]
    fn stops_a_frozen_process() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::STOP).unwrap();
        process.stop().unwrap();
        assert!(!process.is_alive());
        child.wait().unwrap();
    }
}
