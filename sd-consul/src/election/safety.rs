//! What Consul promises of its elections.

use std::borrow::Cow;
use std::time::Duration;

use sd_core::port::{Safety, SafetyNote};

use crate::client::sessions::SHORTEST_TTL;
use crate::config::ConsulConfig;
use crate::election::entry::DELAY_POLLS;

/// The server's own timers, and an attempt to take the lock on a busy machine.
const SWEEP: Duration = Duration::from_millis(700);

/// With these settings, whatever the version.
pub(crate) fn safety(config: &ConsulConfig) -> Safety {
    let mut safety = Safety::strict();
    safety.fair = false;
    // Consul ends a session when it was not renewed for twice its time-to-live.
    safety.failover_factor = 2;
    let [_, longest_poll] = DELAY_POLLS;
    safety.failover_extra = config.lock_delay + longest_poll + SWEEP;
    let delay = config.lock_delay;
    safety.notes = vec![
        SafetyNote::new(
            "lost-leader-is-replaced-late",
            false,
            Cow::Owned(format!(
                "Consul ends a session that is not renewed after twice its time-to-live, and then no candidate may lead for another \
                 {delay:?}; a leader that resigns is replaced at once"
            )),
        ),
        // A term of any length could then be believed in beside the next.
        SafetyNote::new(
            "session-ended-by-returned-server",
            delay < SHORTEST_TTL,
            Cow::Owned(format!(
                "a server that loses its raft leadership while it is ending a session retries for minutes, and if it leads again by \
                 then, it ends the session although it was renewed: set a lock_delay that is not shorter than the time-to-live, so \
                 that no two candidates believe that they lead; it is {delay:?}"
            )),
        ),
    ];
    safety
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doubled_ttl_and_the_lock_delay_are_promised_for() {
        let config = ConsulConfig::default().with_lock_delay(Duration::from_secs(3));
        let safety = safety(&config);
        let within = safety.failover_within(Duration::from_secs(10));
        assert!((23..26).contains(&within.as_secs()), "{within:?}");
        assert!(!safety.fair && safety.notes[0].text.contains("3s"));
    }

    #[test]
    fn a_lock_delay_that_is_shorter_than_every_term_is_warned_of() {
        let warned = |seconds| {
            let config = ConsulConfig::default().with_lock_delay(Duration::from_secs(seconds));
            let codes: Vec<_> = safety(&config).warnings().map(|note| note.code).collect();
            codes
        };
        assert_eq!(warned(9), ["session-ended-by-returned-server"]);
        assert_eq!(warned(15), [""; 0]);
    }
}
