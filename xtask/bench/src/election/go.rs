//! The Go client's election, in a process of its own: see `go-election/main.go` for what is said on its pipes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::{Error, Result};

/// Where `cargo xtask bench` says that it has built the program.
const VARIABLE: &str = "SD_BENCH_GO_ELECTION";
const MODULE: &str = include_str!("../../go-election/go.mod");

/// Two candidates that take turns in leading.
pub(super) struct GoElection {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl GoElection {
    pub(super) fn start(address: &str) -> Result<Self> {
        let program = std::env::var_os(VARIABLE).ok_or_else(|| {
            format!("{VARIABLE} must name the program: `cargo xtask bench` builds it and sets it")
        })?;
        let mut child = Command::new(program)
            .args([address, "/bench/go-elections"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = child.stdout.take().map(BufReader::new).ok_or("no stdout")?;
        Ok(Self {
            child,
            stdin,
            stdout,
        })
    }

    /// Lets one candidate wait behind the other one for so long, and then the other one resign. Returns how long it took from there
    /// until the one that waited leads.
    pub(super) fn hand_over(&mut self, waits: Duration) -> Result<Duration> {
        writeln!(self.stdin, "{}", waits.as_millis())?;
        self.stdin.flush()?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let nanos = line.trim().parse().map_err(|_| -> Error {
            "the Go program ended without an answer; it has said why".into()
        })?;
        Ok(Duration::from_nanos(nanos))
    }
}

impl Drop for GoElection {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The version of the Go client that the module asks for.
pub(super) fn client_version() -> &'static str {
    let after = MODULE.split_once("go.etcd.io/etcd/client/v3 v");
    after.map_or("?", |(_, rest)| rest.lines().next().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_names_the_clients_version() {
        assert!(client_version().starts_with("3."), "{}", client_version());
    }
}
