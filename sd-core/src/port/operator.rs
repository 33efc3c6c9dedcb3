//! The operators' port: change what readers see of another process's record, or remove it.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Holder, Result};
use crate::model::instance::RecordId;
use crate::model::overriding::Override;

/// Changes records of other processes at one server, for operators. An operator makes one attempt and reports its outcome.
///
/// Everything here is conditional: it concerns the record of one incarnation, and never that of another one. An override never
/// changes the record itself, and ends with it: a record that is lost, removed or withdrawn and then registered again is as its
/// owner says. One that is [released](crate::RegistrationGuard::release) and continued keeps its override.
///
/// Readers see the override in [`Instance::overridden`](crate::Instance::overridden). The owner learns of it at its next renewal,
/// from [`Renewed`](crate::port::Renewed), and its updates leave it as it is.
#[async_trait]
pub trait Operator: Debug + Send + Sync + 'static {
    /// Sets what readers are to see in place of the owner's readiness, or clears it with `None`. Replaces an override that is there:
    /// of two operators, the last one counts. Clearing where there is no override is fine.
    ///
    /// # Errors
    /// - [`NotFound`](crate::ErrorKind::NotFound) if no record has the id.
    /// - [`Conflict`](crate::ErrorKind::Conflict) if the record is of another incarnation, which [`Error::holder`](crate::Error::holder)
    ///   names, or if something else than this port has marked the record in the same place.
    /// - [`Unsupported`](crate::ErrorKind::Unsupported) if the server has no place for this override. The cause says what to do
    ///   instead.
    /// - Otherwise why the server did not confirm.
    ///
    /// # Cancel safety
    /// After a dropped call the override may or may not be set: call again.
    async fn set_override(&self, record: &RecordId, wanted: Option<Override>) -> Result<()>;

    /// Removes this incarnation's record with its override. Readers learn that it was removed on purpose, if the server has a way
    /// to tell them. A living owner notices that at its next renewal, and registers again.
    ///
    /// # Errors
    /// As [`set_override`](Self::set_override).
    ///
    /// # Cancel safety
    /// After a dropped call the record may still be there: call again.
    async fn remove(&self, record: &RecordId) -> Result<()>;
}

/// `NotFound`: no record has the id that an operator names.
pub fn no_such_record(op: &'static str, record: &RecordId) -> Error {
    Error::new(ErrorKind::NotFound, op).because(format!(
        "{:?} has no record {:?}: it may have ended",
        record.service, record.id
    ))
}

/// Checks that the record which was found under an id is that of the run that an operator names.
///
/// # Errors
/// `Conflict` if it is that of another run.
pub fn check_run(op: &'static str, record: &RecordId, found: impl Into<Holder>) -> Result<()> {
    let found = found.into();
    if found.incarnation == record.incarnation {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, op)
        .held_by(found)
        .because(format!(
            "{:?} of {:?} is not the record of the incarnation {} any more: list the service again",
            record.id, record.service, record.incarnation
        )))
}
