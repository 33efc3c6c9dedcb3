//! How a registration is kept.

use std::time::Duration;

use crate::port::registrar::RegisterOptions;

/// How a registration is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegistrationConfig {
    /// How long [`Registry::register`](crate::Registry::register) tries before it gives up, and how long an update waits for
    /// its confirmation. Default 10 s.
    pub confirm_within: Duration,
    /// How long a withdrawal is retried. After that the record goes when its time-to-live ends. Default 3 s.
    pub withdraw_within: Duration,
    /// The options of [`Registry::register`](crate::Registry::register). By default [`RegisterOptions::default`].
    pub options: RegisterOptions,
}

impl Default for RegistrationConfig {
    fn default() -> Self {
        Self {
            confirm_within: Duration::from_secs(10),
            withdraw_within: Duration::from_secs(3),
            options: RegisterOptions::default(),
        }
    }
}
