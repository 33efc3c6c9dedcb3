//! What every command works with: the registry, where it is, and where to print.

use std::time::Duration;

use sd_backend::RegistryUrl;
use sd_core::clock::Clock;
use sd_core::{Error, Printable, Registry, RegistryConfig, ServiceName};
use tokio::time::Instant;
use tracing::debug;

use crate::cli::Cli;
use crate::cli::arguments::Wait;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// The user who pressed Ctrl-C waits for it.
pub(crate) const WITHDRAW_WITHIN: Duration = Duration::from_millis(1500);

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) registry: Registry,
    pub(crate) url: RegistryUrl,
    pub(crate) output: Output,
}

impl Session {
    pub(crate) fn open(cli: &Cli) -> Result<Self, Failure> {
        if cli.registry.is_empty() {
            return Err(Failure::new(
                "no registry given; try: --registry etcd://127.0.0.1:2379/services, or set SDCTL_REGISTRY",
            )
            .with(Exit::Misused));
        }
        let url = RegistryUrl::parse(&cli.registry).map_err(|error| {
            let line = format!("cannot open {}; try: sdctl --help", error.report());
            Failure::new(line).with(Exit::Misused)
        })?;
        let mut config = RegistryConfig::default();
        config.registration.withdraw_within = WITHDRAW_WITHIN;
        let registry = sd_any::connect_with(&cli.registry, config)
            .map_err(|error| Failure::at(&url, "open the registry", &error))?;
        Ok(Self {
            registry,
            url,
            output: Output::new(cli.json),
        })
    }

    /// The clock that a state's moments are of.
    pub(crate) fn clock(&self) -> &dyn Clock {
        self.registry.config().clock.as_ref()
    }

    /// What could not be done, and why.
    pub(crate) fn failure(&self, what: &str, error: &Error) -> Failure {
        Failure::at(&self.url, what, error)
    }

    /// Asks the registry, for as long as the user wants to wait.
    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        wait: &Wait,
        question: impl Future<Output = sd_core::Result<T>>,
    ) -> Result<T, Failure> {
        let answer = self.answer(what, wait, question).await;
        answer.map_err(|error| self.failure(what, &error))
    }

    /// As [`ask`](Self::ask), for a caller who looks at the error.
    pub(crate) async fn answer<T>(
        &self,
        what: &str,
        wait: &Wait,
        question: impl Future<Output = sd_core::Result<T>>,
    ) -> sd_core::Result<T> {
        debug!(url = %Printable(&self.url.to_string()), "asking to {}", Printable(what));
        let asked = Instant::now();
        let answer = tokio::time::timeout(wait.timeout, question).await;
        let answer = answer.unwrap_or_else(|_| {
            let limit = humantime::format_duration(wait.timeout);
            let error = Error::new(sd_core::ErrorKind::Timeout, "wait for an answer");
            Err(error.because(format!("none within {limit}")))
        });
        let took = asked.elapsed();
        match &answer {
            Ok(_) => debug!(?took, "answered"),
            Err(error) => debug!(?took, error = %error.report(), "not answered"),
        }
        answer
    }
}

/// A service's name as the user wrote it.
pub(crate) fn service_name(text: &str) -> Result<ServiceName, Failure> {
    ServiceName::new(text).map_err(|error| Failure::misused(&error))
}
