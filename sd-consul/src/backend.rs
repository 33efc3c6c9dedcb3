//! What a configuration opens: one Consul with its ports.

use std::sync::Arc;

use async_trait::async_trait;
use sd_core::clock::{BootClock, Clock};
use sd_core::port::{AnyElector, Operator};
use sd_core::{Backend, Registrar, Registry, RegistryConfig, Result};

use crate::client::credentials::Credentials;
use crate::client::{Client, Concurrency};
use crate::config::ConsulConfig;
use crate::config::rules::{FILES, RULES};
use crate::election::elector::ConsulElector;
use crate::operating::operator::ConsulOperator;
use crate::reading::revision_domain::RevisionDomain;
use crate::writing::registrar::ConsulRegistrar;

/// An agent allows 200 connections for each address. This leaves some for elections and other programs.
const CONCURRENCY: Concurrency = Concurrency {
    blocking_queries: 128,
    requests: 32,
};
/// However few descriptors the process may have.
const LEAST: usize = 2;

/// Opens a registry over Consul. It does not wait for the agent and needs no runtime: the first use connects. It blocks while it reads
/// the files that `config` names, for no longer than the request timeout.
///
/// # Errors
/// `InvalidInput` names the setting that is wrong or whose file cannot be read.
pub fn connect(config: ConsulConfig) -> Result<Registry> {
    connect_with(config, RegistryConfig::default())
}

/// Like [`connect`], with settings for subscriptions and registrations.
///
/// # Errors
/// Those of [`connect`].
pub fn connect_with(config: ConsulConfig, mut registry: RegistryConfig) -> Result<Registry> {
    if let Some(ttl) = config.ttl {
        registry.registration.ttl = ttl;
    }
    let backend = ConsulBackend::new(config)?.with_clock(Arc::clone(&registry.clock));
    Ok(Registry::with_config(Arc::new(backend), registry))
}

/// One Consul, reached through one agent. Most programs use a [`Registry`] over it, from [`connect`].
#[derive(Debug)]
pub struct ConsulBackend {
    /// The client that all but electors share.
    pub(crate) client: Arc<Client>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) revision_domain: Arc<RevisionDomain>,
    registrar: Arc<ConsulRegistrar>,
}

impl ConsulBackend {
    /// A backend over the Consul that `config` names. It does not wait for the agent. It blocks while it reads the files that `config`
    /// names, for no longer than the request timeout.
    ///
    /// # Errors
    /// `InvalidInput` names the setting that is wrong or whose file cannot be read.
    pub fn new(config: ConsulConfig) -> Result<Self> {
        let config = config.checked()?;
        let named = config.clone();
        RULES.read_within(FILES, config.request_timeout, move || {
            Credentials::read(&named)
        })?;
        let client = Arc::new(Client::new(config, concurrency(descriptors())));
        Ok(Self {
            registrar: Arc::new(ConsulRegistrar::new(Arc::clone(&client))),
            client,
            clock: Arc::new(BootClock),
            revision_domain: Arc::default(),
        })
    }

    /// Measures the age of sets with this clock. Default [`BootClock`].
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

#[async_trait]
impl Backend for ConsulBackend {
    fn name(&self) -> &'static str {
        "consul"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        let registrar: Arc<dyn Registrar> = Arc::<ConsulRegistrar>::clone(&self.registrar);
        Some(registrar)
    }

    fn operator(self: Arc<Self>) -> Option<Arc<dyn Operator>> {
        let client = Arc::clone(&self.client);
        Some(Arc::new(ConsulOperator::new(client)))
    }

    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        let (client, clock) = (Arc::clone(&self.client), Arc::clone(&self.clock));
        let elector = ConsulElector::new(client, clock);
        Some(AnyElector::Strict(Arc::new(elector)))
    }

    async fn close(&self) -> Result<()> {
        self.client.signal.close();
        Ok(())
    }
}

/// How many descriptors this process may have, now. `None` where there is no such limit.
fn descriptors() -> Option<u64> {
    #[cfg(unix)]
    {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }
    #[cfg(not(unix))]
    {
        None
    }
}

/// Each query that waits keeps a connection, so that those which found no descriptor left would wait for ever. They must take turns before
/// that: all together take three eighths of the descriptors at most.
fn concurrency(descriptors: Option<u64>) -> Concurrency {
    let descriptors = descriptors.and_then(|limit| usize::try_from(limit).ok());
    let share = |most: usize, of: usize| {
        let share = descriptors.map_or(most, |limit| limit / of);
        share.clamp(LEAST, most)
    };
    Concurrency {
        blocking_queries: share(CONCURRENCY.blocking_queries, 4),
        requests: share(CONCURRENCY.requests, 8),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::ErrorKind;

    use super::*;
    use crate::client::connection::hanging_file;

    #[test]
    fn connections_take_a_part_of_the_descriptors_that_there_are() {
        let of = |descriptors| {
            let Concurrency {
                blocking_queries,
                requests,
            } = concurrency(descriptors);
            (blocking_queries, requests)
        };
        assert_eq!(of(None), (128, 32));
        assert_eq!(of(Some(u64::MAX)), (128, 32));
        assert_eq!(of(Some(512)), (128, 32));
        assert_eq!(of(Some(64)), (16, 8));
        assert_eq!(of(Some(3)), (2, 2));
    }

    #[test]
    fn a_file_that_hangs_is_refused_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let config = ConsulConfig::default()
            .with_token_file(hanging_file(&folder))
            .with_request_timeout(Duration::from_millis(100));
        let error = ConsulBackend::new(config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let report = error.report().to_string();
        assert!(report.contains("token_file"), "{report}");
    }
}
