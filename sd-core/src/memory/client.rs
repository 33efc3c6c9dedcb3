//! What the parts of an elector share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::MemoryBackend;
use super::elections::Elections;
use crate::clock::Clock;

/// The data, the time, and whether the backend was closed.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) elections: Arc<Elections>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) closed: CancellationToken,
}

impl Client {
    pub(super) fn of(backend: &MemoryBackend) -> Self {
        Self {
            elections: Arc::clone(&backend.elections),
            clock: Arc::clone(&backend.clock),
            closed: backend.closed.clone(),
        }
    }
}
