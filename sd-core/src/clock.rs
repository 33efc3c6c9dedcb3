//! Time that goes on while the machine is suspended, behind a trait that tests can replace.

use std::fmt;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// A point in time of one [`Clock`]. Meaningless to other processes, and after a restart of the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The beginning of the clock.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// A moment this long after the clock's beginning.
    pub const fn from_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long after the clock's beginning this is.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The future of [`Clock::sleep_until`].
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A source of time and timers.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Moment;

    /// Returns at `at` or soon after, at once if `at` is past. Cancel-safe.
    fn sleep_until(&self, at: Moment) -> Sleep;
}

/// The clock for production. On Linux it is `CLOCK_BOOTTIME`, which goes on while the machine is suspended, as leases at a
/// server do. Elsewhere it is the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

/// How late a timer may fire after a suspend. One second, as [`next_look`] counts in seconds.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

impl Clock for BootClock {
    fn now(&self) -> Moment {
        let time = rustix::time::clock_gettime(CLOCK);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Moment(Duration::new(seconds, nanos))
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        Box::pin(async move {
            loop {
                let left = at.since(Self.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep_until(next_look(Instant::now(), left)).await;
            }
        })
    }
}

/// When a timer with this much time left looks at the boot clock next, as of `now`. tokio's timers stop during a suspend, so each looks
/// often. All look at the same moments, whenever they were set: a process with thousands of timers wakes once for all of them.
fn next_look(now: Instant, left: Duration) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(|| now);
    let within_second = |span: Duration| Duration::from_nanos(span.subsec_nanos().into());
    let until_look = match now.checked_duration_since(start) {
        Some(after) => LONGEST_SLEEP.saturating_sub(within_second(after)),
        // The paused clock of another runtime may be ahead.
        None => match within_second(start.duration_since(now)) {
            Duration::ZERO => LONGEST_SLEEP,
            before => before,
        },
    };
    now + left.min(until_look)
}

/// tokio's clock, which tests can pause and advance. It stops while the machine is suspended.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioClock;

/// The instant at which tokio's clock was first read, and the moment that we give it. Far from zero, because another runtime's
/// paused clock may be behind it.
fn tokio_start() -> (Instant, Moment) {
    static START: OnceLock<Instant> = OnceLock::new();
    (
        *START.get_or_init(Instant::now),
        Moment(Duration::from_secs(1 << 32)),
    )
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        let (start, moment) = tokio_start();
        let now = Instant::now();
        match now.checked_duration_since(start) {
            Some(after) => moment + after,
            None => moment - start.saturating_duration_since(now),
        }
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        Box::pin(tokio::time::sleep(at.since(self.now())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_runs_forward() {
        let first = BootClock.now();
        assert!(first > Moment::ZERO);
        assert!(BootClock.now() >= first);
    }

    #[test]
    fn timers_of_the_boot_clock_look_at_the_same_moments_and_none_looks_late() {
        let long = Duration::from_secs(3600);
        let begin = Instant::now();
        let first = next_look(begin, long);
        for millis in 1..3000 {
            let now = begin + Duration::from_millis(millis);
            let look = next_look(now, long);
            assert!(look > now && look <= now + LONGEST_SLEEP, "{millis}");
            let apart = look.duration_since(first);
            assert_eq!(apart.subsec_nanos(), 0, "{millis}: {apart:?}");
            // What is due before that is not waited for longer.
            let left = Duration::from_nanos(1);
            assert_eq!(next_look(now, left), now + left);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_follows_paused_time() {
        let start = TokioClock.now();
        TokioClock
            .sleep_until(start + Duration::from_secs(60))
            .await;
        assert!(TokioClock.now().since(start) >= Duration::from_secs(60));
    }
}
