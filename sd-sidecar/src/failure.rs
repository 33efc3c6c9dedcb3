//! Why a command failed: one line on stderr that says what, where and what to try.

use std::ffi::OsString;
use std::process::ExitCode;

use sd_backend::RegistryUrl;
use sd_core::Error;

use crate::exit::Exit;
use crate::hint::hint;
use crate::logging::tell;

#[derive(Debug)]
pub(crate) enum Failure {
    /// Told on stderr.
    Line { line: String, exit: Exit },
    /// The reader of our output has gone, which is no error.
    ReaderGone,
}

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        let line = line.into();
        let exit = Exit::Failed;
        Self::Line { line, exit }
    }

    /// What was written on the command line can never work.
    pub(crate) fn misused(error: &Error) -> Self {
        Self::new(format!("{}; try: sdctl --help", error.report())).with(Exit::Misused)
    }

    /// What could not be done at a registry, and why.
    pub(crate) fn at(url: &RegistryUrl, what: &str, error: &Error) -> Self {
        let hint = hint(url, error).map_or_else(String::new, |hint| format!("; try: {hint}"));
        let line = format!("cannot {what} at {url}: {}{hint}", error.report());
        Self::new(line).with(Exit::of(error))
    }

    /// The same with another exit status.
    #[must_use]
    pub(crate) fn with(self, exit: Exit) -> Self {
        match self {
            Self::Line { line, .. } => Self::Line { line, exit },
            Self::ReaderGone => Self::ReaderGone,
        }
    }

    /// The same where a command ran or was to run: a script must not take a failure of ours for the command's.
    #[must_use]
    pub(crate) fn beside(self, command: &[OsString]) -> Self {
        match self {
            Self::Line { exit, .. } if exit != Exit::Misused && !command.is_empty() => {
                self.with(Exit::NotTheCommands)
            }
            _ => self,
        }
    }

    /// A command was given where none can be run.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn no_commands_here() -> Self {
        Self::new(
            "sdctl runs a command only on Linux, where its watchdog can stop the command in time; try: without a command",
        )
        .with(Exit::Misused)
    }

    /// Tells it and gives the exit status.
    pub(crate) fn exit(self) -> ExitCode {
        self.tell();
        match self {
            Self::ReaderGone => Exit::Done.into(),
            Self::Line { exit, .. } => exit.into(),
        }
    }

    /// As [`exit`](Self::exit), with a status that is not of this program.
    #[cfg(target_os = "linux")]
    pub(crate) fn exit_with(self, status: u8) -> ExitCode {
        self.tell();
        ExitCode::from(status)
    }

    /// Tells it, where that does not decide on the exit status.
    pub(crate) fn tell(&self) {
        if let Self::Line { line, .. } = self {
            tell(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_script_can_tell_a_failure_of_sdctl_from_one_of_its_command() {
        let command = [OsString::from("true")];
        for (command, before, after) in [
            (&[][..], Exit::Unreachable, Exit::Unreachable),
            (&command, Exit::Failed, Exit::NotTheCommands),
            (&command, Exit::Unreachable, Exit::NotTheCommands),
            (&command, Exit::Misused, Exit::Misused),
        ] {
            match Failure::new("failed").with(before).beside(command) {
                Failure::Line { exit, .. } => assert_eq!(exit, after, "{before:?}"),
                Failure::ReaderGone => panic!("no line"),
            }
        }
    }

    #[test]
    fn a_failure_says_what_where_why_and_what_to_try_without_the_password() {
        let url = "etcd://root:sesame@10.0.0.1:2379/services".parse().unwrap();
        let error = Error::new(ErrorKind::Unavailable, "etcd: list").because("connection refused");
        let Failure::Line { line, exit } = Failure::at(&url, "list \"greeter\"", &error) else {
            panic!("no line");
        };
        assert_eq!(exit, Exit::Unreachable);
        for part in [
            "list \"greeter\"",
            "10.0.0.1:2379/services",
            "connection refused",
            "try: ",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains("sesame") && !line.contains('\n'), "{line}");
    }
}
