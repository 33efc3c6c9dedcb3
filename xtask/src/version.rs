//! Version numbers, as the tools and servers print them about themselves.

use std::fmt::{self, Display};

/// `major.minor.patch`; a patch that is not given is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) patch: u32,
}

impl Version {
    /// The first version number in what `program --version` prints: `etcd Version: 3.6.16`, `go version go1.26.8 linux`.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.')
            .find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut numbers = word.split('.').map(str::parse);
        let major = numbers.next()?.ok()?;
        let minor = numbers.next()?.ok()?;
        let patch = match numbers.next() {
            None => 0,
            Some(patch) => patch.ok()?,
        };
        Some(Self {
            major,
            minor,
            patch,
        })
    }

    /// Of the release line `major.minor`.
    pub(crate) fn is_of(self, (major, minor): (u32, u32)) -> bool {
        (self.major, self.minor) == (major, minor)
    }
}

impl Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_found_in_what_programs_print() {
        let cases = [
            ("etcd Version: 3.4.23\nGit SHA: Not provided", "3.4.23"),
            ("go version go1.26.8 linux/amd64", "1.26.8"),
            ("go version go1.27 linux/amd64", "1.27.0"),
            ("Consul v1.20.6\nBuild Date 2025-04-25T10:07:00Z", "1.20.6"),
            ("v=7.0.15 sha=00000000:0", "7.0.15"),
            (r#"{"etcdserver":"3.6.16","etcdcluster":"3.6.0"}"#, "3.6.16"),
        ];
        for (text, version) in cases {
            assert_eq!(Version::find(text).unwrap().to_string(), version, "{text}");
        }
    }

    #[test]
    fn is_not_made_up_from_something_else() {
        for text in ["", "etcd", "release 7", "...", "99999999999.1.1"] {
            assert_eq!(Version::find(text), None, "{text}");
        }
    }

    #[test]
    fn a_release_line_is_major_and_minor() {
        let version = Version::find("3.6.16").unwrap();
        assert!(version.is_of((3, 6)));
        assert!(!version.is_of((3, 4)));
    }
}
