//! A command under a watchdog, from the side of `sdctl`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, wait};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::descendants::{self, LOOK_AGAIN};
use super::environment::Environment;
use super::program::{THIS_PROGRAM, WATCHDOG};
use super::protocol::{Ended, Orders};
use crate::failure::Failure;
use crate::output::Output;

/// The exit status of what was killed, as shells tell it.
pub(super) const KILLED: u8 = 128 + 9;

/// A command under a watchdog. Dropping it stops the command, in the time that it was given for that.
#[derive(Debug)]
pub(super) struct SupervisedCommand {
    watchdog: Child,
    orders: StdUnixStream,
    report: Lines<BufReader<UnixStream>>,
    /// Children that this process had before, as one that a script became.
    strangers: Vec<Pid>,
}

/// Where the command's standard output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandOutput {
    ToStdout,
    ToStderr,
}

impl CommandOutput {
    /// A program that reads our output must not find the command's in it.
    pub(crate) fn beside(ours: Output) -> Self {
        if ours.is_json() {
            Self::ToStderr
        } else {
            Self::ToStdout
        }
    }
}

impl SupervisedCommand {
    /// Starts a command, in our environment with these changes.
    pub(super) fn start(
        command: &[OsString],
        environment: Environment,
        output: CommandOutput,
        orders: Orders,
    ) -> io::Result<Self> {
        // If the watchdog dies, what it supervises is ours.
        set_child_subreaper(Some(getpid()))?;
        let strangers = descendants::children()?;
        let (ours, its) = StdUnixStream::pair()?;
        writeln!(&ours, "{orders}")?;
        ours.set_nonblocking(true)?;
        let report = UnixStream::from_std(ours.try_clone()?)?;
        let stdout = match output {
            CommandOutput::ToStdout => Stdio::inherit(),
            CommandOutput::ToStderr => io::stderr().as_fd().try_clone_to_owned()?.into(),
        };
        let mut watchdog = Command::new(THIS_PROGRAM);
        for variable in environment.unset {
            watchdog.env_remove(variable);
        }
        let watchdog = watchdog
            .arg0("sdctl")
            .arg(WATCHDOG)
            .args(command)
            .envs(environment.set)
            .stdin(OwnedFd::from(its))
            .stdout(stdout)
            // Out of reach of what a terminal sends to our group.
            .process_group(0)
            .spawn()?;
        Ok(Self {
            watchdog,
            orders: ours,
            report: BufReader::new(report).lines(),
            strangers,
        })
    }

    /// Passes on until when the command may run.
    pub(super) fn order(&self, orders: Orders) {
        // If the watchdog has died, that is about to be noticed; if it reads nothing, the command ends with older orders.
        let _ = (&self.orders).write_all(format!("{orders}\n").as_bytes());
    }

    /// Waits until nothing is left of the command; `None` if the watchdog has died before it could say so. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Option<Ended> {
        let line = self.report.next_line().await.ok()??;
        line.parse().ok()
    }

    /// How the command [ended](Self::ended). If its watchdog has died, all is killed.
    pub(super) async fn settle(&mut self, ended: Option<Ended>) -> Result<Ended, Failure> {
        if let Some(ended) = ended {
            return Ok(ended);
        }
        self.kill_all().await?;
        Err(Failure::new(
            "the watchdog has died, so the command was killed; try: again",
        ))
    }

    /// As [`kill`](Self::kill).
    pub(super) async fn kill_all(&mut self) -> Result<(), Failure> {
        self.kill().await.map_err(|error| {
            let line = format!("cannot check what is left of the command: {error}");
            Failure::new(line)
        })
    }

    /// Kills the watchdog and what is left of the command, and waits until they are dead. That may take for ever if the kernel does
    /// not let go of one.
    async fn kill(&mut self) -> io::Result<()> {
        // It fails if the watchdog is dead already.
        let _ = self.watchdog.start_kill();
        self.watchdog.wait().await?;
        // Now all are our children, or descend from these.
        while descendants::kill(&self.strangers)? {
            sleep(LOOK_AGAIN).await;
            while matches!(wait(WaitOptions::NOHANG), Ok(Some(_)) | Err(Errno::INTR)) {}
        }
        Ok(())
    }
}
