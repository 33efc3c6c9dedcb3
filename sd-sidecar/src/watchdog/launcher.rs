//! The process that becomes the command.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::failure::Failure;

/// The exit statuses of shells for a command that is not there, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const CANNOT_RUN: u8 = 126;

/// Asks the kernel to kill this process when its watchdog dies, then becomes the command: the wish outlives that. The arguments are
/// the watchdog's process id and the command line.
pub(super) fn run(arguments: &[OsString]) -> ExitCode {
    let [watchdog, program, arguments @ ..] = arguments else {
        return Failure::new("nothing to launch; try: sdctl elect --help").exit_with(CANNOT_RUN);
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        let line = format!("cannot bind the command to its watchdog: {error}");
        return Failure::new(line).exit_with(CANNOT_RUN);
    }
    let parent = Pid::as_raw(getppid()).to_string();
    if *watchdog != *parent {
        // It died before the kernel knew of the wish.
        return ExitCode::from(CANNOT_RUN);
    }
    let error = Command::new(program).args(arguments).exec();
    let status = match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        _ => CANNOT_RUN,
    };
    Failure::new(format!("cannot run {}: {error}", program.display())).exit_with(status)
}
