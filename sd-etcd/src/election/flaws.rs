//! The flaws of some versions of etcd that matter to elections.

use crate::client::version::Version;

/// Something that a server does wrong, and where that was mended.
#[derive(Debug)]
pub(crate) struct Flaw {
    /// Stable.
    pub(crate) code: &'static str,
    pub(crate) what: &'static str,
    /// The first good version of each release that was mended, oldest first. Older releases never were, newer ones never had it.
    pub(crate) mended_in: &'static [Version],
}

/// All that is known.
pub(crate) const FLAWS: [Flaw; 2] = [
    Flaw {
        code: "lease-revoked-by-stuck-leader",
        what: "a raft leader that hung may, when it resumes, revoke leases that were renewed in the meantime",
        mended_in: &[Version(3, 4, 31), Version(3, 5, 13)],
    },
    Flaw {
        code: "lease-renewed-after-revoke",
        what: "a keep-alive for a lease that is being revoked may be answered as if it had succeeded",
        mended_in: &[Version(3, 4, 38), Version(3, 5, 23), Version(3, 6, 5)],
    },
];

impl Flaw {
    pub(crate) fn is_in(&self, version: Version) -> bool {
        let same_release = |good: &&Version| (good.0, good.1) == (version.0, version.1);
        match self.mended_in.iter().find(same_release) {
            Some(good) => version < *good,
            None => self.mended_in.first().is_some_and(|good| version < *good),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_is_mended_from_its_own_version_on() {
        let [stuck, renewed] = FLAWS;
        for (version, is_stuck, is_renewed) in [
            ("3.3.27", true, true),
            ("3.4.23", true, true),
            ("3.4.30", true, true),
            ("3.4.31", false, true),
            ("3.4.37", false, true),
            ("3.4.38", false, false),
            ("3.5.0", true, true),
            ("3.5.12", true, true),
            ("3.5.13", false, true),
            ("3.5.22", false, true),
            ("3.5.23", false, false),
            ("3.6.0", false, true),
            ("3.6.4", false, true),
            ("3.6.5", false, false),
            ("3.6.16", false, false),
            ("3.7.0", false, false),
            ("4.0.0", false, false),
        ] {
            let parsed = version.parse().unwrap();
            assert_eq!(stuck.is_in(parsed), is_stuck, "{version}");
            assert_eq!(renewed.is_in(parsed), is_renewed, "{version}");
        }
    }
}
