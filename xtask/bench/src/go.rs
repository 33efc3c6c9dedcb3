//! Elections of Go clients, each in a process of its own: see the `main.go` of each for what is said on its pipes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::{Error, Result};

/// A program and the client that it is made of.
#[derive(Debug)]
pub(crate) struct GoProgram {
    /// Where `cargo xtask bench` says that it has built the program.
    variable: &'static str,
    go_mod: &'static str,
    client: &'static str,
}

pub(crate) const ETCD_ELECTION: GoProgram = GoProgram {
    variable: "SD_BENCH_GO_ELECTION",
    go_mod: include_str!("../go-election/go.mod"),
    client: "go.etcd.io/etcd/client/v3",
};

pub(crate) const CONSUL_LOCK: GoProgram = GoProgram {
    variable: "SD_BENCH_GO_LOCK",
    go_mod: include_str!("../go-lock/go.mod"),
    client: "github.com/hashicorp/consul/api",
};

/// Two candidates that take turns in leading.
pub(crate) struct GoElection {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl GoProgram {
    /// Starts it with the server's address and where in there to hold the election.
    pub(crate) fn start(&self, address: &str, election: &str) -> Result<GoElection> {
        let Self { variable, .. } = self;
        let program = std::env::var_os(variable).ok_or_else(|| {
            format!("{variable} must name the program: `cargo xtask bench` builds it and sets it")
        })?;
        let mut child = Command::new(program)
            .args([address, election])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = child.stdout.take().map(BufReader::new).ok_or("no stdout")?;
        Ok(GoElection {
            child,
            stdin,
            stdout,
        })
    }

    /// The version of the client that the module asks for.
    pub(crate) fn client_version(&self) -> &'static str {
        let after = self.go_mod.split_once(self.client);
        let version = after.and_then(|(_, rest)| rest.strip_prefix(" v"));
        version.map_or("?", |rest| rest.lines().next().unwrap_or("?"))
    }
}

impl GoElection {
    /// Lets one candidate wait behind the other one for so long, and then the other one resign. Returns how long it took from there
    /// until the one that waited leads.
    pub(crate) fn hand_over(&mut self, waits: Duration) -> Result<Duration> {
        writeln!(self.stdin, "{}", waits.as_millis())?;
        self.stdin.flush()?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let nanos = line.trim().parse().map_err(|_| -> Error {
            "the Go program exited without an answer; its output says why".into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_name_the_clients_versions() {
        for (program, begins) in [(ETCD_ELECTION, "3."), (CONSUL_LOCK, "1.")] {
            let version = program.client_version();
            assert!(version.starts_with(begins), "{version}");
        }
    }
}
