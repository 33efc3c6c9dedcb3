//! One of the services of a process.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::controller::Controller;
use super::error::Result;
use crate::wire::ServiceNode;

/// One of the services of a process. It stays registered when this is dropped. Cheap to clone.
#[derive(Clone)]
pub struct ServiceHandle {
    controller: Arc<Controller>,
    id: u64,
}

impl ServiceHandle {
    pub(crate) fn new(controller: Arc<Controller>, id: u64) -> Self {
        Self { controller, id }
    }

    /// It, as it is wanted. `None` after it has left.
    pub fn node(&self) -> Option<Arc<ServiceNode>> {
        self.controller.node(self.id)
    }

    /// Changes it: methods, weight, version, also its name and its port, which are registered before the old ones are taken out. Returns
    /// at once; [`Status`](super::Status) tells when the agent has accepted it. If it drains, it goes on draining. `change` is called
    /// again if another change of the service came between.
    ///
    /// # Errors
    /// As [`Controller::update`].
    pub fn update(&self, change: impl FnMut(ServiceNode) -> ServiceNode) -> Result<()> {
        self.controller.change(self.id, change)
    }

    /// Says whether it wants calls. Agents of ours have readers see that; those of the reference system do not know it. Returns at once.
    ///
    /// # Errors
    /// It has left.
    pub fn set_ready(&self, ready: bool) -> Result<()> {
        self.update(|node| ServiceNode { ready, ..node })
    }

    /// Has others send it no more calls. Without `grace`, the agent decides how long that lasts.
    ///
    /// # Errors
    /// It may still get calls.
    pub async fn drain(&self, grace: Option<Duration>) -> Result<()> {
        self.controller.drain_one(self.id, grace).await
    }

    /// Takes it out of the registry. After an error this is tried again while the agent is watched.
    ///
    /// # Errors
    /// It may still be registered.
    pub async fn deregister(&self) -> Result<()> {
        self.controller.deregister_one(self.id).await
    }
}

impl fmt::Debug for ServiceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceHandle")
            .field("node", &self.node())
            .finish()
    }
}
