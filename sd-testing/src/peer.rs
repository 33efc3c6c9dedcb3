//! A program of another project that a test runs beside ours. It does what its arguments say until its standard input ends, and
//! reports in lines what it does and sees.

use std::io;
use std::process::Stdio;

use sd_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::required_env;

/// A running program. It writes to our standard error. Dropping it kills it.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Starts the program that `variable` names.
    ///
    /// # Errors
    /// `NotFound` if the variable is not set. `Unavailable` if the program cannot be started.
    pub fn start(variable: &str, arguments: &[&str]) -> Result<Self> {
        let mut program = std::process::Command::new(required_env(variable)?);
        program.args(arguments);
        Self::launch(program)
    }

    /// Starts a program, for instance the test itself as a process of its own.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be started.
    pub fn launch(program: std::process::Command) -> Result<Self> {
        let name = program.get_program().to_string_lossy().into_owned();
        let mut child = Command::from(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| unavailable().because(format!("{name}: {error}")))?;
        let stdout = child.stdout.take();
        let stdout = stdout.ok_or_else(|| unavailable().because("no standard output"))?;
        Ok(Self {
            stdin: child.stdin.take(),
            lines: BufReader::new(stdout).lines(),
            child,
        })
    }

    /// The process id, to send it signals. `None` once it was waited for.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The next line. Cancel-safe. Has no deadline of its own.
    ///
    /// # Errors
    /// `Unavailable` if the program has ended.
    pub async fn line(&mut self) -> Result<String> {
        let line = self.lines.next_line().await.map_err(broken)?;
        line.ok_or_else(|| unavailable().because("the program has ended: see its standard error"))
    }

    /// Writes a line to the program's standard input. A call that is dropped may have written a part of it.
    ///
    /// # Errors
    /// `Unavailable` if the program has ended.
    pub async fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut();
        let stdin = stdin.ok_or_else(|| unavailable().because("its standard input has ended"))?;
        let line = format!("{line}\n");
        stdin.write_all(line.as_bytes()).await.map_err(broken)
    }

    /// Ends the program's standard input, and waits until the program has ended by itself. Returns the remaining lines. Has no
    /// deadline of its own.
    ///
    /// # Errors
    /// `Unavailable` if the program reports failure.
    pub async fn dismiss(mut self) -> Result<Vec<String>> {
        drop(self.stdin.take());
        let mut left = Vec::new();
        while let Some(line) = self.lines.next_line().await.map_err(broken)? {
            left.push(line);
        }
        let status = self.child.wait().await.map_err(broken)?;
        if status.success() {
            Ok(left)
        } else {
            Err(unavailable().because(status.to_string()))
        }
    }
}

fn broken(error: io::Error) -> Error {
    unavailable().with_source(error)
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "peer program")
}
