//! A node's own clock: it has a rate and a start of its own, and its reader may be stopped before it acts.

use std::time::Duration;

use sd_core::clock::{Clock, Moment};

use super::executor::World;
use super::node::Node;

/// How a clock runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// What it shows when true time begins.
    pub(super) start: Duration,
    /// How many of its own seconds pass in a million true ones.
    pub(super) rate: u32,
}

const TRUE_RATE: u32 = 1_000_000;

impl Pace {
    /// The clock of true time, but faster by `share` or slower if that is negative.
    pub(super) fn of_rate(rate: f64, start: Duration) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rates lie between 0.25 and 4"
        )]
        let rate = (rate * f64::from(TRUE_RATE)) as u32;
        Self { start, rate }
    }

    /// What it shows at `at`.
    pub(super) fn reading(self, at: Moment) -> Moment {
        Moment::from_start(self.start + scale(at.since_start(), self.rate, TRUE_RATE, false))
    }

    /// When it shows `reading` first.
    pub(super) fn when(self, reading: Moment) -> Moment {
        let shown = reading.since(Moment::from_start(self.start));
        Moment::from_start(scale(shown, TRUE_RATE, self.rate, true))
    }
}

fn scale(span: Duration, by: u32, over: u32, up: bool) -> Duration {
    let scaled = span.as_nanos() * u128::from(by);
    let over = u128::from(over);
    let nanos = if up {
        scaled.div_ceil(over)
    } else {
        scaled / over
    };
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[derive(Clone, Debug)]
pub(super) struct NodeClock {
    world: World,
    node: Node,
    pace: Pace,
    /// How late its timers may be.
    lateness: Duration,
}

impl NodeClock {
    pub(super) fn new(world: World, node: Node, pace: Pace, lateness: Duration) -> Self {
        Self {
            world,
            node,
            pace,
            lateness,
        }
    }

    /// What it shows, for the simulation itself: this stops no reader.
    pub(super) fn read(&self) -> Moment {
        self.pace.reading(self.world.now())
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Moment {
        let reading = self.read();
        self.world.preempt(self.node);
        reading
    }

    fn sleep_until(&self, at: Moment) -> sd_core::clock::Sleep {
        let late = self.world.between(Duration::ZERO..=self.lateness);
        Box::pin(self.world.sleep_until(self.pace.when(at) + late))
    }
}
