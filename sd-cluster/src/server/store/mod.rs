//! Where configurations, schemas and variables are kept beyond the life of a process: nowhere, or in one SQLite file.
//!
//! All of it is in memory as well. A store writes what changes, before that counts, and is read once.

#[cfg(feature = "server-sqlite")]
mod sqlite;

use std::collections::BTreeMap;
use std::fmt::Debug;

use sd_core::{Error, ErrorKind, Result};

#[cfg(feature = "server-sqlite")]
pub(crate) use self::sqlite::SqliteStore;
use super::state::{Schema, StoredConfig, StoredModule, Variable};

/// One change, which is written whole or not at all.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "server-sqlite"),
    expect(dead_code, reason = "only a file is written to")
)]
pub(crate) enum Change<'a> {
    /// A new version of a configuration.
    Config {
        module: &'a str,
        config: &'a StoredConfig,
        /// Older ones are removed.
        oldest: u32,
        /// Whether an operator has written it, who is told that it is kept. What a module sends, it sends again when it connects.
        is_by_operator: bool,
    },
    Schema {
        module: &'a str,
        schema: &'a Schema,
    },
    Variable {
        name: &'a str,
        variable: &'a Variable,
    },
    VariableGone {
        name: &'a str,
    },
    ModuleGone {
        module: &'a str,
    },
    /// Instances that are listed from now on, as JSON, and places of those that are not any more.
    Listed {
        come: Vec<(u64, String)>,
        gone: Vec<u64>,
    },
    /// All that are listed, in place of those that were.
    AllListed(Vec<(u64, String)>),
}

/// What was kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) modules: BTreeMap<String, StoredModule>,
    pub(crate) variables: Vec<(String, Variable)>,
    /// Instances that were listed at last, by their places.
    pub(crate) instances: Vec<(u64, String)>,
}

#[cfg(feature = "server-sqlite")]
impl Kept {
    fn module(&mut self, name: String) -> &mut StoredModule {
        self.modules.entry(name).or_default()
    }
}

/// Where it is kept.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Memory,
    #[cfg(feature = "server-sqlite")]
    File(std::path::PathBuf),
}

impl Place {
    /// Opens it, and reads all of it. Blocks.
    ///
    /// # Errors
    /// Those of opening a file.
    #[cfg_attr(
        not(feature = "server-sqlite"),
        expect(clippy::unnecessary_wraps, unused_variables, reason = "of a file")
    )]
    pub(crate) fn open(self, most_bytes: usize) -> Result<(Box<dyn Store>, Kept)> {
        match self {
            Self::Memory => Ok((Box::new(InMemory), Kept::default())),
            #[cfg(feature = "server-sqlite")]
            Self::File(path) => {
                let (store, kept) = SqliteStore::open(&path, most_bytes)?;
                Ok((Box::new(store), kept))
            }
        }
    }

    /// Reads all of it as [`open`](Self::open) does, and changes nothing. Blocks.
    ///
    /// # Errors
    /// Those of opening a file, also that it is not there.
    #[cfg_attr(
        not(feature = "server-sqlite"),
        expect(clippy::unnecessary_wraps, reason = "of a file")
    )]
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Memory => Ok(()),
            #[cfg(feature = "server-sqlite")]
            Self::File(path) => SqliteStore::check(&path),
        }
    }
}

pub(crate) trait Store: Debug + Send {
    /// Writes a change. Blocks.
    ///
    /// # Errors
    /// `Unavailable`, and nothing is written.
    fn write(&mut self, change: &Change<'_>) -> Result<()>;

    /// Whether what is written outlives the process.
    fn is_lasting(&self) -> bool {
        false
    }
}

/// Keeps nothing.
#[derive(Debug)]
pub(crate) struct InMemory;

impl Store for InMemory {
    fn write(&mut self, _: &Change<'_>) -> Result<()> {
        Ok(())
    }
}

/// Was closed.
#[derive(Debug)]
pub(crate) struct Closed;

impl Store for Closed {
    fn write(&mut self, _: &Change<'_>) -> Result<()> {
        Err(Error::new(ErrorKind::Closed, "config service: write")
            .because("the service has stopped"))
    }
}
