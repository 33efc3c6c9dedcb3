//! A process under test, as seen by the run.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::child::{Brief, Order};
use crate::history::Line;
use crate::{Error, Result};

const EXIT_WITHIN: Duration = Duration::from_secs(10);

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Node,
    Observer,
    /// Registers an instance.
    Service,
    /// Follows the service.
    Reader,
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    orders: ChildStdin,
    /// Reads what it tells, to the end.
    reader: JoinHandle<Result<()>>,
}

impl Process {
    /// Starts it; what it tells goes to `lines`, what it logs to the file `log`.
    pub(crate) fn start(
        role: Role,
        brief: &Brief,
        lines: mpsc::Sender<Line>,
        log: std::fs::File,
    ) -> Result<Self> {
        let role = match role {
            Role::Node => "--as-node",
            Role::Observer => "--as-observer",
            Role::Service => "--as-service",
            Role::Reader => "--as-reader",
        };
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .arg(serde_json::to_string(brief)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let orders = child
            .stdin
            .take()
            .ok_or("the process has no standard input")?;
        let told = child
            .stdout
            .take()
            .ok_or("the process has no standard output")?;
        let name = brief.name.clone();
        let reader = tokio::spawn(async move {
            let mut told = BufReader::new(told).lines();
            while let Some(line) = told.next_line().await? {
                // Written in one piece: kill -9 leaves no half lines.
                let line = serde_json::from_str(&line)
                    .map_err(|error| format!("cannot parse {line:?} from {name}: {error}"))?;
                lines.send(line).await?;
            }
            Ok(())
        });
        Ok(Self {
            name: brief.name.clone(),
            child,
            orders,
            reader,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn order(&mut self, order: Order) -> Result<()> {
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        self.orders.write_all(&line).await?;
        Ok(self.orders.flush().await?)
    }

    /// SIGSTOP. Returns when it has stopped.
    pub(crate) fn freeze(&self) -> Result<()> {
        let process = self.signal(Signal::STOP)?;
        let seen = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(process), seen)?;
        check_stopped(self.child.id())
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It has not been stopped until now.
    pub(crate) fn thaw(&self) -> Result<()> {
        let was_stopped = check_stopped(self.child.id());
        self.signal(Signal::CONT)?;
        was_stopped
    }

    /// kill -9. Returns when it is gone and all that it told was read.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await?;
        timeout(EXIT_WITHIN, &mut self.reader).await??
    }

    /// Lets it end by itself, as one that is not needed any more.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.check_runs()?;
        drop(self.orders);
        let status = timeout(EXIT_WITHIN, self.child.wait())
            .await
            .map_err(|_| format!("{} did not exit in time", self.name))??;
        if !status.success() {
            return Err(Error::from(format!("{} exited with {status}", self.name)));
        }
        timeout(EXIT_WITHIN, self.reader).await??
    }

    /// A process that ended by itself told nothing since.
    pub(crate) fn check_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("{} exited unexpectedly: {status}", self.name).into()),
        }
    }

    fn signal(&self, signal: Signal) -> Result<Pid> {
        let process = pid(self.child.id())?;
        kill_process(process, signal)?;
        Ok(process)
    }
}

/// The process with this id, which is a child of ours.
pub(crate) fn pid(id: Option<u32>) -> Result<Pid> {
    let id = id.and_then(|id| i32::try_from(id).ok());
    Ok(id.and_then(Pid::from_raw).ok_or("the process has ended")?)
}

/// Whether a child of ours is stopped by a signal now: otherwise a fault did not take effect.
pub(crate) fn check_stopped(id: Option<u32>) -> Result<()> {
    // Leaves what it sees for others to see.
    let now = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let is_stopped = waitid(WaitId::Pid(pid(id)?), now)?.is_some_and(|status| status.stopped());
    is_stopped
        .then_some(())
        .ok_or_else(|| "the frozen process is not stopped".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_process_that_is_stopped_passes_for_one() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = pid(child.id()).unwrap();
        assert!(check_stopped(child.id()).is_err());
        kill_process(process, Signal::STOP).unwrap();
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(process), stopped).unwrap();
        check_stopped(child.id()).unwrap();
        kill_process(process, Signal::CONT).unwrap();
        assert!(check_stopped(child.id()).is_err());
        child.kill().await.unwrap();
        assert!(check_stopped(child.id()).is_err());
    }
}
