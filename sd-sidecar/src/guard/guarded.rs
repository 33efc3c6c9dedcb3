//! The side of `sdctl`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;

use rustix::process::{Pid, getpid, set_child_subreaper};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::{Orders, Report, THIS_PROGRAM, WATCHDOG, end_group};

/// A command under a watchdog. Dropping it stops the command, in the time that it was given for that.
#[derive(Debug)]
pub(super) struct Guarded {
    watchdog: Child,
    orders: StdUnixStream,
    reports: Lines<BufReader<UnixStream>>,
    /// Once it runs.
    group: Option<Pid>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this status; 128 and the signal's number if by a signal.
    Exited(u8),
    /// Because it was told to.
    Stopped,
}

/// Where the command's standard output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandOutput {
    ToStdout,
    ToStderr,
}

impl Guarded {
    /// Starts a command with these variables added to its environment.
    pub(super) fn start(
        command: &[OsString],
        variables: impl IntoIterator<Item = (&'static str, OsString)>,
        output: CommandOutput,
        orders: Orders,
    ) -> io::Result<Self> {
        // If the watchdog dies, what it guards is ours.
        set_child_subreaper(Some(getpid()))?;
        let (ours, its) = StdUnixStream::pair()?;
        writeln!(&ours, "{orders}")?;
        ours.set_nonblocking(true)?;
        let reports = UnixStream::from_std(ours.try_clone()?)?;
        let stdout = match output {
            CommandOutput::ToStdout => Stdio::inherit(),
            CommandOutput::ToStderr => io::stderr().as_fd().try_clone_to_owned()?.into(),
        };
        let watchdog = Command::new(THIS_PROGRAM)
            .arg0("sdctl")
            .arg(WATCHDOG)
            .args(command)
            .envs(variables)
            .stdin(OwnedFd::from(its))
            .stdout(stdout)
            // Out of reach of what a terminal sends to our group.
            .process_group(0)
            .spawn()?;
        Ok(Self {
            watchdog,
            orders: ours,
            reports: BufReader::new(reports).lines(),
            group: None,
        })
    }

    /// Passes on until when the command may run.
    pub(super) fn order(&self, orders: Orders) {
        // If the watchdog has died, that is about to be noticed; if it reads nothing, the command ends with older orders.
        let _ = (&self.orders).write_all(format!("{orders}\n").as_bytes());
    }

    /// Waits until nothing is left of the command; `None` if the watchdog has died before it could say so. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Option<Ended> {
        loop {
            let line = self.reports.next_line().await.ok()??;
            match line.parse() {
                Ok(Report::Started(group)) => self.group = Some(group),
                Ok(Report::Ended(ended)) => return Some(ended),
                Err(_) => return None,
            }
        }
    }

    /// Kills the watchdog and what is left of the command, and waits until they are dead.
    pub(super) async fn kill(&mut self) {
        // It fails if the watchdog is dead already.
        let _ = self.watchdog.start_kill();
        let _ = self.watchdog.wait().await;
        // What it said last.
        let _ = self.ended().await;
        if let Some(group) = self.group.take() {
            // Only fails if it panics.
            let _ = tokio::task::spawn_blocking(move || end_group(group)).await;
        }
    }
}
