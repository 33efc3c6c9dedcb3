//! The clients of one Consul: the one that all share, and those with connections of their own.

use std::sync::{Arc, Mutex, Weak};

use sd_core::sync::lock;

use crate::client::{Client, Concurrency};
use crate::config::ConsulConfig;

/// All clients of one Consul. They close together.
#[derive(Debug)]
pub(crate) struct Clients {
    shared: Arc<Client>,
    /// For as long as they are in use.
    siblings: Mutex<Vec<Weak<Client>>>,
}

impl Clients {
    /// For a [checked](ConsulConfig::checked) configuration. `concurrency` is that of the shared client.
    pub(crate) fn new(config: ConsulConfig, concurrency: Concurrency) -> Self {
        Self {
            shared: Arc::new(Client::new(config, concurrency)),
            siblings: Mutex::default(),
        }
    }

    /// The client that all share.
    pub(crate) fn shared(&self) -> &Arc<Client> {
        &self.shared
    }

    /// A new client with connections of its own.
    pub(crate) fn sibling(&self, concurrency: Concurrency) -> Arc<Client> {
        let sibling = Arc::new(self.shared.sibling(concurrency));
        let mut siblings = lock(&self.siblings);
        siblings.retain(|other| other.strong_count() > 0);
        siblings.push(Arc::downgrade(&sibling));
        sibling
    }

    /// Closes all of them.
    pub(crate) fn close(&self) {
        self.shared.close();
        for sibling in lock(&self.siblings).iter().filter_map(Weak::upgrade) {
            sibling.close();
        }
    }
}
