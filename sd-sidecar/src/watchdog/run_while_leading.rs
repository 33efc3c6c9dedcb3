//! One command for the time of one term.

use std::ffi::OsString;
use std::future::pending;
use std::time::Duration;

use sd_core::clock::{BootClock, Clock, Moment};
use sd_election::{EndReason, Term};

use super::environment::Environment;
use super::protocol::Orders;
use super::supervised_command::{CommandOutput, KILLED, SupervisedCommand};
use crate::failure::Failure;
use crate::stop_request::StopRequest;

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

/// Runs a command until it ends, the term does, or it is to `stop`. When this returns, nothing is left of the command and of what it
/// has started. Returns its exit status, or `None` if it was stopped because the term is over, so that its status means nothing.
///
/// The term must be on the boot clock.
pub(crate) async fn run_while_leading(
    command: &[OsString],
    environment: Environment,
    output: CommandOutput,
    term: &Term,
    stop: &StopRequest,
) -> Result<Option<u8>, Failure> {
    let mut deadline = term.deadline();
    let timing = Timing {
        stop_margin: term.hand_over().since(deadline),
    };
    let mut supervised =
        SupervisedCommand::start(command, environment, output, timing.orders(deadline))
            .map_err(|error| Failure::new(format!("cannot start the watchdog: {error}")))?;
    let asked = loop {
        tokio::select! {
            biased;
            ended = supervised.ended() => {
                let ended = supervised.settle(ended).await?;
                return Ok((!ended.stopped).then_some(ended.status));
            }
            () = stop.asked.cancelled() => break true,
            _ = term.lost() => break false,
            moved = term.deadline_moved(deadline) => {
                deadline = moved;
                supervised.order(timing.orders(deadline));
            }
        }
    };
    let last = timing.orders(deadline).at_once(BootClock.now());
    let status = finish(supervised, timing, last, term, stop).await?;
    Ok(asked.then_some(status))
}

/// Stops the command: with the time that is meant for that, or at once when that is insisted on or another may lead.
async fn finish(
    mut supervised: SupervisedCommand,
    timing: Timing,
    mut last: Orders,
    term: &Term,
    stop: &StopRequest,
) -> Result<u8, Failure> {
    let mut deadline = term.deadline();
    let mut has_grace = true;
    loop {
        supervised.order(last);
        tokio::select! {
            biased;
            ended = supervised.ended() => return Ok(supervised.settle(ended).await?.status),
            () = no_grace(term, stop), if has_grace => {
                has_grace = false;
                last = last.without_grace(BootClock.now());
            }
            moved = term.deadline_moved(deadline) => {
                deadline = moved;
                last = last.or_sooner(timing.orders(deadline));
            }
            () = BootClock.sleep_until(timing.give_up_at(last)) => {
                supervised.kill_all().await?;
                return Ok(KILLED);
            }
        }
    }
}

/// Returns when the command must not have time to stop.
async fn no_grace(term: &Term, stop: &StopRequest) {
    tokio::select! {
        () = stop.insisted.cancelled() => {}
        () = another_may_lead(term) => {}
    }
}

/// Returns when another candidate may lead before the hand-over, because our entry is gone.
async fn another_may_lead(term: &Term) {
    match term.lost().await {
        EndReason::EntryGone(_) | EndReason::SessionLost(_) => {}
        _ => pending().await,
    }
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
