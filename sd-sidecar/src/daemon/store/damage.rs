//! What is wrong with a state file, and what of it is lost.

use std::fmt;
use std::ops::Range;

use sd_core::{Printable, brief};

use super::reader::{places, text_after};

/// So many lost registrations are named, and of more how many there are.
pub(super) const MOST_NAMED: usize = 16;

/// What is wrong with a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// What is wrong with what stands before the registrations. They are read nevertheless.
    pub(crate) head: Option<String>,
    /// The registrations that cannot be read.
    pub(crate) lost: Vec<Damaged>,
    /// Why what may stand behind the last of them is lost as well.
    pub(crate) cut: Option<String>,
}

impl Damage {
    /// Whether anything is wrong.
    pub(crate) fn is_there(&self) -> bool {
        *self != Self::default()
    }

    /// Whether a registration is lost.
    pub(crate) fn loses_any(&self) -> bool {
        !self.lost.is_empty() || self.cut.is_some()
    }

    /// What is wrong first, in words.
    pub(super) fn first(&self) -> Option<&str> {
        let lost = self.lost.first().map(|lost| &lost.why);
        let first = self.head.as_ref().or(self.cut.as_ref()).or(lost);
        first.map(String::as_str)
    }

    /// What is lost, in words.
    pub(crate) fn what_is_lost(&self) -> String {
        let named = self.lost.iter().take(MOST_NAMED);
        let mut parts: Vec<_> = named.map(ToString::to_string).collect();
        let more = self.lost.len().saturating_sub(MOST_NAMED);
        if more > 0 {
            parts.push(format!("{more} more"));
        }
        if self.cut.is_some() {
            parts.push("all that stood behind the place where it is cut".to_owned());
        }
        if parts.is_empty() {
            parts.push("none: its head alone is damaged".to_owned());
        }
        parts.join(", ")
    }
}

/// A registration that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damaged {
    /// The byte at which it begins, counted from 0.
    pub(super) at: usize,
    /// As far as they can be read. They may hold anything.
    service: Option<String>,
    id: Option<String>,
    /// What is wrong with it.
    pub(crate) why: String,
}

impl Damaged {
    pub(super) fn new(file: &[u8], range: Range<usize>, why: impl fmt::Display) -> Self {
        let at = range.start;
        let bytes = file.get(range).unwrap_or_default();
        // Metadata may have one before that.
        let instance = places(bytes, b"\"instance\":").next();
        let instance = bytes
            .get(instance.unwrap_or_default()..)
            .unwrap_or_default();
        Self {
            at,
            service: text_after(bytes, b"\"service\":"),
            id: text_after(instance, b"\"id\":"),
            why: why.to_string(),
        }
    }
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &Option<String>| {
            let text = text.as_deref().unwrap_or("?");
            brief(Printable(&brief(text)))
        };
        let (id, service) = (shown(&self.id), shown(&self.service));
        write!(f, "{id} of {service} (byte {})", self.at)
    }
}
