//! A command whose output is kept until it has ended, for what runs beside others.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::command::Run;
use crate::process::processor_time;

/// How often a command is asked whether it has ended.
const POLL: Duration = Duration::from_millis(50);
/// How long after its end what it started may hold its output open.
const LINGER: Duration = Duration::from_secs(5);

/// One line, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Printed {
    Output(String),
    Error(String),
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Captured {
    /// What it printed, in the order in which it came.
    pub(crate) printed: Vec<Printed>,
    pub(crate) status: ExitStatus,
    pub(crate) took: Duration,
    /// Processor time, with that of its children that it waited for.
    pub(crate) processor: Duration,
    /// Why it counts as failed, whatever its status.
    pub(crate) trouble: Option<String>,
}

impl Printed {
    /// Goes where ours goes.
    pub(crate) fn show(&self) {
        match self {
            Self::Output(text) => println!("{text}"),
            Self::Error(text) => eprintln!("{text}"),
        }
    }
}

impl Captured {
    pub(crate) fn is_success(&self) -> bool {
        self.status.success() && self.trouble.is_none()
    }

    /// The lines of its standard output.
    pub(crate) fn output(&self) -> impl Iterator<Item = &str> {
        self.printed.iter().filter_map(|line| match line {
            Printed::Output(text) => Some(text.as_str()),
            Printed::Error(_) => None,
        })
    }
}

/// Runs it to its end, and shows nothing. After `limit` it is killed, with all that it started.
///
/// # Errors
/// It cannot be started. That it fails is left to the caller to judge.
pub(crate) fn capture(run: Run, limit: Duration) -> Result<Captured> {
    let start = Instant::now();
    let (mut child, _forwarding) = run.start_piped()?;
    let (sender, receiver) = channel();
    if let Some(stdout) = child.stdout.take() {
        read(stdout, Printed::Output, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        read(stderr, Printed::Error, sender);
    }
    let mut printed = Vec::new();
    let mut trouble = None;
    let mut is_open = true;
    while !has_ended(&child)? {
        is_open = is_open && take(&receiver, POLL, &mut printed);
        if !is_open {
            std::thread::sleep(POLL);
        }
        if trouble.is_none() && start.elapsed() > limit {
            trouble = Some(format!("killed after {limit:?}"));
            kill(&child);
        }
    }
    let took = start.elapsed();
    // Asked before its status is taken: after that it is no longer known.
    let processor = processor_time(child.id());
    if is_open && !drain(&receiver, &mut printed) {
        kill(&child);
        drain(&receiver, &mut printed);
        let left = "it left processes behind that held its output open".to_owned();
        trouble = trouble.or(Some(left));
    }
    Ok(Captured {
        printed,
        status: child.wait()?,
        took,
        processor,
        trouble,
    })
}

/// Hands on line by line until the other side is closed, in a thread of its own: who inherited the other side may hold it for ever.
fn read(stream: impl Read + Send + 'static, of: fn(String) -> Printed, sender: Sender<Printed>) {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(of(text)).is_err() {
                return;
            }
            line.clear();
        }
    });
}

/// Takes what comes within `limit`. False once nothing more can come.
fn take(receiver: &Receiver<Printed>, limit: Duration, printed: &mut Vec<Printed>) -> bool {
    match receiver.recv_timeout(limit) {
        Ok(line) => {
            printed.push(line);
            printed.extend(receiver.try_iter());
            true
        }
        Err(RecvTimeoutError::Timeout) => true,
        Err(RecvTimeoutError::Disconnected) => false,
    }
}

/// Takes what is left. False if a process holds the output open for too long.
fn drain(receiver: &Receiver<Printed>, printed: &mut Vec<Printed>) -> bool {
    let deadline = Instant::now() + LINGER;
    while Instant::now() < deadline {
        if !take(receiver, POLL, printed) {
            return true;
        }
    }
    false
}

fn has_ended(child: &Child) -> Result<bool> {
    let question = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(Pid::from_child(child)), question)?.is_some())
}

/// Its whole group. No other process can have its number before its status is taken.
fn kill(child: &Child) {
    // It may have ended a moment ago, and its children with it.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn shell(script: &str, limit: Duration) -> Captured {
        capture(Run::new("sh").args(["-c", script]), limit).unwrap()
    }

    #[test]
    fn keeps_both_streams_apart_and_a_last_line_that_has_no_end() {
        let captured = shell("echo a; echo b >&2; printf c", LONG);
        assert!(captured.is_success());
        assert_eq!(captured.output().collect::<Vec<_>>(), ["a", "c"]);
        assert!(captured.printed.contains(&Printed::Error("b".to_owned())));
        assert_eq!(captured.printed.len(), 3);
    }

    #[test]
    fn failing_is_no_error() {
        let captured = shell("echo why; exit 3", LONG);
        assert_eq!(captured.status.code(), Some(3));
        assert!(!captured.is_success());
    }

    #[test]
    fn counts_the_processor_time_of_children_too() {
        let script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'";
        assert!(shell(script, LONG).processor > Duration::ZERO);
    }

    #[test]
    fn what_takes_too_long_is_killed_and_what_it_printed_is_kept() {
        let captured = shell("echo begun; sleep 600 & wait", Duration::from_millis(300));
        assert!(!captured.is_success());
        assert!(captured.trouble.unwrap().contains("killed after 300ms"));
        assert_eq!(captured.printed, [Printed::Output("begun".to_owned())]);
        assert!(captured.took < LONG);
    }

    #[test]
    fn who_leaves_processes_behind_has_failed() {
        let start = Instant::now();
        let captured = shell("sleep 600 &", LONG);
        assert!(captured.status.success() && !captured.is_success());
        assert!(captured.trouble.unwrap().contains("left processes behind"));
        assert!(start.elapsed() < LONG);
    }
}
