//! What the owner of a registration asks its keeper.

use std::fmt;

use tokio::sync::oneshot;

use crate::error::Result;
use crate::model::instance::Instance;

/// A change of the record that the owner asks for.
pub(crate) struct Command {
    pub(crate) change: Box<dyn FnOnce(Instance) -> Instance + Send>,
    pub(crate) reply: oneshot::Sender<Result<()>>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Command")
    }
}

/// What the owner waits for when it registers.
pub(crate) enum Confirm {
    /// The first confirmation, or the error that ended the attempt, within the configured time.
    InTime(oneshot::Sender<Result<()>>),
    /// Nothing: attempts go on until they succeed or the guard is dropped.
    InBackground,
}
