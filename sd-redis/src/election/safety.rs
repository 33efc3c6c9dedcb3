//! What Redis promises of its elections: the best that it can, and no more. How two candidates can lead at once is said here, and in the
//! README with what to do about each.

use std::borrow::Cow;
use std::time::Duration;

use sd_core::Result;
use sd_core::port::{Guarantee, Safety, SafetyNote};

use crate::client::Client;
use crate::election::scripts;

/// The next candidate looks when the lease before it has ended by the server's clock. The rest is for its timer, and for one more look if the
/// lease was renewed after the last one.
const FAILOVER_EXTRA: Duration = Duration::from_millis(500);

/// Whatever the server.
const FAILOVER: SafetyNote = SafetyNote::new(
    "confirmed-writes-lost-at-failover",
    true,
    Cow::Borrowed(
        "a primary confirms before its replicas have what it confirmed. When one of them takes its place, a candidate may lead there while \
         the leader of before still believes, for as long as that one reaches the old primary. Fence the leader's writes, and set \
         min-replicas-to-write to 1 with a short min-replicas-max-lag",
    ),
);
const CLOCK: SafetyNote = SafetyNote::new(
    "leases-by-the-servers-clock",
    true,
    Cow::Borrowed(
        "leases end by the wall clock of the server: one that is put forward ends them early. Let the server's clock be slewed, not stepped",
    ),
);

/// What one server says of itself.
const NO_LOG: SafetyNote = SafetyNote::new(
    "confirmed-writes-lost-at-restart",
    true,
    Cow::Borrowed(
        "this server keeps no append-only file: a restart brings back an older state, or none, and a candidate may lead there while the \
         leader of before still believes. Set appendonly to yes",
    ),
);
const EVICTS: SafetyNote = SafetyNote::new(
    "elections-evicted",
    true,
    Cow::Borrowed(
        "this server removes any key when its memory is full, elections among them, and a candidate may lead then while the leader of \
         before still believes. Set a maxmemory-policy that begins with volatile, or noeviction",
    ),
);
const NOT_TOLD: SafetyNote = SafetyNote::new(
    "server-settings-unknown",
    false,
    Cow::Borrowed(
        "unknown whether this server keeps an append-only file and which keys it removes when its memory is full: its user may not ask INFO",
    ),
);

/// Asks the server for what it says of itself.
pub(crate) async fn safety(client: &Client) -> Result<Safety> {
    const OP: &str = "redis: read what elections rest on";
    // One that its user may use. In a Cluster it is that of any primary.
    let key = format!("{}:any", client.config().election_prefix);
    let mut said = client.run(OP, &scripts::ABOUT, &[&key], &[]).await?;
    let is_known = said.text()? == "known";
    let mut safety = Safety::strict();
    safety.guarantee = Guarantee::BestEffort;
    safety.failover_extra = FAILOVER_EXTRA;
    safety.notes = vec![FAILOVER, CLOCK];
    safety.notes.extend(if is_known {
        notes(&said.text()?)
    } else {
        vec![NOT_TOLD]
    });
    Ok(safety)
}

/// What to know about a server whose `INFO` says this.
fn notes(info: &str) -> Vec<SafetyNote> {
    let value = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let has_no_log = value("aof_enabled") == Some("0");
    let evicts = value("maxmemory_policy").is_some_and(|policy| policy.starts_with("allkeys"));
    let notes = [(has_no_log, NO_LOG), (evicts, EVICTS)].into_iter();
    notes.filter_map(|(is, note)| is.then_some(note)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(info: &str) -> Vec<&'static str> {
        notes(info).iter().map(|note| note.code).collect()
    }

    #[test]
    fn a_server_is_warned_of_that_forgets_or_removes_what_it_confirmed() {
        let good = "# Persistence\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!(codes(good), [""; 0]);
        assert_eq!(codes(""), [""; 0]);
        let bad = "aof_enabled:0\r\nmaxmemory_policy:allkeys-lru\r\nrole:master\r\n";
        assert_eq!(
            codes(bad),
            ["confirmed-writes-lost-at-restart", "elections-evicted"]
        );
        assert_eq!(
            codes("aof_enabled:1\r\nmaxmemory_policy:volatile-ttl\r\n"),
            [""; 0]
        );
    }
}
