//! The versions of etcd, and the flaws of some of them that matter to elections.

use std::fmt;
use std::str::FromStr;

/// Major, minor, patch. What follows, `-rc.1` for instance, is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

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
        what: "a raft leader that hung may, when it goes on, end leases that were renewed meanwhile",
        mended_in: &[Version(3, 4, 31), Version(3, 5, 13)],
    },
    Flaw {
        code: "lease-renewed-after-revoke",
        what: "the renewal of a lease that is being ended may be answered as if it had succeeded",
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

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers = text.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = numbers.splitn(3, '.').map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).ok_or(());
        Ok(Self(next()?, next()?, next()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_number() {
        for (text, version) in [
            ("3.4.23", Version(3, 4, 23)),
            ("3.6.0-rc.1", Version(3, 6, 0)),
            ("3.5.13+git", Version(3, 5, 13)),
        ] {
            assert_eq!(text.parse(), Ok(version));
        }
        for text in ["", "3", "3.4", "3.4.", "3.4.x", "three", "3.4.1.2"] {
            assert_eq!(text.parse::<Version>(), Err(()), "{text}");
        }
        assert!(Version(3, 4, 9) < Version(3, 4, 31) && Version(3, 5, 0) > Version(3, 4, 31));
    }

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
