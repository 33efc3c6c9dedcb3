//! A panic in code that is not ours is an error of what that code was asked for, and ends nothing else.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::brief::brief;
use crate::error::{Error, ErrorKind, Result};

/// Does `work`, and makes an error of its panic. What `work` has borrowed mutably may be half changed
/// then: use it for nothing more. What a port lends by a shared reference must stay usable.
///
/// # Errors
/// Those of `work`. `Unavailable` with the panic's message if it panicked.
///
/// # Cancel safety
/// As `work`.
pub async fn caught<T>(op: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or_else(|panic| Err(panicked(op, panic.as_ref())))
}

/// The error for a panic.
pub(crate) fn panicked(op: &'static str, panic: &(dyn Any + Send)) -> Error {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let said = said.unwrap_or("no message");
    Error::new(ErrorKind::Unavailable, op).because(format!("panicked: {}", brief(said)))
}
