//! Writing: one file for each record, which stays until it is withdrawn.

use std::sync::Arc;
use std::time::Duration;

use sd_core::port::{Attempt, Limits, Liveness, Registration, Renewed, async_trait};
use sd_core::{Error, ErrorKind, Instance, RecordId, Registrar, Result};

use crate::codec::{decode, encode, file_name};
use crate::store::{Change, Store};

/// Writes records to one folder.
#[derive(Debug)]
pub(crate) struct FolderRegistrar {
    store: Arc<Store>,
    limits: Limits,
}

impl FolderRegistrar {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let ttl = Duration::from_secs(1)..=Duration::from_hours(24);
        let limits = Limits::new(ttl, 64 * 1024);
        Self { store, limits }
    }
}

/// Whose record a file holds.
enum Owner {
    Free,
    Us,
    Other(Instance),
    Unknown(String),
}

impl Owner {
    fn of(record: &RecordId, file: &str, content: Option<&[u8]>) -> Self {
        let Some(content) = content else {
            return Self::Free;
        };
        match decode(&record.service, file, content) {
            Ok(found) if found.incarnation() == record.incarnation => Self::Us,
            Ok(found) => Self::Other(found),
            Err(reason) => Self::Unknown(reason),
        }
    }

    /// Why it cannot be ours.
    fn conflict(self, op: &'static str) -> Error {
        let conflict = Error::new(ErrorKind::Conflict, op);
        match self {
            Self::Other(found) => conflict
                .held_by(&found)
                .because("the id is taken: give this instance another one"),
            Self::Unknown(reason) => {
                conflict.because(format!("the id's file is no record ({reason}): remove it"))
            }
            Self::Free | Self::Us => {
                Error::new(ErrorKind::NotFound, op).because("the record was removed")
            }
        }
    }
}

/// Lets `decide` say what becomes of a record's file, given whose it is.
async fn change(
    store: &Store,
    op: &'static str,
    record: &RecordId,
    decide: impl FnOnce(Owner) -> Result<Change> + Send + 'static,
) -> Result<()> {
    let folder = file_name(op, record.service.as_str())?;
    let file = file_name(op, record.id.as_str())?;
    let (record, name) = (record.clone(), file.clone());
    let change = move |found: Option<Vec<u8>>| decide(Owner::of(&record, &name, found.as_deref()));
    store.change(op, &folder, &file, change).await
}

#[async_trait]
impl Registrar for FolderRegistrar {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn record_bytes(&self, record: &Instance) -> Result<usize> {
        const OP: &str = "folder: register";
        file_name(OP, record.service().as_str())?;
        file_name(OP, record.id().as_str())?;
        Ok(encode(OP, record)?.len())
    }

    async fn register(
        &self,
        record: &Instance,
        attempt: &Attempt,
    ) -> Result<Box<dyn Registration>> {
        const OP: &str = "folder: register";
        let (id, content) = (record.record_id(), encode(OP, record)?);
        change(&self.store, OP, &id, |owner| match owner {
            Owner::Free | Owner::Us => Ok(Change::Write(content)),
            other => Err(other.conflict(OP)),
        })
        .await?;
        Ok(Box::new(FolderRegistration {
            store: Arc::clone(&self.store),
            record: id,
            verify_every: attempt.ttl,
        }))
    }

    async fn withdraw(&self, record: &RecordId) -> Result<()> {
        change(
            &self.store,
            "folder: withdraw",
            record,
            |owner| match owner {
                Owner::Us => Ok(Change::Remove),
                _ => Ok(Change::Stay),
            },
        )
        .await
    }

    /// Waits for what was begun.
    async fn release(&self, record: &RecordId) -> Result<()> {
        change(&self.store, "folder: release", record, |_| Ok(Change::Stay)).await
    }
}

/// One record in the folder.
#[derive(Debug)]
struct FolderRegistration {
    store: Arc<Store>,
    record: RecordId,
    verify_every: Duration,
}

#[async_trait]
impl Registration for FolderRegistration {
    fn liveness(&self) -> Liveness {
        Liveness::Permanent {
            verify_every: self.verify_every,
        }
    }

    async fn renew(&self) -> Result<Renewed> {
        const OP: &str = "folder: renew";
        change(&self.store, OP, &self.record, |owner| match owner {
            Owner::Us => Ok(Change::Stay),
            other => Err(other.conflict(OP)),
        })
        .await?;
        Ok(Renewed::new(self.liveness()))
    }

    async fn update(&self, record: &Instance) -> Result<()> {
        const OP: &str = "folder: update";
        let content = encode(OP, record)?;
        change(&self.store, OP, &self.record, |owner| match owner {
            Owner::Us => Ok(Change::Write(content)),
            other => Err(other.conflict(OP)),
        })
        .await
    }
}
