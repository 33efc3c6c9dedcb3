//! What feeds know of their services, for the feeds that follow them.
//!
//! Answers are compared with those before them, for `keep_absent` and for names that are told to be empty. A feed ends with its first
//! error, and another one takes its place now and then. What it knew must not be lost with it: a sample would be taken for everything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sd_core::sync::lock;
use sd_core::{ServiceName, Snapshot};
use tokio::time::Instant;

use crate::reading::service_set::ServiceSet;

/// How long what an ended feed knew is kept for the next one.
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

/// Of each service, what its feed knew last.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<HashMap<ServiceName, Entry>>);

#[derive(Debug)]
struct Entry {
    set: ServiceSet,
    /// The feed that knew it, while it is there.
    feed: Weak<()>,
    at: Instant,
}

impl Remembered {
    /// What a new feed begins with. `known` is what its reader knows; a reader that knows nothing goes on with what a feed that is still
    /// there knows, which is about to be replaced by this one.
    pub(crate) fn begin(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
        keep_absent: u32,
    ) -> ServiceSet {
        let mut entries = lock(&self.0);
        entries.retain(|_, entry| entry.is_alive() || entry.at.elapsed() < KEPT_FOR);
        let entry = entries.get(service);
        if let Some(entry) = entry.filter(|entry| known.is_some() || entry.is_alive()) {
            return entry.set.clone();
        }
        match known {
            Some(known) => ServiceSet::of(known, keep_absent),
            None => ServiceSet::new(service.clone(), keep_absent),
        }
    }

    /// What `feed` knows now.
    pub(crate) fn keep(&self, service: &ServiceName, set: &ServiceSet, feed: &Arc<()>) {
        let entry = Entry {
            set: set.clone(),
            feed: Arc::downgrade(feed),
            at: Instant::now(),
        };
        let mut entries = lock(&self.0);
        entries.insert(service.clone(), entry);
    }
}

impl Entry {
    fn is_alive(&self) -> bool {
        self.feed.strong_count() > 0
    }
}
