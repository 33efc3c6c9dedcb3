//! The feed of the list of services: read it, then ask again and again, each time waiting until something may have changed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::ServicesWatcher;
use sd_core::{Result, ServiceName};
use tracing::debug;

use crate::backend::ConsulBackend;
use crate::client::Client;
use crate::client::blocking_queries::Waiter;
use crate::reading::rate_limiter::RateLimiter;
use crate::reading::services::ReadServices;
use crate::reading::watcher::{SLACK, check_fresh};

const OP: &str = "consul: watch services";

/// All services, followed.
#[derive(Debug)]
pub(crate) struct ConsulServicesWatcher {
    client: Arc<Client>,
    waiter: Waiter,
    rate: RateLimiter,
    /// Where to wait from. `None` before the first answer.
    index: Option<u64>,
    unlisted: usize,
}

impl ConsulServicesWatcher {
    pub(crate) fn open(backend: &ConsulBackend) -> Self {
        let client = &backend.client;
        Self {
            client: Arc::clone(client),
            waiter: client.waiter(),
            rate: RateLimiter::new(),
            index: None,
            unlisted: 0,
        }
    }
}

#[async_trait]
impl ServicesWatcher for ConsulServicesWatcher {
    async fn next(&mut self) -> Result<Vec<ServiceName>> {
        let mut read = match self.index {
            None => self.client.services(OP).await?,
            Some(index) => {
                self.rate.ready().await;
                self.client
                    .changed_services(OP, &self.waiter, index)
                    .await?
            }
        };
        if self.index.is_some_and(|index| read.meta.index < index) {
            // The servers lost data or were restored, or the agent has lost its view: it must not be believed without asking.
            debug!(to = read.meta.index, "index went back");
            self.rate.spend(read.bytes);
            read = self.client.services(OP).await?;
        }
        let ReadServices {
            services,
            unlisted,
            meta,
            bytes,
        } = read;
        self.rate.spend(bytes);
        self.index = Some(meta.index);
        self.unlisted = unlisted;
        check_fresh(OP, &self.client, &meta)?;
        Ok(services)
    }

    fn unlisted(&self) -> usize {
        self.unlisted
    }

    fn silence_limit(&self) -> Duration {
        self.client.longest_query() + SLACK
    }
}
