//! Printing to stdout, line by line: plain or coloured for people, JSON for programs. Nothing that a registry holds reaches the
//! terminal unescaped.

pub(crate) mod changes;
pub(crate) mod election_story;
pub(crate) mod narrator;
pub(crate) mod registration_story;
pub(crate) mod service_view;
pub(crate) mod table;
pub(crate) mod time;

use std::fmt::{Display, Write as _};
use std::io::{ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;

use anstyle::{AnsiColor, Style as Ansi};
use sd_core::Printable;
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

use crate::failure::Failure;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    colour: bool,
}

/// What a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Dim,
    Header,
    Good,
    Bad,
    Doubtful,
}

impl Style {
    fn ansi(self) -> Ansi {
        match self {
            Self::Plain => Ansi::new(),
            Self::Dim => Ansi::new().dimmed(),
            Self::Header => Ansi::new().bold(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Doubtful => AnsiColor::Yellow.on_default(),
        }
    }
}

impl Output {
    /// Coloured if a person looks at it and has not set `NO_COLOR`.
    pub(crate) fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            json,
            colour: wanted && !json && std::io::stdout().is_terminal(),
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// For people: what is not printable is escaped.
    pub(crate) fn line(self, line: &str) -> Result<(), Failure> {
        self.styled(Style::Plain, line)
    }

    /// As [`line`](Self::line), in a colour.
    pub(crate) fn styled(self, style: Style, line: &str) -> Result<(), Failure> {
        self.write(style, Printable(line))
    }

    fn write(self, style: Style, line: impl Display) -> Result<(), Failure> {
        let ansi = if self.colour {
            style.ansi()
        } else {
            Ansi::new()
        };
        let mut out = std::io::stdout().lock();
        // Flushed, because a reader must see a change when it happens.
        told(writeln!(out, "{ansi}{line}{ansi:#}").and_then(|()| out.flush()))
    }

    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
        self.write(Style::Plain, ascii_where_invisible(&text))
    }
}

/// Prints a text of ours, as it is.
pub(crate) fn document(text: &[u8]) -> Result<(), Failure> {
    flushed(|| std::io::stdout().write_all(text))
}

/// Writes to stdout, and to the end: what does not fill a line would otherwise be written at the exit, where an error is lost.
pub(crate) fn flushed(write: impl FnOnce() -> std::io::Result<()>) -> Result<(), Failure> {
    told(write().and_then(|()| std::io::stdout().flush()))
}

fn told(written: std::io::Result<()>) -> Result<(), Failure> {
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::new(format!("cannot write to stdout: {error}")),
    })
}

/// The same JSON, with `\u` escapes for what is not printable. Such characters are only ever within its strings.
fn ascii_where_invisible(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if Printable::is_printable(c) {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

/// Returns when the reader of a pipe has gone, as in `sdctl watch greeter | head -1`: without it, we would learn of that only
/// with the next change. Pending for ever where stdout cannot be waited for, as a file.
pub(crate) async fn reader_gone() {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    // Only waited on, so that it need not be in non-blocking mode, which would be stdout's own mode as well.
    if let Ok(stdout) = stdout.and_then(Sender::from_owned_fd_unchecked) {
        while let Ok(ready) = stdout.ready(Interest::ERROR).await {
            if ready.is_error() {
                return;
            }
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same_and_moves_no_cursor() {
        for text in [
            "größe",
            "\u{9b}2J",
            "a\u{202e}b",
            "\u{e0041}",
            "\u{1b}\n\"\\",
        ] {
            let escaped = ascii_where_invisible(&serde_json::to_string(text).unwrap());
            assert!(escaped.chars().all(Printable::is_printable), "{escaped:?}");
            assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }
}
