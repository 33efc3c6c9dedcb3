//! A module: what is stored of it, and its connections.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use super::SessionId;
use crate::server::variables::used;

/// A module, with its connections.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) stored: StoredModule,
    /// Since this process knows it.
    pub(crate) known_since: SystemTime,
    pub(crate) last_connected_at: Option<SystemTime>,
    pub(crate) last_disconnected_at: Option<SystemTime>,
    pub(super) sessions: BTreeSet<SessionId>,
    /// The sessions that get its configuration.
    pub(super) receivers: BTreeSet<SessionId>,
    /// The places of those that are ready.
    pub(super) backends: BTreeSet<u64>,
}

impl Module {
    pub(super) fn of(stored: StoredModule) -> Self {
        Self {
            stored,
            known_since: SystemTime::now(),
            last_connected_at: None,
            last_disconnected_at: None,
            sessions: BTreeSet::new(),
            receivers: BTreeSet::new(),
            backends: BTreeSet::new(),
        }
    }

    /// Whether nothing is left of it.
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.backends.is_empty() && self.stored.is_empty()
    }
}

impl Default for Module {
    fn default() -> Self {
        Self::of(StoredModule::default())
    }
}

/// What is kept of a module.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredModule {
    /// The versions of its configuration, the oldest first.
    pub(crate) configs: VecDeque<StoredConfig>,
    pub(crate) schema: Option<Schema>,
}

impl StoredModule {
    /// The configuration that it gets.
    pub(crate) fn config(&self) -> Option<&StoredConfig> {
        self.configs.back()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.configs.is_empty() && self.schema.is_none()
    }

    pub(crate) fn bytes(&self) -> usize {
        let configs = self.configs.iter().map(|config| config.data.len());
        configs.sum::<usize>() + self.schema.as_ref().map_or(0, Schema::bytes)
    }
}

/// One version of a module's configuration.
#[derive(Clone)]
pub struct StoredConfig {
    version: u32,
    data: Arc<str>,
    written_at: SystemTime,
    /// Variables in it.
    pub(crate) uses: BTreeSet<String>,
}

impl StoredConfig {
    pub(crate) fn new(version: u32, data: impl Into<Arc<str>>, written_at: SystemTime) -> Self {
        let data = data.into();
        Self {
            version,
            uses: used(&data),
            data,
            written_at,
        }
    }

    /// Its number: 1 is the default that the module has sent, and each change adds 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The JSON, with variables as they were written. May hold secrets.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// When it was written.
    pub fn written_at(&self) -> SystemTime {
        self.written_at
    }
}

/// The configuration itself is not shown: it may hold secrets.
impl std::fmt::Debug for StoredConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredConfig")
            .field("version", &self.version)
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

/// The JSON schema of a module's configuration.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Schema {
    /// The module's version.
    pub(crate) version: String,
    pub(crate) data: Arc<str>,
    pub(crate) written_at: SystemTime,
}

impl Schema {
    pub(crate) fn bytes(&self) -> usize {
        self.version.len() + self.data.len()
    }
}

/// Defaults in a schema may be secrets.
impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schema")
            .field("version", &self.version)
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}
