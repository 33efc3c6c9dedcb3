//! What an operator says of a record in place of its owner.

use std::fmt;

use serde::Serialize;

/// What an operator says of one record, in place of its owner. Readers go by it until it is cleared or the record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Override {
    /// It wants calls, whatever its owner says.
    Ready,
    /// It wants no calls, whatever its owner says.
    Unready,
    /// As [`Unready`](Self::Unready), and its owner is asked to finish and to leave.
    Draining,
}

impl Override {
    /// All of them.
    const ALL: [Self; 3] = [Self::Ready, Self::Unready, Self::Draining];

    /// Whether the record wants calls then.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Ready)
    }

    /// A stable name, for what is stored, logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unready => "unready",
            Self::Draining => "draining",
        }
    }

    /// The override with this [name](Self::as_str). `None` for others, such as those of later versions.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_override_is_found_by_its_name() {
        for one in Override::ALL {
            assert_eq!(Override::from_name(one.as_str()), Some(one));
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
        assert_eq!(Override::from_name("later"), None);
    }
}
