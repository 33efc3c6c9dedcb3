//! What the test files share: zones of a real server that can be changed, and servers that answer what a test says.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test file uses a part of this"
)]

pub(crate) mod scripted;
pub(crate) mod zone;

use std::time::Duration;

use sd_core::{Registry, RegistryConfig, State, Subscription};
use sd_dns::DnsConfig;
pub(crate) use sd_testing::{LONG, eventually, is_live_with, is_stale, until};

/// The shortest interval that can be set.
pub(crate) const SHORTEST: Duration = Duration::from_millis(100);
/// Longer than any time-to-live in these tests.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);
/// How much later than it must be something may be seen on a busy machine.
pub(crate) const BUSY: Duration = Duration::from_secs(3);

/// The addresses in a state, sorted.
pub(crate) fn addresses(state: &State) -> Vec<String> {
    let instances = state.snapshot().instances().iter();
    let mut addresses: Vec<_> = instances.map(|one| one.endpoint().to_string()).collect();
    addresses.sort();
    addresses
}

/// For [`until`]: the source is followed, and the set has exactly these addresses.
pub(crate) fn is_live_at<const N: usize>(expected: [&str; N]) -> impl Fn(&State) -> bool {
    let mut expected = expected.map(str::to_owned).to_vec();
    expected.sort();
    move |state| state.status().as_str() == "live" && addresses(state) == expected
}

/// Why a state is stale, in words. Empty if it is not.
pub(crate) fn why(state: &State) -> String {
    let error = state.status().error();
    error.map_or_else(String::new, |error| error.report().to_string())
}

/// A registry whose readers notice soon that a source is back.
pub(crate) fn connect(config: DnsConfig) -> Registry {
    let mut registry = RegistryConfig::default();
    registry.subscription = registry
        .subscription
        .with_backoff(Duration::from_millis(50), Duration::from_millis(200));
    sd_dns::connect_with(config, registry).unwrap()
}
