//! A registration before it is made: what to set, and whether to wait for it.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::model::instance::Instance;
use crate::registration::command::Confirm;
use crate::registration::config::RegistrationConfig;
use crate::registration::guard::RegistrationGuard;
use crate::registry::Registry;

/// A registration that [`Registry::register`] is to make, with the registry's settings unless it sets its own.
///
/// Await it to wait for the server's confirmation, or use [`in_background`](Self::in_background) in a process that must start while
/// its registry is down.
#[must_use = "nothing is registered until this is awaited or put in the background"]
pub struct Register {
    registry: Registry,
    instance: Instance,
    config: RegistrationConfig,
}

impl Register {
    pub(crate) fn new(registry: Registry, instance: Instance) -> Self {
        Self {
            config: registry.config().registration.clone(),
            registry,
            instance,
        }
    }

    /// Sets [`RegistrationConfig::ttl`] for this registration.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.config.ttl = ttl;
        self
    }

    /// Sets [`RegistrationConfig::confirm_within`] for this registration.
    pub fn confirm_within(mut self, limit: Duration) -> Self {
        self.config.confirm_within = limit;
        self
    }

    /// Sets [`RegistrationConfig::withdraw_within`] for this registration.
    pub fn withdraw_within(mut self, limit: Duration) -> Self {
        self.config.withdraw_within = limit;
        self
    }

    /// Checks all that is checked before anything is sent, for a caller that has something else to do before it registers.
    ///
    /// # Errors
    /// `InvalidInput`, `Unsupported` or `Closed` as for [`Registry::register`].
    pub fn check(&self) -> Result<()> {
        let registrar = self.registry.registrar_for(&self.instance, &self.config);
        registrar.map(drop)
    }

    /// Registers without waiting. Attempts go on until one succeeds or the guard is dropped. [`RegistrationGuard::next_event`]
    /// reports each of them. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `InvalidInput`, `Unsupported` or `Closed` as for [`Registry::register`]. `Conflict` if this process already keeps the id.
    pub fn in_background(self) -> Result<RegistrationGuard> {
        self.registry
            .keep(self.instance, self.config, Confirm::InBackground)
    }
}

impl IntoFuture for Register {
    type Output = Result<RegistrationGuard>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (confirmed, confirmation) = oneshot::channel();
            let confirm = Confirm::InTime(confirmed);
            let guard = self.registry.keep(self.instance, self.config, confirm)?;
            match confirmation.await {
                Ok(Ok(())) => Ok(guard),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(Error::new(ErrorKind::Closed, "register")),
            }
        })
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register")
            .field("instance", &self.instance)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
