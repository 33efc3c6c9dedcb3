//! A server in a process of its own, which is this program with other arguments.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use crate::{Result, server};

/// The first argument of a process that serves.
pub(crate) const SERVE: &str = "serve";

/// What the owner writes to make the server drain.
const DRAIN: &[u8] = b"drain\n";

pub(crate) struct ServerProcess(Child);

impl ServerProcess {
    /// Starts it. Returns when it began to register.
    pub(crate) async fn start(url: &str, service: &str, name: &str) -> Result<(SystemTime, Self)> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([SERVE, url, service, name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let line = BufReader::new(stdout).lines().next_line().await?;
        let line = line.ok_or("a server ended before it registered")?;
        let began = SystemTime::UNIX_EPOCH + Duration::from_micros(line.parse()?);
        Ok((began, Self(child)))
    }

    pub(crate) async fn drain(mut self) -> Result<()> {
        let mut stdin = self.0.stdin.take().ok_or("no stdin")?;
        stdin.write_all(DRAIN).await?;
        let status = self.0.wait().await?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("a drained server ended with {status}").into())
        }
    }

    pub(crate) async fn kill(mut self) -> Result<()> {
        self.0.kill().await?;
        Ok(())
    }

    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.0.id().ok_or("the server has ended")?;
        let id = Pid::from_raw(id.try_into()?).ok_or("no process id")?;
        Ok(kill_process(id, signal)?)
    }
}

/// What such a process does.
pub(crate) async fn serve(url: &str, service: &str, name: &str) -> Result<()> {
    // Frozen or not, the server must not outlive the process that started it.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let registry = examples::registry(Some(url))?;
    let (began, begins) = oneshot::channel();
    let serving = server::serve(&registry, service, name, began, told_to_drain());
    let telling = async {
        if let Ok(began) = begins.await
            && let Ok(began) = began.duration_since(SystemTime::UNIX_EPOCH)
        {
            println!("{}", began.as_micros());
        }
    };
    let (done, ()) = tokio::join!(serving, telling);
    done?;
    registry.close().await?;
    Ok(())
}

/// Returns when told to drain. Ends the process if its owner is gone.
async fn told_to_drain() {
    let (told, listens) = oneshot::channel::<()>();
    // Reading blocks, and nothing can interrupt it: in a thread that does not keep the process from ending.
    std::thread::spawn(move || {
        let mut line = String::new();
        match std::io::stdin().read_line(&mut line) {
            Ok(1..) => drop(told),
            _ => std::process::exit(1),
        }
    });
    let _ = listens.await;
}
