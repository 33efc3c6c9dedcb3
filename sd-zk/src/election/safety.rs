//! What ZooKeeper promises of its elections.

use std::borrow::Cow;
use std::time::Duration;

use sd_core::port::{Safety, SafetyNote};

/// Sessions are looked through once in each tick of the server, by default of 2 s: a session may end that much later. Ending one, and
/// telling who waits, takes the rest.
const FAILOVER_EXTRA: Duration = Duration::from_millis(2750);

/// Whatever the version.
pub(crate) fn safety() -> Safety {
    let mut safety = Safety::strict();
    safety.failover_extra = FAILOVER_EXTRA;
    safety.notes = vec![SafetyNote::new(
        "session-timed-at-leader",
        false,
        Cow::Borrowed(
            "an ensemble that elects a new leader of its own times all sessions from the beginning, so that a candidate that was lost just \
             before is replaced that much later",
        ),
    )];
    safety
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_leader_is_replaced_within_its_time_out_and_a_tick() {
        let within = safety().failover_within(Duration::from_secs(10));
        assert!((12..13).contains(&within.as_secs()), "{within:?}");
        assert!(safety().fair && safety().warnings().next().is_none());
    }
}
