//! Starting one server: free ports, an empty data folder, and waiting until it serves.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use server_programs::LocalServer;

use crate::command::Run;
use crate::interrupt;
use crate::process::ProcessId;
use crate::servers::program::Program;
use crate::servers::record::{Record, remove};
use crate::servers::running::Running;
use crate::servers::server::Server;

/// From start to serving. etcd takes half a second, a JVM on a busy machine much longer.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);
/// How often other ports are tried when another process took one first.
const ATTEMPTS: usize = 3;

/// Starts `server` in `folder`, on free ports, and returns once it serves.
pub(crate) fn start(
    server: &'static dyn Server,
    program: &Program,
    folder: &Path,
    owner: Option<ProcessId>,
) -> Result<Running> {
    let name = server.name();
    let log = folder.join("log");
    let mut attempt = 1;
    loop {
        remove(folder)?;
        let data = folder.join("data");
        fs::create_dir_all(&data)?;
        let mut ports = FreePorts::default();
        let local = server
            .local(&program.path, &mut || ports.next())
            .context("no free port on 127.0.0.1")?;
        drop(ports);
        let url = local.url();
        local.prepare(&data)?;
        let mut child = Run::of(local.command(&data)).detach(&log)?;
        let record = Record {
            server: name.clone(),
            url: url.clone(),
            program: program.path.clone(),
            version: program.version.to_string(),
            process: ProcessId::of(child.id())?,
            owner,
        };
        record.write(folder)?;
        let error = match wait_until_serving(&*local, &mut child) {
            Ok(()) => return Ok(Running::new(server, program.clone(), url)),
            Err(error) => error,
        };
        record.end(folder)?;
        let said = fs::read_to_string(&log).unwrap_or_default();
        if attempt < ATTEMPTS && said.to_ascii_lowercase().contains("address already in use") {
            attempt += 1;
            continue;
        }
        let log = log.display();
        return Err(error.context(format!(
            "{name} does not start; the end of {log}:\n{}",
            tail(&said)
        )));
    }
}

fn wait_until_serving(local: &dyn LocalServer, child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        interrupt::check()?;
        if let Some(status) = child.try_wait()? {
            bail!("it ended by itself: {status}");
        }
        match local.serving() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context(format!("it does not serve after {PATIENCE:?}"));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Ports that were free a moment ago. All are held until this is dropped, so that they differ.
#[derive(Default)]
struct FreePorts(Vec<TcpListener>);

impl FreePorts {
    fn next(&mut self) -> io::Result<u16> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        self.0.push(listener);
        Ok(port)
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn free_ports_differ() {
        let mut ports = FreePorts::default();
        let distinct: BTreeSet<u16> = (0..8).map(|_| ports.next().unwrap()).collect();
        assert_eq!(distinct.len(), 8);
    }

    #[test]
    fn the_tail_of_a_short_log_is_all_of_it() {
        assert_eq!(tail("a\nb\n"), "a\nb");
        assert_eq!(tail(&"x\n".repeat(50)).lines().count(), 10);
    }
}
