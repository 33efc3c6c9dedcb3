//! One command that runs until it ends or has to.

use std::ffi::OsString;
use std::time::Duration;

use sd_core::clock::{BootClock, Clock};

use super::environment::Environment;
use super::protocol::Orders;
use super::supervised_command::{CommandOutput, KILLED, SupervisedCommand};
use crate::failure::Failure;
use crate::stop_request::StopRequest;

/// When a command has to stop that may run for ever.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long a watchdog that should have killed is waited for.
const GIVE_UP_AFTER: Duration = Duration::from_secs(1);

/// A command under a watchdog, without a deadline. Dropping it stops the command.
#[derive(Debug)]
pub(crate) struct RunningCommand {
    supervised: SupervisedCommand,
    orders: Orders,
}

impl RunningCommand {
    /// Starts a command that may take so long to stop, also if this process is killed.
    pub(crate) fn start(
        command: &[OsString],
        environment: Environment,
        output: CommandOutput,
        stop_within: Duration,
    ) -> Result<Self, Failure> {
        let stop_at = BootClock.now() + NEVER;
        let orders = Orders {
            stop_at,
            kill_at: stop_at + stop_within,
        };
        let supervised = SupervisedCommand::start(command, environment, output, orders)
            .map_err(|error| Failure::new(format!("cannot start the watchdog: {error}")))?;
        Ok(Self { supervised, orders })
    }

    /// Waits until nothing is left of it and of what it has started. Returns its exit status. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> Result<u8, Failure> {
        let ended = self.supervised.ended().await;
        Ok(self.supervised.settle(ended).await?.status)
    }

    /// Asks it to stop, and kills it when its time for that is over, or at once when that is insisted on. Returns its exit status.
    pub(crate) async fn stop(mut self, stop: &StopRequest) -> Result<u8, Failure> {
        let mut last = self.orders.at_once(BootClock.now());
        let mut has_grace = true;
        loop {
            self.supervised.order(last);
            tokio::select! {
                biased;
                status = self.ended() => return status,
                () = stop.insisted.cancelled(), if has_grace => {
                    has_grace = false;
                    last = last.without_grace(BootClock.now());
                }
                () = BootClock.sleep_until(last.kill_at + GIVE_UP_AFTER) => {
                    self.supervised.kill_all().await?;
                    return Ok(KILLED);
                }
            }
        }
    }
}
