//! One registration as it is on disk.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sd_core::{Instance, RecordId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::unread::Unread;
use crate::wire::Declaration;

/// One registration as it is on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// It stands first: what reads a damaged file finds the next registration by it.
    pub(crate) owner: String,
    pub(crate) declaration: Declaration,
    /// The record, with its id and its incarnation.
    pub(crate) instance: Instance,
    /// What the declaration said of `ready`, which may have been said otherwise since. Not written by older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) declared_ready: Option<bool>,
    /// Whether all of its checks passed.
    pub(crate) passing: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drain: Option<Drain>,
    /// The records that this one takes the place of. They go once it is at the registry. Not written by older agents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replaces: Vec<RecordId>,
    #[serde(with = "unix_ms")]
    pub(crate) registered_at: SystemTime,
    #[serde(with = "unix_ms")]
    pub(crate) updated_at: SystemTime,
    /// What is written in place of all this, if this version refuses a part of it and has left that out.
    #[serde(skip)]
    pub(crate) unread: Option<Unread>,
}

impl Stored {
    /// Appends it as it is to be in the file, not closed yet.
    pub(super) fn append_unclosed(&self, bytes: &mut Vec<u8>) -> serde_json::Result<()> {
        if let Some(unread) = &self.unread {
            bytes.extend_from_slice(unread.text());
            return Ok(());
        }
        serde_json::to_writer(&mut *bytes, self)?;
        bytes.pop();
        Ok(())
    }

    /// All records that the registry may have of it.
    pub(crate) fn records(&self) -> impl Iterator<Item = RecordId> {
        let current = self.instance.record_id();
        std::iter::once(current).chain(self.replaces.iter().cloned())
    }
}

/// What all of the file says.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) registrations: Vec<Arc<Stored>>,
    /// What is about to be withdrawn: the next agent does not bring it back, and withdraws what this one has not.
    pub(crate) left: Vec<Arc<Stored>>,
}

impl State {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.registrations.is_empty() && self.left.is_empty()
    }

    /// What says that all of it is to end.
    pub(crate) fn ending(mut self) -> Self {
        self.left.append(&mut self.registrations);
        self
    }
}

/// When what is drained leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drain {
    #[serde(with = "unix_ms")]
    pub(crate) deadline: SystemTime,
    #[serde(with = "humantime_serde")]
    pub(crate) grace: Duration,
    /// Not its owner has asked for it.
    #[serde(default)]
    pub(crate) by_administrator: bool,
}

impl Drain {
    /// One that ends after `grace`.
    pub(crate) fn after(grace: Duration) -> Self {
        let now = SystemTime::now();
        Self {
            deadline: now.checked_add(grace).unwrap_or(now),
            grace,
            by_administrator: false,
        }
    }

    /// How much of it is left: never more than all of it, wherever the clock of this machine has been set.
    pub(crate) fn left(&self, now: SystemTime) -> Duration {
        let left = self.deadline.duration_since(now).unwrap_or_default();
        left.min(self.grace)
    }
}

/// Milliseconds since 1970.
mod unix_ms {
    use super::{
        Deserialize, Deserializer, Duration, Serialize, Serializer, SystemTime, UNIX_EPOCH,
    };

    pub(super) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        ms.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        let ms = u64::deserialize(deserializer)?;
        let time = UNIX_EPOCH.checked_add(Duration::from_millis(ms));
        time.ok_or_else(|| serde::de::Error::custom("a time that is too far in the future"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_ends_at_its_deadline_and_takes_no_longer_than_its_grace_whatever_the_clock_says() {
        let grace = Duration::from_secs(20);
        let drain = Drain::after(grace);
        let begun = drain.deadline - grace;
        for (now, left) in [
            (begun, 20),
            (begun + Duration::from_secs(5), 15),
            (begun + Duration::from_secs(21), 0),
            (begun - Duration::from_secs(86_400), 20),
        ] {
            assert_eq!(drain.left(now), Duration::from_secs(left));
        }
    }
}
