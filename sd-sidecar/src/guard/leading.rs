//! One command for the time of one term.

use std::ffi::OsString;
use std::time::Duration;

use sd_core::{BootClock, Clock, Moment};
use sd_election::Term;
use tokio_util::sync::CancellationToken;

use super::Orders;
use super::guarded::{CommandOutput, Ended, Guarded};
use crate::failure::Failure;

/// When the command gets its signals, given how long before the hand-over belief ends.
#[derive(Clone, Copy, Debug)]
struct Timing {
    stop_margin: Duration,
}

impl Timing {
    /// SIGTERM when belief ends, and SIGKILL early enough for the command to be dead at the hand-over.
    fn orders(self, deadline: Moment) -> Orders {
        Orders {
            stop_at: deadline,
            kill_at: deadline + self.stop_margin * 4 / 5,
        }
    }

    /// When a watchdog that should have killed by then is not waited for any more.
    fn give_up_at(self, orders: Orders) -> Moment {
        orders.kill_at + self.stop_margin / 10
    }
}

/// Runs a command until it ends, the term does, or `stop`. When this returns, nothing of the command's process group is left.
///
/// The term must be on the boot clock.
pub(crate) async fn run_while_leading(
    command: &[OsString],
    variables: Vec<(&'static str, OsString)>,
    output: CommandOutput,
    term: &Term,
    stop: &CancellationToken,
) -> Result<Ended, Failure> {
    let mut deadline = term.deadline();
    let timing = Timing {
        stop_margin: term.hand_over().since(deadline),
    };
    let mut guarded = Guarded::start(command, variables, output, timing.orders(deadline))
        .map_err(|error| Failure::new(format!("cannot start the watchdog: {error}")))?;
    loop {
        tokio::select! {
            biased;
            ended = guarded.ended() => return settle(guarded, ended).await,
            () = stop.cancelled() => break,
            _ = term.lost() => break,
            later = term.extended(deadline) => {
                deadline = later;
                guarded.order(timing.orders(deadline));
            }
        }
    }
    let last = timing.orders(deadline).at_once(BootClock.now());
    guarded.order(last);
    tokio::select! {
        biased;
        ended = guarded.ended() => settle(guarded, ended).await,
        () = BootClock.sleep_until(timing.give_up_at(last)) => {
            guarded.kill().await;
            Ok(Ended::Stopped)
        }
    }
}

async fn settle(mut guarded: Guarded, ended: Option<Ended>) -> Result<Ended, Failure> {
    if let Some(ended) = ended {
        return Ok(ended);
    }
    guarded.kill().await;
    Err(Failure::new(
        "the watchdog has died, so the command was killed; try: again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_happened_before_the_hand_over() {
        let timing = Timing {
            stop_margin: Duration::from_millis(2500),
        };
        let deadline = Moment::from_start(Duration::from_secs(100));
        let orders = timing.orders(deadline);
        assert_eq!(orders.stop_at, deadline);
        assert_eq!(orders.kill_at, deadline + Duration::from_secs(2));
        let hand_over = deadline + timing.stop_margin;
        assert!(orders.kill_at < timing.give_up_at(orders));
        assert!(timing.give_up_at(orders) < hand_over);
    }
}
