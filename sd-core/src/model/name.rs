//! Checked names, which are safe in a registry key, a URL and a log line.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The name of a service: 1 to [`MAX_BYTES`](Self::MAX_BYTES) ASCII letters, digits, `-`, `_` and `.`. It begins and ends with
/// a letter or a digit. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(Arc<str>);

/// The id of an instance within its service: 1 to [`MAX_BYTES`](Self::MAX_BYTES) bytes of printable text without white space.
/// It does not begin or end with `/`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(Arc<str>);

/// The name of an election: one or more segments separated by slashes, as in `reports/nightly`. A segment has ASCII letters,
/// digits, `-`, `_` and `.`, and begins and ends with a letter or a digit. The name has at most [`MAX_BYTES`](Self::MAX_BYTES)
/// bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ElectionName(Arc<str>);

impl ServiceName {
    /// The longest allowed name, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Checks a service name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) names the rule that `name` breaks.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        const OP: &str = "service name";
        let name = name.as_ref();
        check_length(OP, name, ServiceName::MAX_BYTES)?;
        check_word(OP, name)?;
        Ok(Self(name.into()))
    }
}

impl ElectionName {
    /// The longest allowed name, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks an election name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) names the rule that `name` breaks.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        const OP: &str = "election name";
        let name = name.as_ref();
        check_length(OP, name, ElectionName::MAX_BYTES)?;
        for segment in name.split('/') {
            if segment.is_empty() {
                return Err(Error::invalid_input(
                    OP,
                    format!(
                        "{name:?} has an empty segment: write names between single slashes, for example reports/nightly"
                    ),
                ));
            }
            check_word(OP, segment)?;
        }
        Ok(Self(name.into()))
    }
}

impl InstanceId {
    /// The longest allowed id, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks an instance id.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) names the rule that `id` breaks.
    pub fn new(id: impl AsRef<str>) -> Result<Self> {
        const OP: &str = "instance id";
        let id = id.as_ref();
        check_length(OP, id, InstanceId::MAX_BYTES)?;
        if let Some(odd) = id.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(Error::invalid_input(
                OP,
                format!(
                    "{id:?} contains {odd:?}: white space and control characters are not allowed"
                ),
            ));
        }
        if id.starts_with('/') || id.ends_with('/') {
            return Err(Error::invalid_input(
                OP,
                format!("{id:?} must not begin or end with '/'"),
            ));
        }
        Ok(Self(id.into()))
    }
}

/// A service's name, or one segment of an election's.
fn check_word(op: &'static str, word: &str) -> Result<()> {
    if let Some(odd) = word
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
    {
        return Err(Error::invalid_input(
            op,
            format!("{word:?} contains {odd:?}: use ASCII letters, digits, '-', '_' and '.'"),
        ));
    }
    if !(word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word.ends_with(|c: char| c.is_ascii_alphanumeric()))
    {
        return Err(Error::invalid_input(
            op,
            format!("{word:?} must begin and end with a letter or a digit"),
        ));
    }
    Ok(())
}

fn check_length(op: &'static str, text: &str, max: usize) -> Result<()> {
    match text.len() {
        0 => Err(Error::invalid_input(op, "must not be empty")),
        len if len > max => Err(Error::invalid_input(
            op,
            format!("is {len} bytes long: at most {max} are allowed"),
        )),
        _ => Ok(()),
    }
}

macro_rules! checked_name {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;

            fn try_from(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<&String> for $name {
            type Error = Error;

            fn try_from(text: &String) -> Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                Self::new(text)
            }
        }

        impl From<&$name> for $name {
            fn from(name: &$name) -> Self {
                name.clone()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}

checked_name!(ServiceName);
checked_name!(InstanceId);
checked_name!(ElectionName);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn an_election_name_is_words_between_slashes() {
        for good in [
            "nightly",
            "reports/nightly",
            "a/b-1/c_2.d",
            &"a".repeat(255),
        ] {
            assert_eq!(ElectionName::new(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(256);
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "a b",
            "a/.b",
            "a/é",
            long.as_str(),
        ] {
            let error = ElectionName::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }

    #[test]
    fn accepts_the_names_of_grpc_services_and_go_kit_keys() {
        for name in ["greeter", "pkg.v1.Greeter", "a", "0-1_2"] {
            assert_eq!(ServiceName::new(name).unwrap().as_str(), name);
        }
        for id in ["10.0.0.1:8080", "http://10.0.0.1:8080", "[::1]:80", "größe"] {
            assert_eq!(InstanceId::new(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn refuses_empty_oversized_and_odd_names_with_the_rule_they_break() {
        let long = "x".repeat(ServiceName::MAX_BYTES + 1);
        for (name, rule) in [
            ("", "empty"),
            (long.as_str(), "at most 128"),
            ("a/b", "'/'"),
            (".a", "begin and end"),
            ("ü", "ASCII"),
        ] {
            let error = ServiceName::new(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(
                error.report().to_string().contains(rule),
                "{}",
                error.report()
            );
        }
        for (id, rule) in [
            ("", "empty"),
            ("a b", "white space"),
            ("a\0", "control"),
            ("/a", "'/'"),
        ] {
            assert!(
                InstanceId::new(id)
                    .unwrap_err()
                    .report()
                    .to_string()
                    .contains(rule)
            );
        }
    }
}
