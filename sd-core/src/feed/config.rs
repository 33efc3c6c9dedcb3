//! How a subscription uses its source.

use std::time::Duration;

use crate::feed::mass_loss::MassLossHold;

/// How a subscription uses its source.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubscriptionConfig {
    /// How long opening a feed may take. Default 5 s.
    pub open_timeout: Duration,
    /// The bound of the first delay after a failed feed. Later bounds double, all delays have full jitter. Default 100 ms.
    pub backoff_first: Duration,
    /// The longest delay between feeds. Default 5 s.
    pub backoff_cap: Duration,
    /// A feed that lives this long resets the delay. Default 10 s.
    pub stable_after: Duration,
    /// How often everything is read again, however healthy the feed looks, ± 20 %. Default 5 min. Less than 1 s counts as 1 s.
    /// `None` turns this off.
    pub anti_entropy: Option<Duration>,
    /// How often the list of services is read from a source that does not tell of changes by itself, ± 20 %. Default 10 s. Less
    /// than 1 s counts as 1 s.
    pub poll_services: Duration,
    /// Whether instances that vanish together stay in the set for a while. By default [`MassLossHold::default`]. `None` follows
    /// the source at once.
    pub mass_loss_hold: Option<MassLossHold>,
    /// How bursts of changes are merged.
    pub coalescing: Coalescing,
    /// Whether the set counts in the service's metrics. A part of a combination does not count; the whole does.
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

/// How bursts of changes are merged. The first change after a quiet time is published at once. Later ones wait for the next
/// quiet time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalescing {
    /// A pause this long ends a burst. Default 10 ms.
    pub quiet: Duration,
    /// No change waits longer than this. Default 100 ms.
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
