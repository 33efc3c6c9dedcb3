//! Runs the built `sdctl`.

use std::ffi::OsStr;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// For anything but a bug, on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn command(registry: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sdctl"));
    command
        .env_remove("SDCTL_REGISTRY")
        .env_remove("NO_COLOR")
        .args(["--registry", registry])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs to the end.
pub(crate) async fn sdctl(registry: &str, arguments: &[impl AsRef<OsStr>]) -> Output {
    let output = command(registry, arguments).output();
    timeout(LIMIT, output).await.expect("sdctl ends").unwrap()
}

/// The one object that it prints.
pub(crate) async fn sdctl_json(registry: &str, arguments: &[impl AsRef<OsStr>]) -> Value {
    let output = sdctl(registry, arguments).await;
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The one line on stderr of a command that must fail.
pub(crate) fn failure(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().to_owned()
}

/// A command that runs until it is told to stop.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(registry: &str, arguments: &[impl AsRef<OsStr>]) -> Self {
        Self::spawn(command(registry, arguments))
    }

    /// As [`start`](Self::start), by a program that is given the command line and becomes it.
    pub(crate) fn start_by(
        program: &[&str],
        registry: &str,
        arguments: &[impl AsRef<OsStr>],
    ) -> Self {
        let sdctl = command(registry, arguments);
        let mut command = Command::new(program[0]);
        command
            .args(&program[1..])
            .arg(sdctl.as_std().get_program())
            .args(sdctl.as_std().get_args())
            .env_remove("SDCTL_REGISTRY")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line on stdout; `None` after the last.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let line = timeout(LIMIT, self.lines.next_line()).await;
        line.expect("a line").unwrap()
    }

    /// The next line on stdout for which `condition` holds, as JSON.
    pub(crate) async fn json_where(&mut self, condition: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.line().await.expect("more lines");
            let value = serde_json::from_str(&line).unwrap();
            if condition(&value) {
                return value;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    pub(crate) fn pid(&self) -> Pid {
        pid(&self.child)
    }

    /// Closes our end of its stdout.
    pub(crate) fn stop_reading(self) -> Child {
        self.child
    }

    /// Waits for its end; gives what it wrote to stdout since the last line read, and to stderr.
    pub(crate) async fn end(mut self) -> (ExitStatus, Vec<String>, String) {
        let mut out = Vec::new();
        while let Some(line) = self.line().await {
            out.push(line);
        }
        let status = ended(&mut self.child).await;
        let mut stderr = String::new();
        let pipe = self.child.stderr.as_mut().unwrap();
        let read = timeout(LIMIT, pipe.read_to_string(&mut stderr)).await;
        read.expect("all that holds its stderr ends").unwrap();
        (status, out, stderr)
    }
}

pub(crate) fn send(child: &Child, signal: Signal) {
    kill_process(pid(child), signal).unwrap();
}

fn pid(child: &Child) -> Pid {
    let process = i32::try_from(child.id().expect("a running process")).unwrap();
    Pid::from_raw(process).unwrap()
}

pub(crate) async fn ended(child: &mut Child) -> ExitStatus {
    timeout(LIMIT, child.wait())
        .await
        .expect("it ends")
        .unwrap()
}
