//! Reading JSON value by value, with the place of each in the file.

use std::fmt;

use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Result, Value};

/// What each registration begins with: the first field of [`Stored`](super::stored::Stored), as serde writes it.
pub(super) const BEGIN: &[u8] = b"{\"owner\":";

/// How far a file has been read.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_ascii_start().len();
    }

    /// Whether this byte comes next, which is passed then.
    pub(super) fn takes(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_next = self.rest().first() == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<()> {
        if self.takes(byte) {
            return Ok(());
        }
        let expected = char::from(byte);
        Err(self.wrong_at(self.at, format_args!("expected {expected}")))
    }

    pub(super) fn end(&mut self) -> Result<()> {
        self.skip_space();
        if self.rest().is_empty() {
            return Ok(());
        }
        Err(self.wrong_at(self.at, "something follows behind its end"))
    }

    pub(super) fn wrong_at(&self, at: usize, why: impl fmt::Display) -> serde_json::Error {
        let cut = if at < self.bytes.len() {
            ""
        } else {
            ", the end"
        };
        serde_json::Error::custom(format_args!("{why} at byte {at}{cut}"))
    }

    /// The value that comes next. One that cannot be read is not passed.
    pub(super) fn value<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut values = serde_json::Deserializer::from_slice(self.rest()).into_iter();
        let value = values.next();
        let read = values.byte_offset();
        match value {
            Some(Ok(value)) => {
                self.at += read;
                Ok(value)
            }
            Some(Err(error)) => Err(self.placed(&error)),
            None => Err(self.wrong_at(self.at, "expected a value")),
        }
    }

    /// With its place in the file instead of that in the value.
    fn placed(&self, error: &serde_json::Error) -> serde_json::Error {
        let text = error.to_string();
        let why = text.split(" at line ").next().unwrap_or_default();
        let lines = self.rest().split_inclusive(|byte| *byte == b'\n');
        let before: usize = lines
            .take(error.line().saturating_sub(1))
            .map(<[u8]>::len)
            .sum();
        self.wrong_at(self.at + before + error.column(), why)
    }

    /// Behind a `]`: whether it has ended the list, and no registration follows.
    pub(super) fn is_behind_list(&mut self) -> bool {
        self.skip_space();
        let ends = matches!(self.rest().first(), None | Some(b',' | b'}'));
        ends || self.next_begin(self.at).is_none()
    }

    /// Where the next registration begins, at `from` or behind.
    pub(super) fn next_begin(&self, from: usize) -> Option<usize> {
        let rest = self.bytes.get(from..)?;
        let mut begins = places(rest, BEGIN).map(|at| from + at);
        begins.find(|at| self.is_begin(*at))
    }

    /// Whether what looks like the begin of a registration is one, and no object of another registration.
    fn is_begin(&self, at: usize) -> bool {
        let before = self.bytes.get(..at).unwrap_or_default().trim_ascii_end();
        match (Self { at, ..*self }).value::<Value>() {
            Ok(value) => value["declaration"].is_object() || value["instance"].is_object(),
            // Damaged as well.
            Err(_) => matches!(before.last(), Some(b',' | b'[')),
        }
    }
}

/// Where `wanted` stands.
pub(super) fn places(bytes: &[u8], wanted: &[u8]) -> impl Iterator<Item = usize> {
    let windows = bytes.windows(wanted.len()).enumerate();
    windows.filter_map(move |(at, found)| (found == wanted).then_some(at))
}

/// The text of the first field with this name that has one.
pub(super) fn text_after(bytes: &[u8], name: &[u8]) -> Option<String> {
    places(bytes, name).find_map(|at| {
        let at = at + name.len();
        Reader { bytes, at }.value().ok()
    })
}
