//! Why a command failed: one line on stderr that says what, where and what to try.

use std::process::ExitCode;

use sd_backend::RegistryUrl;
use sd_core::{Error, ErrorKind, Printable};

#[derive(Debug)]
pub(crate) enum Failure {
    /// Told on stderr.
    Line(String),
    /// The reader of our output has gone, which is no error.
    ReaderGone,
}

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self::Line(line.into())
    }

    /// What could not be done at a registry, and why.
    pub(crate) fn at(url: &RegistryUrl, what: &str, error: &Error) -> Self {
        let hint = hint(error).map_or_else(String::new, |hint| format!("; try: {hint}"));
        Self::Line(format!("cannot {what} at {url}: {}{hint}", error.report()))
    }

    /// Tells it and gives the exit status.
    pub(crate) fn exit(self) -> ExitCode {
        self.exit_with(1)
    }

    pub(crate) fn exit_with(self, status: u8) -> ExitCode {
        self.tell();
        match self {
            Self::ReaderGone => ExitCode::SUCCESS,
            Self::Line(_) => ExitCode::from(status),
        }
    }

    /// Tells it, where that does not decide on the exit status.
    pub(crate) fn tell(&self) {
        if let Self::Line(line) = self {
            eprintln!("sdctl: {}", Printable(line));
        }
    }
}

/// What a person can do about it. Errors of the caller say so themselves.
fn hint(error: &Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::Unavailable => Some(
            "check that the registry is running and that this is its address; -v shows each attempt",
        ),
        ErrorKind::Timeout => Some("check the address and any firewall; --timeout waits longer"),
        ErrorKind::Denied => Some("check the user, password, certificates and permissions"),
        ErrorKind::Conflict if error.op().ends_with("register") => {
            Some("use another --id, or stop the other instance first")
        }
        ErrorKind::RateLimited { .. } => Some("again later"),
        ErrorKind::InvalidData => {
            Some("check whether another program writes there; -v shows the answer")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_where_why_and_what_to_try_without_the_password() {
        let url = "etcd://root:sesame@10.0.0.1:2379/services".parse().unwrap();
        let error = Error::new(ErrorKind::Unavailable, "etcd: list").because("connection refused");
        let Failure::Line(line) = Failure::at(&url, "list \"greeter\"", &error) else {
            panic!("no line");
        };
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
