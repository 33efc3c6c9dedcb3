//! Where questions go: the resolvers, in order, and what this machine knows itself.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::rr::{Name, RecordType};
use sd_core::{ErrorKind, Printable, Result};
use tracing::debug;

use crate::client::answer::Step;
use crate::client::error::Failure;
use crate::client::resolver::Resolver;
use crate::client::system::{SystemFiles, absolute};
use crate::client::tls::Tls;
use crate::config::validation::{Settings, default_port};

/// The resolvers that are asked, and the system's files if they name them.
#[derive(Debug)]
pub(crate) struct Destination {
    resolvers: Vec<Resolver>,
    /// The one that answered last, which is asked first.
    first: AtomicUsize,
    system: Option<SystemFiles>,
}

impl Destination {
    /// The resolvers that the settings name.
    pub(crate) fn named(settings: &Settings, tls: &Tls) -> Result<Self> {
        Self::new(settings.resolvers.iter().copied(), None, settings, tls)
    }

    /// The resolvers that the system's files name.
    pub(crate) fn of_system(files: SystemFiles, settings: &Settings, tls: &Tls) -> Result<Self> {
        let port = default_port(settings.transport);
        let resolvers = files.resolvers.clone();
        let resolvers = resolvers.into_iter().map(|ip| SocketAddr::new(ip, port));
        Self::new(resolvers, Some(files), settings, tls)
    }

    pub(crate) fn new(
        addresses: impl Iterator<Item = SocketAddr>,
        system: Option<SystemFiles>,
        settings: &Settings,
        tls: &Tls,
    ) -> Result<Self> {
        let resolver = |address| Ok(Resolver::new(address, settings, tls.for_resolver()?));
        Ok(Self {
            resolvers: addresses.map(resolver).collect::<Result<_>>()?,
            first: AtomicUsize::new(0),
            system,
        })
    }

    /// The names that are asked for `name`, in order.
    pub(crate) fn candidates(&self, name: &Name) -> Vec<Name> {
        match &self.system {
            Some(files) => files.candidates(name),
            None => vec![absolute(name)],
        }
    }

    /// The resolvers, in order.
    pub(crate) fn resolvers(&self) -> &[Resolver] {
        &self.resolvers
    }

    /// What this machine knows itself.
    pub(crate) fn system(&self) -> Option<&SystemFiles> {
        self.system.as_ref()
    }

    /// Asks one resolver after the other until one answers. Cancel-safe.
    pub(crate) async fn ask(&self, name: &Name, wanted: RecordType) -> Result<Step, Failure> {
        let first = self.first.load(Ordering::Relaxed);
        let mut failed: Option<Failure> = None;
        let resolvers = self.resolvers.iter().enumerate().cycle();
        for (index, resolver) in resolvers.skip(first).take(self.resolvers.len()) {
            match resolver.ask(name, wanted).await {
                Ok(step) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Ok(step);
                }
                Err(failure) => {
                    if failure.kind == ErrorKind::Timeout {
                        // The next question does not wait for it again.
                        let next = (index + 1) % self.resolvers.len();
                        let (order, first) = (Ordering::Relaxed, &self.first);
                        let _ = first.compare_exchange(index, next, order, order);
                    }
                    let (resolver, name) = (resolver.address(), name.to_ascii());
                    let shown = Printable(&failure.why);
                    debug!(%resolver, name, %wanted, why = %shown, "no answer");
                    let why = format!("{resolver}, asked for {wanted} of {name}: {}", failure.why);
                    let why = match &failed {
                        Some(earlier) => format!("{}; {why}", earlier.why),
                        None => why,
                    };
                    failed = Some(Failure::new(failure.kind, why));
                }
            }
        }
        Err(failed.unwrap_or_else(|| Failure::new(ErrorKind::Unavailable, "there is no resolver")))
    }
}
