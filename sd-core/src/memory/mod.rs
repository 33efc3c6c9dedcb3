//! The embedded registry: leases, revisions, watches and elections in this process, without a server.
//!
//! For the services of one process, for programs that must run without a registry, and for tests. It keeps the contracts of a
//! server: records expire unless they are renewed, deletes are conditional, feeds have no gap. It uses tokio's clock, which
//! tests can pause.
//!
//! ```
//! use sd_core::{Instance, memory::Memory};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> sd_core::Result<()> {
//! let registry = Memory::new().connect();
//! let guard = registry.register(Instance::new("greeter", "127.0.0.1:50051")?).await?;
//! let greeters = registry.subscribe("greeter")?;
//! let state = greeters.wait_until_ready(std::time::Duration::from_secs(1)).await?;
//! assert_eq!(state.snapshot().len(), 1);
//! guard.deregister().await?;
//! # Ok(())
//! # }
//! ```

mod client;
mod elections;
mod elector;
mod instancer;
mod leader_watcher;
mod operating;
mod operator;
mod registrar;
mod services_watcher;
mod store;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::elections::Elections;
pub use self::operator::Operator;
use self::store::Store;
use crate::clock::{Clock, TokioClock};
use crate::error::{Error, ErrorKind, Result};
use crate::port::registrar::Limits;
use crate::registry::{Registry, RegistryConfig};

/// The largest record, in bytes of JSON, and the largest value of a candidate, in bytes: 64 KiB.
const MAX_RECORD_BYTES: usize = 64 * 1024;
const SHORTEST_TTL: Duration = Duration::from_millis(10);
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);
/// How often a feed without changes reports that it is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// The data of an embedded registry. Cheap to clone; clones share the data. Each [`connect`](Self::connect) is a separate
/// client, as if from another process.
#[derive(Clone, Debug)]
pub struct Memory {
    store: Arc<Store>,
    elections: Arc<Elections>,
    clock: Arc<dyn Clock>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty registry on tokio's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(TokioClock))
    }

    /// An empty registry on `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let store = Store::new();
        let elections = Elections::new(store.domain());
        Self {
            store: Arc::new(store),
            elections: Arc::new(elections),
            clock,
        }
    }

    /// A client with the default configuration.
    pub fn connect(&self) -> Registry {
        self.connect_with(RegistryConfig::default().with_clock(Arc::clone(&self.clock)))
    }

    /// A client with this configuration.
    pub fn connect_with(&self, config: RegistryConfig) -> Registry {
        Registry::with_config(Arc::new(self.backend()), config)
    }

    /// The backend of a new client.
    pub fn backend(&self) -> MemoryBackend {
        MemoryBackend {
            store: Arc::clone(&self.store),
            elections: Arc::clone(&self.elections),
            clock: Arc::clone(&self.clock),
            limits: Limits::new(SHORTEST_TTL..=LONGEST_TTL, MAX_RECORD_BYTES),
            closed: CancellationToken::new(),
        }
    }

    /// A handle for what an operator can do to a registry, for simulations and tests.
    pub fn operator(&self) -> Operator {
        Operator::of(self)
    }
}

/// One client of a [`Memory`].
#[derive(Debug)]
pub struct MemoryBackend {
    store: Arc<Store>,
    elections: Arc<Elections>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    closed: CancellationToken,
}

impl MemoryBackend {
    fn check_open(&self, op: &'static str) -> Result<()> {
        check_open(&self.closed, op)
    }
}

fn check_open(closed: &CancellationToken, op: &'static str) -> Result<()> {
    if closed.is_cancelled() {
        Err(Error::new(ErrorKind::Closed, op))
    } else {
        Ok(())
    }
}
