//! Which of `sdctl`'s processes this one is.

use std::ffi::OsString;
use std::process::ExitCode;

use super::program::{LAUNCHER, WATCHDOG};
use super::{launcher, process};

/// What this process is, if not the `sdctl` that a user called.
#[derive(Debug)]
pub(crate) enum Role {
    Watchdog(Vec<OsString>),
    Launcher(Vec<OsString>),
}

impl Role {
    pub(crate) fn from_arguments(arguments: &[OsString]) -> Option<Self> {
        let rest = || arguments.get(2..).unwrap_or_default().to_vec();
        match arguments.get(1)?.to_str()? {
            WATCHDOG => Some(Self::Watchdog(rest())),
            LAUNCHER => Some(Self::Launcher(rest())),
            _ => None,
        }
    }

    pub(crate) fn run(self) -> ExitCode {
        match self {
            Self::Watchdog(command) => process::run(&command),
            Self::Launcher(arguments) => launcher::run(&arguments),
        }
    }
}
