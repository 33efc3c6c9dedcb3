//! The clients of candidates, apart from the registry's: one for each runtime that candidates run on.
//!
//! Each has a connection for commands and one for messages. The runtime that makes a connection drives it, and no candidate may lose its
//! term because another one's runtime has ended or is blocked. On one runtime all candidates of a registry share theirs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use sd_core::sync::lock;
use tokio::runtime::{self, Handle};

use crate::client::Client;

/// The clients of all candidates of one registry.
#[derive(Debug)]
pub(crate) struct CandidateClients {
    /// The registry's.
    shared: Arc<Client>,
    by_runtime: Mutex<HashMap<runtime::Id, Weak<Client>>>,
}

/// The clients of one elector, which others may have as well.
#[derive(Debug)]
pub(crate) struct ElectorClients {
    all: Arc<CandidateClients>,
    /// The one that was used last. It stays for the next candidates.
    last: Mutex<Option<Arc<Client>>>,
}

impl CandidateClients {
    /// Clients that close with the `shared` one.
    pub(crate) fn new(shared: Arc<Client>) -> Self {
        Self {
            shared,
            by_runtime: Mutex::default(),
        }
    }

    /// The one of the runtime that calls. It connects when it is first used.
    fn here(&self) -> Arc<Client> {
        let mut by_runtime = lock(&self.by_runtime);
        by_runtime.retain(|_, client| client.strong_count() > 0);
        let id = Handle::current().id();
        if let Some(client) = by_runtime.get(&id).and_then(Weak::upgrade) {
            return client;
        }
        let client = Arc::new(self.shared.sibling());
        by_runtime.insert(id, Arc::downgrade(&client));
        client
    }
}

impl ElectorClients {
    pub(crate) fn of(all: Arc<CandidateClients>) -> Self {
        Self {
            all,
            last: Mutex::default(),
        }
    }

    /// The one of the runtime that calls.
    pub(crate) fn here(&self) -> Arc<Client> {
        let client = self.all.here();
        lock(&self.last).replace(Arc::clone(&client));
        client
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::config::RedisConfig;

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn electors_share_the_client_of_their_runtime_and_no_other_one() {
        let config = RedisConfig::new(["h:1"]).checked().unwrap();
        let shared = Arc::new(Client::new(config));
        let all = Arc::new(CandidateClients::new(Arc::clone(&shared)));
        let [one, two] = [(); 2].map(|()| ElectorClients::of(Arc::clone(&all)));
        let (first, second) = (runtime(), runtime());
        let on = |runtime: &Runtime, elector: &ElectorClients| {
            runtime.block_on(async { elector.here() })
        };
        let here = on(&first, &one);
        assert!(Arc::ptr_eq(&here, &on(&first, &two)) && !Arc::ptr_eq(&here, &shared));
        let elsewhere = on(&second, &two);
        assert!(!Arc::ptr_eq(&here, &elsewhere));
        // It stays for the next candidate, and ends with the last elector.
        let weak = Arc::downgrade(&here);
        drop(here);
        assert!(weak.upgrade().is_some());
        drop(one);
        assert!(weak.upgrade().is_none());
    }
}
