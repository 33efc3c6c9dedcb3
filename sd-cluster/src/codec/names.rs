//! Which names a module can have.

use sd_core::{Error, Result, ServiceName};

use crate::etp::message::is_event_name;
use crate::protocol::events::module_connected;

/// Refuses the name of a module whose addresses could not be told.
///
/// # Errors
/// `InvalidInput`.
pub(crate) fn check_module(op: &'static str, module: &ServiceName) -> Result<()> {
    if is_event_name(&module_connected(module.as_str())) {
        return Ok(());
    }
    let why = "a module's name must not contain || or begin with __ack_: the protocol could not tell its addresses";
    Err(Error::invalid_input(op, why))
}
