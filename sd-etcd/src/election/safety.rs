//! What a cluster promises of its elections, given the versions that its members run.

use std::borrow::Cow;
use std::time::Duration;

use sd_core::Result;
use sd_core::port::{Safety, SafetyNote};

use crate::client::version::Version;
use crate::client::{Client, MemberVersion};
use crate::election::flaws::FLAWS;

/// A member that leads trusts that for this long without asking the others: three heartbeats, by default of 100 ms.
const EARLY_EXPIRY: Duration = Duration::from_millis(300);
/// Leases are looked through for ended ones every 500 ms; ending one and telling who waits takes the rest. Measured: 0.53 s.
const FAILOVER_EXTRA: Duration = Duration::from_millis(750);

/// What a member does that led the others, was frozen as a whole and goes on: it takes itself for active, does not ask whether it still
/// leads, and ends leases that were renewed at its successor (`EtcdServer.ensureLeadership`). Seen with 3.6.16, mended in no release.
const HUNG_MEMBER: SafetyNote = SafetyNote::new(
    "lease-ended-by-hung-member",
    true,
    Cow::Borrowed(
        "a member that led this cluster and hung may, when it resumes, revoke leases that were renewed at another member in the \
         meantime. Two candidates may then believe for an instant that they lead. A takeover delay prevents that; fence the leader's \
         writes in any case",
    ),
);

/// Asks the members for their versions.
pub(crate) async fn safety(client: &Client) -> Result<Safety> {
    let told = client.versions("etcd: read version").await?;
    let members = client.members("etcd: count members").await;
    let mut safety = Safety::strict();
    safety.early_expiry = EARLY_EXPIRY;
    safety.failover_extra = FAILOVER_EXTRA;
    safety.notes = notes(&told);
    safety.notes.extend((members > 1).then_some(HUNG_MEMBER));
    Ok(safety)
}

/// What to know about members that told this.
fn notes(told: &[MemberVersion]) -> Vec<SafetyNote> {
    let version = |told: &MemberVersion| told.version.as_ref().ok()?.parse().ok();
    let versions: Vec<Version> = told.iter().filter_map(version).collect();
    let mut notes: Vec<SafetyNote> = FLAWS
        .iter()
        .filter_map(|flaw| {
            let affected = versions.iter().filter(|version| flaw.is_in(**version)).min()?;
            let good: Vec<String> = flaw.mended_in.iter().map(ToString::to_string).collect();
            Some(SafetyNote::new(flaw.code, true, Cow::Owned(format!(
                    "etcd {affected}: {}. Two candidates may then believe that they lead. Fence the leader's writes, and upgrade to {} or later",
                    flaw.what,
                    good.join(", ")
                ))))
        })
        .collect();
    let unknown: Vec<String> = told
        .iter()
        .filter(|told| version(told).is_none())
        .map(|told| match &told.version {
            Ok(text) => format!("{} says {text:?}", told.endpoint),
            Err(error) => format!("{}: {}", told.endpoint, error.report()),
        })
        .collect();
    if !unknown.is_empty() {
        notes.push(SafetyNote::new(
            "version-unknown",
            versions.is_empty(),
            Cow::Owned(format!(
                "unknown whether these members have flaws that affect elections: {}",
                unknown.join("; ")
            )),
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use sd_core::{Error, ErrorKind};

    use super::*;

    fn told(version: &str) -> MemberVersion {
        MemberVersion {
            endpoint: "http://h:2379".to_owned(),
            version: Ok(version.to_owned()),
        }
    }

    fn silent() -> MemberVersion {
        MemberVersion {
            endpoint: "http://i:2379".to_owned(),
            version: Err(Error::new(ErrorKind::Timeout, "etcd: read version")),
        }
    }

    fn codes(told: &[MemberVersion]) -> Vec<(&'static str, bool)> {
        let notes = notes(told);
        notes.iter().map(|note| (note.code, note.warning)).collect()
    }

    #[test]
    fn the_flaws_of_any_member_are_warned_of_once_each() {
        assert_eq!(codes(&[told("3.6.16"), told("3.6.5")]), []);
        let both = [
            ("lease-revoked-by-stuck-leader", true),
            ("lease-renewed-after-revoke", true),
        ];
        assert_eq!(
            codes(&[told("3.6.16"), told("3.4.23"), told("3.4.24")]),
            both
        );
        let text = &notes(&[told("3.5.22")])[0].text;
        assert!(
            text.contains("etcd 3.5.22") && text.contains("3.4.38, 3.5.23, 3.6.5"),
            "{text}"
        );
    }

    #[test]
    fn what_is_not_known_is_a_warning_unless_another_member_told() {
        assert_eq!(codes(&[silent()]), [("version-unknown", true)]);
        assert_eq!(codes(&[told("main")]), [("version-unknown", true)]);
        assert_eq!(
            codes(&[told("3.6.16"), silent()]),
            [("version-unknown", false)]
        );
        let text = &notes(&[silent()])[0].text;
        assert!(
            text.contains("http://i:2379") && text.contains("timed out"),
            "{text}"
        );
    }
}
