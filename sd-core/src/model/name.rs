//! Checked names: what other systems call their services and instances, without what could break a line or move a cursor.
//!
//! A backend writes a name as its server has it, or encodes it where the server has no place for some of its characters.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use crate::brief::quoted;
use crate::error::{Error, Result};
use crate::model::checked::read_checked;
use crate::printable::breaks_lines;

/// The name of a service: 1 to [`MAX_BYTES`](Self::MAX_BYTES) bytes of text on one line, without control characters, and
/// neither `.` nor `..`. Two names are equal if their bytes are. Cheap to clone.
///
/// ASCII letters, digits, `-`, `_` and `.`, with a letter or a digit at both ends, make a name that every registry stores as it
/// is. Others, such as `users/v1/profile` or `größe`, are for names that other systems have given: `Display` writes them as they
/// are, `Debug` quotes and escapes them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct ServiceName(Arc<str>);

/// The id of an instance within its service: 1 to [`MAX_BYTES`](Self::MAX_BYTES) bytes of text on one line, without control
/// characters. Two ids are equal if their bytes are. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct InstanceId(Arc<str>);

/// The name of an election: one or more segments separated by slashes, as in `reports/nightly`. A segment has ASCII letters,
/// digits, `-`, `_` and `.`, and begins and ends with a letter or a digit. The name has at most [`MAX_BYTES`](Self::MAX_BYTES)
/// bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
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
        check_text(OP, name)?;
        if matches!(name, "." | "..") {
            return Err(Error::invalid_input(
                OP,
                format!("{name:?} stands for a folder in paths and URLs: choose another name"),
            ));
        }
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
        check_text(OP, id)?;
        Ok(Self(id.into()))
    }
}

/// No name may break a line or move a cursor.
fn check_text(op: &'static str, text: &str) -> Result<()> {
    match text.chars().find(|c| breaks_lines(*c)) {
        Some(odd) => Err(Error::invalid_input(
            op,
            format!(
                "{} contains {odd:?}: control characters and line ends are not allowed",
                quoted(text)
            ),
        )),
        None => Ok(()),
    }
}

/// One segment of an election's name.
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
            format!(
                "{} is {len} bytes long: at most {max} are allowed",
                quoted(text)
            ),
        )),
        _ => Ok(()),
    }
}

macro_rules! checked_name {
    ($name:ident) => {
        read_checked!($name);

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
    fn accepts_the_names_that_other_systems_give() {
        let long = "x".repeat(ServiceName::MAX_BYTES);
        for name in [
            "greeter",
            "pkg.v1.Greeter",
            "0-1_2",
            "users/v1/profile",
            "/a//b/",
            "größe",
            "_udp.web",
            "two words",
            " ",
            "a%2Fb",
            "...",
            &long,
        ] {
            assert_eq!(ServiceName::new(name).unwrap().as_str(), name);
            assert_eq!(InstanceId::new(name).unwrap().as_str(), name);
        }
        for id in ["http://10.0.0.1:8080", "[::1]:80", "."] {
            assert_eq!(InstanceId::new(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn refuses_empty_oversized_and_line_breaking_names_with_the_rule_they_break() {
        let long = "x".repeat(ServiceName::MAX_BYTES + 1);
        for (name, rule) in [
            ("", "empty"),
            (long.as_str(), "at most 128"),
            ("a\nb", "control"),
            ("\u{1b}[2J", "control"),
            ("a\u{85}b", "control"),
            ("a\u{2028}b", "line ends"),
            (".", "folder"),
            ("..", "folder"),
        ] {
            let error = ServiceName::new(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let report = error.report().to_string();
            assert!(report.contains(rule), "{report}");
            assert!(!report.contains(breaks_lines), "{report:?}");
        }
        let long = "x".repeat(InstanceId::MAX_BYTES + 1);
        for (id, rule) in [
            ("", "empty"),
            (long.as_str(), "at most 255"),
            ("a\0", "control"),
            ("a\r", "control"),
        ] {
            let error = InstanceId::new(id).unwrap_err();
            let report = error.report().to_string();
            assert!(report.contains(rule), "{report}");
        }
    }

    #[test]
    fn a_name_is_made_of_text_of_every_kind_and_of_a_name() {
        fn made(name: impl TryInto<ServiceName, Error: Into<Error>>) -> Result<ServiceName> {
            name.try_into().map_err(Into::into)
        }
        let name = ServiceName::new("a/b").unwrap();
        let text = "a/b".to_owned();
        let all = [
            made("a/b"),
            made(&text),
            made(text.clone()),
            made(&name),
            made(name.clone()),
        ];
        for one in all {
            assert_eq!(one.unwrap(), name);
        }
        assert_eq!(made("").unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
