//! What clients of the reference system send, in each of its four generations.
//!
//! The first sends flat bodies (G1), the later ones nest them (G2 to G4). A body is read as Go's `encoding/json` reads it: names of
//! fields in any case, unknown fields and what follows the first value ignored. One body may be flat and nested at once.

mod leaving;
mod register;
mod register_body;
mod write;

use std::fmt::{self, Display};

pub use leaving::{DEFAULT_GRACE, Deregister, Drain, Target};
pub use register::Register;
pub use write::Dialect;

/// What is wrong with a body, in the words of the reference system where it has some. Names the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBody(String);

impl BadBody {
    /// At most 256 bytes of it, escaped.
    pub(crate) fn new(text: impl Display) -> Self {
        Self(sd_core::brief(sd_core::Printable(&sd_core::brief(text))))
    }

    fn required(field: &str) -> Self {
        Self(format!("{field} is required"))
    }
}

impl Display for BadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadBody {}

/// A port, which the reference system takes for any whole number first.
fn port(number: i64) -> Result<u16, BadBody> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(BadBody(format!("port is invalid: {number}"))),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde lends it")]
fn is_true(value: &bool) -> bool {
    *value
}
