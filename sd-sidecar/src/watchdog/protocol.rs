//! What `sdctl` and its watchdog tell each other, a line each.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sd_core::clock::Moment;

/// Until when the command may run, on the boot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orders {
    /// When it and all that it has started get SIGTERM.
    pub(super) stop_at: Moment,
    /// When what is left of these gets SIGKILL.
    pub(super) kill_at: Moment,
}

impl Orders {
    /// Stop now, with as much time for it as was meant, but not beyond what was ordered.
    pub(super) fn at_once(self, now: Moment) -> Self {
        let grace = self.kill_at.since(self.stop_at);
        self.or_sooner(Self {
            stop_at: now,
            kill_at: now + grace,
        })
    }

    /// Die now.
    pub(super) fn without_grace(self, now: Moment) -> Self {
        self.or_sooner(Self {
            stop_at: now,
            kill_at: now,
        })
    }

    pub(super) fn or_sooner(self, other: Self) -> Self {
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
pub(super) struct Garbled;

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
pub(super) struct Ended {
    /// Its exit status.
    pub(super) status: u8,
    /// Whether the watchdog told it to stop, and it did not end by itself.
    pub(super) stopped: bool,
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
