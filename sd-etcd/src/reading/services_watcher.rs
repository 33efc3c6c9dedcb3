//! The feed of the list of services: watch from now on, read all keys, then apply what the watch tells.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::ServicesWatcher;
use sd_core::{Result, ServiceName};

use crate::backend::EtcdBackend;
use crate::client::change_feed::ChangeFeed;
use crate::client::range::read_keys;
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
struct ServiceKeys {
    layout: Layout,
    keys: BTreeMap<ServiceName, HashSet<Vec<u8>>>,
}

impl ServiceKeys {
    fn new(layout: &Layout) -> Self {
        Self {
            layout: layout.clone(),
            keys: BTreeMap::new(),
        }
    }

    fn put(&mut self, key: &[u8]) {
        if let Some(service) = self.layout.service_of(key) {
            self.keys.entry(service).or_default().insert(key.to_vec());
        }
    }

    fn delete(&mut self, key: &[u8]) {
        let Some(service) = self.layout.service_of(key) else {
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

    fn silence_limit(&self) -> Duration {
        self.feed.silence_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::format::Format;

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
        ] {
            keys.put(key.as_bytes());
        }
        let names = |keys: &ServiceKeys| {
            let names = keys.services();
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&keys), ["a", "b"]);
        keys.delete(b"/p/a/2");
        keys.delete(b"/p/a/never-seen");
        assert_eq!(names(&keys), ["a", "b"]);
        keys.delete(b"/p/a/1");
        assert_eq!(names(&keys), ["b"]);
        keys.delete(b"/p/b/1");
        assert!(keys.services().is_empty());
    }
}
