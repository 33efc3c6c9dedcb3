//! The built `sd-agent`, as its users run it.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use sd_testing::LONG;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::HttpClient;

/// What the agent is started with where its defaults are meant.
pub(crate) const WITHOUT_OPTIONS: [&str; 0] = [];

/// A command line of the agent. It listens on a port that the system chooses, unless `arguments` say otherwise.
pub(crate) fn command(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sd-agent"));
    for (name, _) in std::env::vars_os() {
        let is_ours = |name: &str| name.starts_with("SD_AGENT_") || name == "NOTIFY_SOCKET";
        if name.to_str().is_some_and(is_ours) {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs to the end.
pub(crate) async fn output(mut command: Command) -> Output {
    let output = timeout(LONG, command.output()).await;
    output.expect("the agent ends").unwrap()
}

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct AgentProcess {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    lines: watch::Receiver<usize>,
    reader: JoinHandle<()>,
}

impl AgentProcess {
    /// Starts it, with a port that the system chooses, and waits until it is ready.
    pub(crate) async fn start(arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut command = command(&["--listen", "127.0.0.1:0", "--allow-loopback"]);
        command.args(arguments);
        let agent = Self::spawn(command);
        agent.logged("ready").await;
        agent
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (count, lines) = watch::channel(0);
        let kept = Arc::clone(&log);
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push(line);
                count.send_replace(kept.len());
            }
        });
        Self {
            child,
            log,
            lines,
            reader,
        }
    }

    /// All lines of its log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone()
    }

    /// Waits for a line of the log, and gives it.
    pub(crate) async fn logged(&self, part: &str) -> String {
        let mut lines = self.lines.clone();
        let found = timeout(LONG, async {
            loop {
                lines.mark_unchanged();
                let found = self.log().into_iter().find(|line| line.contains(part));
                if let Some(line) = found {
                    return line;
                }
                assert!(
                    lines.changed().await.is_ok(),
                    "{part:?} is not in {:#?}",
                    self.log()
                );
            }
        });
        let found = found.await;
        found.unwrap_or_else(|_| panic!("{part:?} is not in {:#?}", self.log()))
    }

    /// Where it listens: the only address of TCP, or the first.
    pub(crate) fn address(&self) -> SocketAddr {
        let log = self.log();
        let line = log
            .iter()
            .find(|line| line.contains("listening") && !line.contains("address=unix:"));
        let (_, address) = line.unwrap().rsplit_once("address=").unwrap();
        address.trim_start_matches("tls:").parse().unwrap()
    }

    pub(crate) fn client(&self) -> HttpClient {
        HttpClient::new(self.address())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let process = i32::try_from(self.child.id().expect("a running process")).unwrap();
        kill_process(Pid::from_raw(process).unwrap(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("a running process")
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) async fn stop(self) -> (ExitStatus, Vec<String>) {
        self.signal(Signal::TERM);
        self.end().await
    }

    /// Kills it, and waits until it is gone.
    pub(crate) async fn kill(self) {
        self.signal(Signal::KILL);
        self.end().await;
    }

    /// Waits for its end.
    pub(crate) async fn end(mut self) -> (ExitStatus, Vec<String>) {
        let status = timeout(LONG, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("it does not end: {:#?}", self.log()));
        timeout(LONG, &mut self.reader).await.unwrap().unwrap();
        (status.unwrap(), self.log())
    }
}

/// Writes a file that only its owner can read.
pub(crate) fn private_file(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
