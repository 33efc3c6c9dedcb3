//! Printing to stdout, line by line: plain or coloured for people, JSON for programs.

pub(crate) mod narrator;
pub(crate) mod printable;
pub(crate) mod service_view;
pub(crate) mod table;
pub(crate) mod time;

use std::io::{ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;

use anstyle::{AnsiColor, Style as Ansi};
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

    pub(crate) fn line(self, line: &str) -> Result<(), Failure> {
        self.styled(Style::Plain, line)
    }

    pub(crate) fn styled(self, style: Style, line: &str) -> Result<(), Failure> {
        let ansi = if self.colour {
            style.ansi()
        } else {
            Ansi::new()
        };
        let mut out = std::io::stdout().lock();
        // Flushed, because a reader must see a change when it happens.
        let written = writeln!(out, "{ansi}{line}{ansi:#}").and_then(|()| out.flush());
        written.map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::new(format!("cannot write to stdout: {error}")),
        })
    }

    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
        self.line(&text)
    }
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
