//! How a subscription uses its source.

use std::time::Duration;

use serde::Deserialize;

use crate::feed::mass_loss::MassLossHold;

/// How a subscription uses its source.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SubscriptionConfig {
    /// How long opening a feed may take. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub open_timeout: Duration,
    /// The bound of the first delay after a failed feed. Later bounds double, all delays have full jitter. Default 100 ms.
    #[serde(with = "humantime_serde")]
    pub backoff_first: Duration,
    /// The longest delay between feeds. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub backoff_cap: Duration,
    /// A feed that lives this long resets the delay. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub stable_after: Duration,
    /// How often everything is read again, however healthy the feed looks, ± 20 %. Default 5 min. Less than 1 s counts as 1 s.
    /// `None` turns this off.
    #[serde(with = "humantime_serde")]
    pub anti_entropy: Option<Duration>,
    /// How often the list of services is read from a source that does not tell of changes by itself, ± 20 %. Default 10 s. Less
    /// than 1 s counts as 1 s.
    #[serde(with = "humantime_serde")]
    pub poll_services: Duration,
    /// Whether instances that vanish together stay in the set for a while. By default [`MassLossHold::default`], which leaves sources alone
    /// that do not tell withdrawals. `None` follows every source at once.
    pub mass_loss_hold: Option<MassLossHold>,
    /// How bursts of changes are merged.
    pub coalescing: Coalescing,
    /// Whether the set counts in the service's metrics. A part of a combination does not count; the whole does.
    #[serde(skip)]
    pub(crate) metered: bool,
}

impl Default for SubscriptionConfig {
    fn default() -> Self {
        Self {
            open_timeout: Duration::from_secs(5),
            backoff_first: Duration::from_millis(100),
            backoff_cap: Duration::from_secs(5),
            stable_after: Duration::from_secs(10),
            anti_entropy: Some(Duration::from_secs(5 * 60)),
            poll_services: Duration::from_secs(10),
            mass_loss_hold: Some(MassLossHold::default()),
            coalescing: Coalescing::default(),
            metered: true,
        }
    }
}

impl SubscriptionConfig {
    /// Sets how long opening a feed may take.
    #[must_use]
    pub fn with_open_timeout(mut self, timeout: Duration) -> Self {
        self.open_timeout = timeout;
        self
    }

    /// Sets the first and the longest delay between feeds.
    #[must_use]
    pub fn with_backoff(mut self, first: Duration, cap: Duration) -> Self {
        self.backoff_first = first;
        self.backoff_cap = cap;
        self
    }

    /// Sets how often everything is read again; `None` turns it off.
    #[must_use]
    pub fn with_anti_entropy(mut self, every: Option<Duration>) -> Self {
        self.anti_entropy = every;
        self
    }

    /// Sets whether instances that vanish together stay in the set for a while.
    #[must_use]
    pub fn with_mass_loss_hold(mut self, hold: Option<MassLossHold>) -> Self {
        self.mass_loss_hold = hold;
        self
    }

    /// Sets how bursts of changes are merged.
    #[must_use]
    pub fn with_coalescing(mut self, coalescing: Coalescing) -> Self {
        self.coalescing = coalescing;
        self
    }
}

/// How bursts of changes are merged. The first change after a quiet time is published at once. Later ones wait for the next
/// quiet time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Coalescing {
    /// A pause this long ends a burst. Default 10 ms.
    #[serde(with = "humantime_serde")]
    pub quiet: Duration,
    /// No change waits longer than this. Default 100 ms.
    #[serde(with = "humantime_serde")]
    pub longest: Duration,
}

impl Default for Coalescing {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(10),
            longest: Duration::from_millis(100),
        }
    }
}

impl Coalescing {
    /// Ends a burst after `quiet`, and lets no change wait longer than `longest`.
    pub fn new(quiet: Duration, longest: Duration) -> Self {
        Self { quiet, longest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RegistryConfig;

    #[test]
    fn a_configuration_is_loaded_with_defaults_and_refuses_what_it_does_not_know() {
        let text = r#"{
            "subscription": {"anti_entropy": null, "coalescing": {"quiet": "5ms"}},
            "registration": {"ttl": "30s"}
        }"#;
        let loaded: RegistryConfig = serde_json::from_str(text).unwrap();
        assert_eq!(loaded.registration.ttl, Duration::from_secs(30));
        assert_eq!(loaded.subscription.anti_entropy, None);
        let quiet = Duration::from_millis(5);
        assert_eq!(
            loaded.subscription.coalescing,
            Coalescing::new(quiet, Coalescing::default().longest)
        );
        assert!(loaded.subscription.metered);
        assert!(serde_json::from_str::<RegistryConfig>(r#"{"subscriptoin": {}}"#).is_err());
    }
}
