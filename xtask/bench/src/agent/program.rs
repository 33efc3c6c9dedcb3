//! `sd-agent` as its users run it: a process with a port, a Unix socket and a state of its own on disk.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sd_testing::free_port;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::PATIENCE;
use super::caller::Caller;
use crate::Result;
use crate::source::PAUSE;

/// Where `cargo xtask bench` says that it has built the program.
const VARIABLE: &str = "SD_BENCH_AGENT";

/// A running agent. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Agent {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
    prefix: String,
}

impl Agent {
    /// Starts one at the etcd of this URL, and waits until it is ready. Its defaults count, but for `options`.
    pub(super) async fn start(etcd: &str, prefix: &str, options: &[&str]) -> Result<Self> {
        let program = std::env::var_os(VARIABLE).ok_or_else(|| {
            format!("{VARIABLE} must name the program: `cargo xtask bench` builds it and sets it")
        })?;
        let folder = tempfile::tempdir()?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let socket = folder.path().join("agent.sock");
        let registry = format!("{}{prefix}", etcd.replacen("http://", "etcd://", 1));
        let child = Command::new(program)
            .args(["--registry", &registry, "--allow-loopback"])
            .args(["--listen", &address.to_string()])
            .args(["--listen", &format!("unix:{}", socket.display())])
            .arg("--state")
            .arg(folder.path().join("registrations.json"))
            .args(options)
            // Each of its keys is a variable as well.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log"))?)
            .spawn()?;
        let mut agent = Self {
            child,
            folder,
            address,
            prefix: prefix.to_owned(),
        };
        let limit = Instant::now() + PATIENCE;
        let caller = Caller::by_port(address)?;
        while caller.get("/readyz").await.is_err() {
            if agent.child.try_wait()?.is_some() || Instant::now() > limit {
                let log = fs::read_to_string(agent.folder.path().join("log"))?;
                return Err(format!("the agent does not start: {log}").into());
            }
            sleep(PAUSE).await;
        }
        Ok(agent)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// Where in etcd it keeps its records.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Has it deregister everything, and waits for its end.
    pub(super) fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?).ok_or("the agent has no id")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the agent ended with {status}").into())
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
