//! The versions of etcd.

use std::fmt;
use std::str::FromStr;

/// Major, minor, patch. What follows, `-rc.1` for instance, is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

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
}
