//! Where no command can be run.

use crate::failure::Failure;
use crate::stop_request::StopRequest;

/// There is none.
#[derive(Debug)]
pub(crate) enum RunningCommand {}

impl RunningCommand {
    #[expect(clippy::unused_async, reason = "as where it can be done")]
    pub(crate) async fn ended(&mut self) -> Result<u8, Failure> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "as where it can be done")]
    pub(crate) async fn stop(self, _stop: &StopRequest) -> Result<u8, Failure> {
        match self {}
    }
}
