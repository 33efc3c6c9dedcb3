//! The exit statuses of `sdctl`: one table for the code, for `--help` and for the README.

use std::process::ExitCode;

use sd_backend::is_other_server;
use sd_core::{Error, ErrorKind};

/// How a command ended, for the script that called it. `elect` and `register` with a command have that
/// command's status instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Misused = 2,
    Unreachable = 3,
    NoLeader = 4,
    NotFound = 5,
    Denied = 6,
    Taken = 7,
    /// `sdctl` failed itself, in the place of its command's status.
    NotTheCommands = 125,
}

/// Each status, and what it means.
pub(crate) const TABLE: [(&str, &str); 11] = [
    ("0", "done"),
    ("1", "failed in another way than these"),
    (
        "2",
        "cannot work as it is written: the command line, the registry's URL, or what this registry does not have",
    ),
    (
        "3",
        "the registry or the agent cannot be used: it cannot be reached, did not answer in time, is overloaded or full, or something else answers there",
    ),
    ("4", "the election has no leader"),
    (
        "5",
        "there is no such service or instance, or wait-for found too few in time",
    ),
    (
        "6",
        "the registry denied it: user, password, token, certificate or rights",
    ),
    (
        "7",
        "another process holds it, such as the id of an instance",
    ),
    (
        "125",
        "elect or register with a command: sdctl itself failed, in another way than 2",
    ),
    (
        "126, 127",
        "elect or register with a command: the command cannot be run, or does not exist",
    ),
    (
        "128 + N",
        "signal N ended it; never one that asks register or elect to stop",
    ),
];

impl Exit {
    /// How a command ends that failed for this reason.
    pub(crate) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::Unsupported => Self::Misused,
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::RateLimited { .. } => {
                Self::Unreachable
            }
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Conflict => Self::Taken,
            _ if is_other_server(error) => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_readme_is_this_one() {
        let readme = include_str!("../README.md");
        for (status, meaning) in TABLE {
            let row = format!("| {status} | {meaning} |");
            assert!(readme.contains(&row), "{row}");
        }
    }
}
