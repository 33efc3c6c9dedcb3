//! Time that goes on while the machine is suspended, behind a trait that tests can replace.

use std::fmt;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

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

/// How late a timer may fire after a suspend.
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
                // tokio's timers stop during a suspend: sleep in short steps and read the boot clock after each.
                tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            }
        })
    }
}

/// tokio's clock, which tests can pause and advance. It stops while the machine is suspended.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioClock;

/// The instant at which tokio's clock was first read, and the moment that we give it. Far from zero, because another runtime's
/// paused clock may be behind it.
fn tokio_start() -> (tokio::time::Instant, Moment) {
    static START: OnceLock<tokio::time::Instant> = OnceLock::new();
    (
        *START.get_or_init(tokio::time::Instant::now),
        Moment(Duration::from_secs(1 << 32)),
    )
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        let (start, moment) = tokio_start();
        let now = tokio::time::Instant::now();
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

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_follows_paused_time() {
        let start = TokioClock.now();
        TokioClock
            .sleep_until(start + Duration::from_secs(60))
            .await;
        assert!(TokioClock.now().since(start) >= Duration::from_secs(60));
    }
}
