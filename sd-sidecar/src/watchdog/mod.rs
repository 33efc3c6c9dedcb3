//! Runs a command so that it ends with the term that it was started for, whatever becomes of `sdctl`.
//!
//! ```text
//!            orders: until when            starts, stops, kills, waits for
//!   sdctl ───────────────────► watchdog ───────────────────────────────────► the command and all that it starts
//!         ◄───────────────────
//!            report: ended
//! ```
//!
//! The [watchdog](process) is this program once more, as a process that does nothing else. It has the deadline and a boot-time timer of its
//! own, so the command is stopped in time if `sdctl` is frozen, and at once if `sdctl` dies: the socket between them then ends. If
//! the watchdog dies, the kernel kills the command, because the [launcher] asked for that, and `sdctl` kills the rest. Both adopt
//! orphans, so that all that the command has started [descends](descendants) from them until it has ended.

mod descendants;
mod launcher;
mod process;
mod run_while_leading;
mod supervised_command;

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use sd_core::Moment;

pub(crate) use self::run_while_leading::run_while_leading;
pub(crate) use self::supervised_command::CommandOutput;

/// This very program, also if its file was replaced or deleted since it was started.
const THIS_PROGRAM: &str = "/proc/self/exe";
const WATCHDOG: &str = "__watchdog";
const LAUNCHER: &str = "__launch";

/// What this process is, if not the `sdctl` that somebody called.
#[derive(Debug)]
pub(crate) enum Role {
    Watchdog(Vec<OsString>),
    Launcher(Vec<OsString>),
}

impl Role {
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
            Self::Watchdog(command) => process::run(&command),
            Self::Launcher(arguments) => launcher::run(&arguments),
        }
    }
}

/// Until when the command may run, on the boot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Orders {
    /// When it and all that it has started get SIGTERM.
    stop_at: Moment,
    /// When what is left of these gets SIGKILL.
    kill_at: Moment,
}

impl Orders {
    /// Stop now, with as much time for it as was meant, but not beyond what was ordered.
    fn at_once(self, now: Moment) -> Self {
        let grace = self.kill_at.since(self.stop_at);
        self.or_sooner(Self {
            stop_at: now,
            kill_at: now + grace,
        })
    }

    /// Die now.
    fn without_grace(self, now: Moment) -> Self {
        self.or_sooner(Self {
            stop_at: now,
            kill_at: now,
        })
    }

    fn or_sooner(self, other: Self) -> Self {
        Self {
            stop_at: self.stop_at.min(other.stop_at),
            kill_at: self.kill_at.min(other.kill_at),
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

/// How a command ended, of which nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    /// Its exit status.
    status: u8,
    /// Whether the watchdog told it to stop, and it did not end by itself.
    stopped: bool,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.stopped { "stopped" } else { "exited" };
        write!(f, "{how} {}", self.status)
    }
}

impl FromStr for Ended {
    type Err = Garbled;

    fn from_str(line: &str) -> Result<Self, Garbled> {
        let (stopped, status) = match line.split_once(' ').ok_or(Garbled)? {
            ("stopped", status) => (true, status),
            ("exited", status) => (false, status),
            _ => return Err(Garbled),
        };
        let status = status.parse().map_err(|_| Garbled)?;
        Ok(Self { status, stopped })
    }
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
        assert_eq!(ordered.without_grace(at(50)), orders(50, 50));
        assert_eq!(ordered.without_grace(at(102)), orders(100, 102));
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
        for stopped in [false, true] {
            let said = Ended { status: 3, stopped };
            assert_eq!(said.to_string().parse::<Ended>().unwrap(), said);
        }
        for garbled in ["", "exited", "exited 256", "started 1"] {
            assert!(garbled.parse::<Ended>().is_err(), "{garbled:?}");
        }
    }
}
