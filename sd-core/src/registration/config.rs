//! How a registration is kept.

use std::time::Duration;

use serde::Deserialize;

use crate::port::registrar::Limits;

/// How a registration is kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RegistrationConfig {
    /// How long a record outlives its last renewal. The server may grant another time-to-live, which then applies. Default
    /// [`DEFAULT_TTL`](Self::DEFAULT_TTL).
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// How long [`Registry::register`](crate::Registry::register) tries before it gives up, and how long an update waits for
    /// its confirmation. At least as long as [one write of the backend](crate::port::Limits::attempt) may take. If an
    /// earlier run at the same address holds the id, registering takes at most one time-to-live longer. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub confirm_within: Duration,
    /// How long a withdrawal is retried, at least as long as [one write of the backend](crate::port::Limits::attempt) may take.
    /// What becomes of a record that could not be withdrawn depends on its [`Liveness`](crate::port::Liveness): the server removes
    /// one that lives on a lease or a session, and a permanent one stays. Default 3 s.
    #[serde(with = "humantime_serde")]
    pub withdraw_within: Duration,
}

impl Default for RegistrationConfig {
    fn default() -> Self {
        Self {
            ttl: Self::DEFAULT_TTL,
            confirm_within: Duration::from_secs(10),
            withdraw_within: Duration::from_secs(3),
        }
    }
}

impl RegistrationConfig {
    /// The default time-to-live: 10 s.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(10);

    /// Sets how long a record outlives its last renewal.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets how long registering and updating try.
    #[must_use]
    pub fn with_confirm_within(mut self, limit: Duration) -> Self {
        self.confirm_within = limit;
        self
    }

    /// Sets how long a withdrawal is retried.
    #[must_use]
    pub fn with_withdraw_within(mut self, limit: Duration) -> Self {
        self.withdraw_within = limit;
        self
    }

    /// With bounds that leave room for one write of a backend with these limits.
    pub(crate) fn with_room_for_a_write(mut self, limits: &Limits) -> Self {
        let attempt = limits.attempt.unwrap_or_default();
        self.confirm_within = self.confirm_within.max(attempt);
        self.withdraw_within = self.withdraw_within.max(attempt);
        self
    }
}
