//! The feed of the list of services: watch from now on, read all keys, then apply what the watch tells.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::ServicesWatcher;
use sd_core::{Result, ServiceList, ServiceName};

use crate::backend::EtcdBackend;
use crate::client::change_feed::ChangeFeed;
use crate::client::range::{folder, read_keys};
use crate::codec::Layout;

const OP: &str = "etcd: watch services";

/// All services, followed.
#[derive(Debug)]
pub(crate) struct EtcdServicesWatcher {
    feed: ChangeFeed,
    keys: ServiceKeys,
    has_told: bool,
}

/// The keys of each service. A service is there as long as one of its keys is.
#[derive(Debug)]
pub(super) struct ServiceKeys {
    layout: Layout,
    keys: BTreeMap<ServiceName, HashSet<Vec<u8>>>,
    /// Keys that are of no service, by what is counted of them: their folder, or they themselves in none. Of both only hashes are kept:
    /// they may be as long as a value.
    others: HashMap<u64, HashSet<u64>>,
    hasher: RandomState,
}

impl ServiceKeys {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            layout: layout.clone(),
            keys: BTreeMap::new(),
            others: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// What is counted of a key that is of no service, and the key.
    fn other(&self, key: &[u8]) -> (u64, u64) {
        let (start, _) = self.layout.all();
        let counted = folder(&start, key).unwrap_or(key);
        (self.hasher.hash_one(counted), self.hasher.hash_one(key))
    }

    pub(super) fn put(&mut self, key: &[u8]) {
        if self.layout.is_placeholder(key) {
            return;
        }
        if let Some(service) = self.layout.service_of(key) {
            self.keys.entry(service).or_default().insert(key.to_vec());
            return;
        }
        let (counted, key) = self.other(key);
        self.others.entry(counted).or_default().insert(key);
    }

    fn delete(&mut self, key: &[u8]) {
        let Some(service) = self.layout.service_of(key) else {
            let (counted, key) = self.other(key);
            if let Some(keys) = self.others.get_mut(&counted) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.others.remove(&counted);
                }
            }
            return;
        };
        if let Some(keys) = self.keys.get_mut(&service) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&service);
            }
        }
    }

    fn services(&self) -> Vec<ServiceName> {
        self.keys.keys().cloned().collect()
    }

    /// The services, and how much else there is.
    pub(super) fn list(&self) -> ServiceList {
        ServiceList::from(self.services()).with_unlisted(self.others.len())
    }
}

impl EtcdServicesWatcher {
    pub(crate) async fn open(backend: &EtcdBackend) -> Result<Self> {
        let (client, layout) = (&backend.client, &backend.layout);
        let (from, to) = layout.all();
        let mut feed = ChangeFeed::open(client, OP, (&from, &to)).await?;
        let new = || ServiceKeys::new(layout);
        let reading = read_keys(client, OP, (&from, &to), new, |keys, entry| {
            keys.put(entry.key());
        });
        let (keys, position) = reading.await?;
        feed.skip_to(position)?;
        Ok(Self {
            feed,
            keys,
            has_told: false,
        })
    }
}

#[async_trait]
impl ServicesWatcher for EtcdServicesWatcher {
    async fn next(&mut self) -> Result<Vec<ServiceName>> {
        if std::mem::replace(&mut self.has_told, true) {
            let news = self.feed.next().await?;
            let keys = &mut self.keys;
            self.feed.take(&news, |entry| {
                if entry.version() == 0 {
                    keys.delete(entry.key());
                } else {
                    keys.put(entry.key());
                }
            })?;
        }
        Ok(self.keys.services())
    }

    fn unlisted(&self) -> usize {
        self.keys.others.len()
    }

    fn silence_limit(&self) -> Duration {
        self.feed.silence_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::format::Format;

    #[test]
    fn a_key_may_be_a_service_itself() {
        let mut keys = ServiceKeys::new(&Layout::new("/apisix/upstreams", Format::Apisix));
        for key in [
            "/apisix/upstreams/",
            "/apisix/upstreams/1",
            "/apisix/upstreams/a\u{1b}",
        ] {
            keys.put(key.as_bytes());
        }
        let list = keys.list();
        assert_eq!(list.services[0].as_str(), "1");
        assert_eq!((list.services.len(), list.unlisted), (1, 1));
        keys.delete(b"/apisix/upstreams/1");
        assert!(keys.services().is_empty());
    }

    #[test]
    fn a_service_is_listed_as_long_as_one_of_its_keys_is_there() {
        let mut keys = ServiceKeys::new(&Layout::new("/p", Format::Json));
        for key in [
            "/p/b/1",
            "/p/a/1",
            "/p/a/2",
            "/p/a/2",
            "/p/no service",
            "/p/\u{1b}/1",
            "/p/\u{1b}/2",
        ] {
            keys.put(key.as_bytes());
        }
        let names = |keys: &ServiceKeys| {
            let names = keys.services();
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&keys), ["a", "b"]);
        // A key in no folder, and a folder with two.
        assert_eq!(keys.others.len(), 2);
        keys.delete("/p/\u{1b}/1".as_bytes());
        assert_eq!(keys.others.len(), 2);
        keys.delete("/p/\u{1b}/2".as_bytes());
        keys.delete("/p/\u{1b}/3".as_bytes());
        assert_eq!(keys.others.len(), 1);
        keys.delete(b"/p/a/2");
        keys.delete(b"/p/a/never-seen");
        assert_eq!(names(&keys), ["a", "b"]);
        keys.delete(b"/p/a/1");
        assert_eq!(names(&keys), ["b"]);
        keys.delete(b"/p/b/1");
        assert!(keys.services().is_empty());
    }
}
