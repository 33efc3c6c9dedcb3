//! Runs a command so that it ends with the term that it was started for, whatever becomes of `sdctl`.
//!
//! ```text
//!            orders: until when            starts, stops, kills, waits for
//!   sdctl ───────────────────► watchdog ───────────────────────────────────► the command, in a process group of its own
//!         ◄───────────────────
//!            reports: started, ended
//! ```
//!
//! The [watchdog] is this program once more, as a process that does nothing else. It has the deadline and a boot-time timer of its
//! own, so the command is stopped in time if `sdctl` is frozen, and at once if `sdctl` dies: the socket between them then ends. If
//! the watchdog dies, the kernel kills the command, because the [launcher] asked for that, and `sdctl` kills the rest of the
//! group. Both adopt orphans, so that each can wait until really nothing of the group is left.

mod guarded;
mod launcher;
mod leading;
mod watchdog;

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, waitid, waitpgid,
};
use sd_core::Moment;

pub(crate) use self::guarded::{CommandOutput, Ended};
pub(crate) use self::leading::run_while_leading;

/// This very program, also if its file was replaced or deleted since it was started.
const THIS_PROGRAM: &str = "/proc/self/exe";
const WATCHDOG: &str = "__watchdog";
const LAUNCHER: &str = "__launch";

/// What this process is, if not the `sdctl` that somebody called.
#[derive(Debug)]
pub(crate) enum Stage {
    Watchdog(Vec<OsString>),
    Launcher(Vec<OsString>),
}

impl Stage {
    pub(crate) fn from_arguments(arguments: &[OsString]) -> Option<Self> {
        let rest = || arguments.get(2..).unwrap_or_default().to_vec();
        match arguments.get(1)?.to_str()? {
            WATCHDOG => Some(Self::Watchdog(rest())),
            LAUNCHER => Some(Self::Launcher(rest())),
            _ => None,
        }
    }

    pub(crate) fn run(self) -> ExitCode {
        match self {
            Self::Watchdog(command) => watchdog::run(&command),
            Self::Launcher(arguments) => launcher::run(&arguments),
        }
    }
}

/// Until when the command may run, on the boot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Orders {
    /// When its process group gets SIGTERM.
    stop_at: Moment,
    /// When what is left of the group gets SIGKILL.
    kill_at: Moment,
}

impl Orders {
    /// Stop now, with as much time for it as was meant, but not beyond what was ordered.
    fn at_once(self, now: Moment) -> Self {
        let grace = self.kill_at.since(self.stop_at);
        Self {
            stop_at: self.stop_at.min(now),
            kill_at: self.kill_at.min(now + grace),
        }
    }
}

impl fmt::Display for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [stop_at, kill_at] =
            [self.stop_at, self.kill_at].map(|moment| moment.since_start().as_nanos());
        write!(f, "{stop_at} {kill_at}")
    }
}

/// A line between `sdctl` and its watchdog that makes no sense.
#[derive(Debug)]
struct Garbled;

impl FromStr for Orders {
    type Err = Garbled;

    fn from_str(line: &str) -> Result<Self, Garbled> {
        let moment = |nanos: &str| {
            let nanos = nanos.parse().ok()?;
            Some(Moment::from_start(Duration::from_nanos(nanos)))
        };
        let (stop_at, kill_at) = line.split_once(' ').ok_or(Garbled)?;
        Ok(Self {
            stop_at: moment(stop_at).ok_or(Garbled)?,
            kill_at: moment(kill_at).ok_or(Garbled)?,
        })
    }
}

/// What the watchdog has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    /// The command runs, in this process group.
    Started(Pid),
    /// Nothing is left of it.
    Ended(Ended),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(group) => write!(f, "started {}", group.as_raw_pid()),
            Self::Ended(Ended::Exited(status)) => write!(f, "exited {status}"),
            Self::Ended(Ended::Stopped) => f.write_str("stopped"),
        }
    }
}

impl FromStr for Report {
    type Err = Garbled;

    fn from_str(line: &str) -> Result<Self, Garbled> {
        let report = match line.split_once(' ') {
            Some(("started", group)) => {
                let group = group.parse().ok().and_then(Pid::from_raw);
                group.map(Self::Started)
            }
            Some(("exited", status)) => {
                let status = status.parse().ok();
                status.map(|status| Self::Ended(Ended::Exited(status)))
            }
            None if line == "stopped" => Some(Self::Ended(Ended::Stopped)),
            _ => None,
        };
        report.ok_or(Garbled)
    }
}

/// Kills what is left of a process group whose members are or become our children, and waits until all of them are dead. That
/// may take for ever if the kernel does not let go of one.
fn end_group(group: Pid) {
    // As long as one of them was not waited for, the number cannot have become another group's.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if waitid(WaitId::Pgid(Some(group)), look).is_err() {
        return;
    }
    // It fails if all are dead.
    let _ = kill_process_group(group, Signal::KILL);
    // A member's children are ours before the member can be waited for.
    while matches!(
        waitpgid(group, WaitOptions::empty()),
        Ok(_) | Err(Errno::INTR)
    ) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(stop_at: u64, kill_at: u64) -> Orders {
        let [stop_at, kill_at] =
            [stop_at, kill_at].map(|seconds| Moment::from_start(Duration::from_secs(seconds)));
        Orders { stop_at, kill_at }
    }

    #[test]
    fn stopping_at_once_leaves_the_time_that_was_meant_and_never_more() {
        let ordered = orders(100, 104);
        let at = |seconds| Moment::from_start(Duration::from_secs(seconds));
        assert_eq!(ordered.at_once(at(50)), orders(50, 54));
        assert_eq!(ordered.at_once(at(102)), orders(100, 104));
        assert_eq!(ordered.at_once(at(50)).at_once(at(51)), orders(50, 54));
    }

    #[test]
    fn what_is_said_is_understood_and_nothing_else() {
        let said = Orders {
            stop_at: Moment::from_start(Duration::from_nanos(12_345_678_901)),
            kill_at: Moment::from_start(Duration::from_nanos(u64::MAX)),
        };
        assert_eq!(said.to_string().parse::<Orders>().unwrap(), said);
        for garbled in ["", "1", "1 ", "1 -2", "1 2 3", "a b"] {
            assert!(garbled.parse::<Orders>().is_err(), "{garbled:?}");
        }
        let group = Pid::from_raw(77).unwrap();
        let ends = [Ended::Exited(3), Ended::Stopped].map(Report::Ended);
        for said in [Report::Started(group), ends[0], ends[1]] {
            assert_eq!(said.to_string().parse::<Report>().unwrap(), said);
        }
        for garbled in ["", "started", "started 0", "exited 256", "stopped 1"] {
            assert!(garbled.parse::<Report>().is_err(), "{garbled:?}");
        }
    }
}
