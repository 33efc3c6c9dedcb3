//! What is told about a command line that cannot be used.

use std::process::ExitCode;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::flushed;

/// What to tell instead of running a command.
#[derive(Debug)]
pub(crate) enum Told {
    /// The help or the version that was asked for.
    Help(clap::Error),
    /// The command line is not valid.
    Misused(String),
}

impl Told {
    /// What clap says of a command line. `command` is the command in it, if there is one.
    pub(super) fn new(error: clap::Error, command: Option<&str>) -> Self {
        if error.use_stderr() {
            Self::Misused(one_line(&error.to_string(), command))
        } else {
            Self::Help(error)
        }
    }

    pub(crate) fn tell(self) -> ExitCode {
        match self {
            Self::Help(help) => match flushed(|| help.print()) {
                Ok(()) => Exit::Done.into(),
                Err(failure) => failure.exit(),
            },
            Self::Misused(line) => Failure::new(line).with(Exit::Misused).exit(),
        }
    }
}

/// clap explains itself on several lines, of which those before the usage say what is wrong.
fn one_line(explanation: &str, command: Option<&str>) -> String {
    // Without a command clap answers with the whole help.
    if explanation.contains("Commands:") {
        return "no command given; try: sdctl --help".to_owned();
    }
    let lines = explanation
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty() && !is_wrong_tip(line));
    let text = lines
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" tip: ", "; tip: ");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let command = command.map_or_else(String::new, |command| format!("{command} "));
    format!("{text}; try: sdctl {command}--help")
}

/// An option that a command does not have is hardly meant as a value.
fn is_wrong_tip(line: &str) -> bool {
    line.starts_with("tip: to pass '-") && line.contains(" as a value")
}
