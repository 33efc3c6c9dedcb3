//! The check that a process lives.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sd_core::{Error, ErrorKind, Result};
use tokio::net::unix::pipe::Receiver;

use super::board::Slot;
use crate::wire::{CheckState, start_of_process};

/// One process. Another one that gets its id later is not meant.
///
/// It is only waited for, as one waits for a pipe: `AsyncFd` cannot be made without unsafe code.
#[derive(Debug)]
pub(super) struct Process(Receiver);

impl Process {
    /// The process that has this id now. `None` if there is none.
    pub(super) fn open(pid: u32) -> std::io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => Ok(Some(Self(Receiver::from_owned_fd_unchecked(process)?))),
            // The number of a thread is not that of a process.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns when it has ended, whether or not its parent has asked how. Cancel-safe.
    pub(super) async fn ended(&self) {
        // A descriptor that cannot be waited for is that of no process that lives.
        let _ = self.0.readable().await;
    }
}

/// Looks for the process of a check, and tells whether it lives.
pub(super) fn find(pid: u32, started: Option<u64>, slot: &Slot) -> Result<Option<Process>> {
    let process = Process::open(pid)
        .map_err(|error| Error::new(ErrorKind::Unavailable, "check").with_source(error))?;
    // Read once we hold the process: from here on another one with its id is noticed.
    let is_another = started.is_some_and(|started| start_of_process(pid) != Some(started));
    match process {
        Some(process) if !is_another => {
            slot.tell(CheckState::Passing, &format!("process {pid} lives"));
            Ok(Some(process))
        }
        _ => {
            slot.tell(CheckState::Failing, &ended(pid));
            Ok(None)
        }
    }
}

pub(super) async fn watch(process: Process, pid: u32, slot: Slot) {
    process.ended().await;
    slot.tell(CheckState::Failing, &ended(pid));
}

fn ended(pid: u32) -> String {
    format!("process {pid} has ended")
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use tokio::time::timeout;

    use crate::checks::{Checks, Commands};
    use crate::wire::{CheckKind, CheckSpec};

    /// For anything but a bug, on a busy machine.
    const LIMIT: Duration = Duration::from_secs(30);

    fn checks(spec: CheckSpec) -> Checks {
        let target = "127.0.0.1:80".parse().unwrap();
        Checks::start(&[spec], &target, Commands::Refused).unwrap()
    }

    fn spec(pid: u32, started: Option<u64>) -> CheckSpec {
        CheckSpec::new(CheckKind::Pid { pid, started })
    }

    #[tokio::test]
    async fn a_process_passes_until_it_ends_also_if_its_parent_does_not_ask() {
        let mut sleep = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let checks = checks(spec(sleep.id(), None));
        let mut health = checks.health();
        assert!(health.borrow_and_update().passing);
        sleep.kill().unwrap();
        let failing = health.wait_for(|health| !health.passing);
        let failing = timeout(LIMIT, failing)
            .await
            .expect("it is noticed")
            .unwrap();
        assert!(
            failing.checks[0].output.ends_with("has ended"),
            "{failing:?}"
        );
        drop(failing);
        sleep.wait().unwrap();
    }

    #[tokio::test]
    async fn a_process_that_got_the_id_of_the_one_that_is_meant_does_not_count() {
        let this = std::process::id();
        let meant = spec(this, None).with_start_of_process();
        let CheckKind::Pid {
            started: Some(started),
            ..
        } = meant.kind
        else {
            panic!("{meant:?}");
        };
        assert!(checks(meant).health().borrow().passing);
        assert!(
            !checks(spec(this, Some(started - 1)))
                .health()
                .borrow()
                .passing
        );
    }

    #[tokio::test]
    async fn one_that_has_ended_before_and_a_thread_are_no_process() {
        let mut done = Command::new("true").spawn().unwrap();
        done.wait().unwrap();
        let health = checks(spec(done.id(), None)).health();
        assert!(!health.borrow().passing);
        let thread = std::thread::spawn(rustix::thread::gettid).join().unwrap();
        let thread = thread.as_raw_pid().unsigned_abs();
        assert!(!checks(spec(thread, None)).health().borrow().passing);
    }
}
