//! Several programs at the same time, each with its output kept together and shown when it has ended.

mod line;

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Error, Result};

use self::line::Line;
use crate::capture::{Captured, Printed, capture};
use crate::command::Run;
use crate::interrupt;

/// How long nothing is said while nothing ends.
const SILENCE: Duration = Duration::from_secs(30);

/// One program to be run.
#[derive(Debug)]
pub(crate) struct Job {
    /// What it is called where it is told of.
    pub(crate) title: String,
    pub(crate) command: Run,
    /// It keeps the cores busy, so that no other such one runs beside it.
    pub(crate) busy: bool,
    /// After this it is killed.
    pub(crate) limit: Duration,
}

/// Runs all of them, `at_once` at a time and the first ones first. `ended` is told of each that has ended, by its place in `jobs`.
///
/// # Errors
/// One of them cannot be started, or a signal came. Then no other is started, and those that run end first.
pub(crate) fn run(
    jobs: Vec<Job>,
    at_once: usize,
    mut ended: impl FnMut(usize, &str, Captured),
) -> Result<()> {
    let all = jobs.len();
    let mut line = Line::new(jobs.iter().map(|job| job.busy), at_once);
    let mut jobs: Vec<Option<Job>> = jobs.into_iter().map(Some).collect();
    let mut running = Running::default();
    let mut failure: Option<Error> = None;
    let mut done = 0;
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        loop {
            failure = failure.take().or(interrupt::check().err());
            while failure.is_none()
                && let Some(index) = line.next()
                && let Some(job) = jobs[index].take()
            {
                running.add(index, job.title, job.command.to_string());
                let sender = sender.clone();
                scope.spawn(move || {
                    let captured = capture(job.command, job.limit);
                    // The caller waits for the answer.
                    let _ = sender.send((index, captured));
                });
            }
            if running.0.is_empty() {
                return;
            }
            let (index, captured) = match receiver.recv_timeout(SILENCE) {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("{done} of {all} done; {running}");
                    continue;
                }
                // We hold a sender ourselves.
                Err(RecvTimeoutError::Disconnected) => return,
            };
            line.ended(index);
            let Some((title, command, _)) = running.0.remove(&index) else {
                continue;
            };
            match captured {
                Ok(captured) => {
                    done += 1;
                    eprintln!("\n$ {command}");
                    captured.printed.iter().for_each(Printed::show);
                    eprintln!("{done} of {all} done: {title}, {}", outcome(&captured));
                    ended(index, &title, captured);
                }
                Err(error) => failure = failure.take().or(Some(error)),
            }
        }
    });
    failure.map_or(Ok(()), Err)
}

/// Title and command of what runs, and since when.
#[derive(Debug, Default)]
struct Running(BTreeMap<usize, (String, String, Instant)>);

impl Running {
    fn add(&mut self, index: usize, title: String, command: String) {
        self.0.insert(index, (title, command, Instant::now()));
    }
}

impl Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("running: ")?;
        for (nth, (title, _, since)) in self.0.values().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            write!(f, "{comma}{title} ({} s)", since.elapsed().as_secs())?;
        }
        Ok(())
    }
}

fn outcome(captured: &Captured) -> String {
    let word = match &captured.trouble {
        Some(trouble) => format!("FAILED ({trouble})"),
        None if captured.status.success() => "ok".to_owned(),
        None => format!("FAILED ({})", captured.status),
    };
    format!("{word}, {:.1} s", captured.took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn job(script: &str, busy: bool) -> Job {
        Job {
            title: script.to_owned(),
            command: Run::new("sh").args(["-c", script]),
            busy,
            limit: Duration::from_mins(1),
        }
    }

    #[test]
    fn each_is_run_once_and_failing_stops_no_other() {
        let jobs = vec![
            job("echo a", false),
            job("exit 3", true),
            job("echo c", false),
        ];
        let mut seen = BTreeMap::new();
        run(jobs, 2, |index, title, captured| {
            let said: Vec<String> = captured.output().map(str::to_owned).collect();
            seen.insert(index, (title.to_owned(), captured.is_success(), said));
        })
        .unwrap();
        let all = [
            ("echo a", true, vec!["a"]),
            ("exit 3", false, vec![]),
            ("echo c", true, vec!["c"]),
        ];
        let all = all.map(|(title, good, said)| {
            let said = said.into_iter().map(str::to_owned).collect();
            (title.to_owned(), good, said)
        });
        assert_eq!(seen.into_values().collect::<Vec<_>>(), all);
    }

    /// Each of two waits for a file that the other one makes.
    #[test]
    fn two_run_at_the_same_time() {
        let folder = std::env::temp_dir().join(format!("xtask-beside-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let meets = |mine: &str, other: &str| {
            let (mine, other) = (folder.join(mine), folder.join(other));
            let (mine, other) = (mine.display(), other.display());
            job(
                &format!("touch {mine}; until [ -e {other} ]; do sleep 0.02; done"),
                false,
            )
        };
        let met = AtomicUsize::new(0);
        run(vec![meets("a", "b"), meets("b", "a")], 2, |_, _, ended| {
            met.fetch_add(usize::from(ended.is_success()), Ordering::SeqCst);
        })
        .unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(met.into_inner(), 2);
    }

    #[test]
    fn who_cannot_be_started_is_an_error() {
        let missing = Job {
            command: Run::new("/nonexistent/program"),
            ..job("missing", false)
        };
        let error = run(vec![missing], 1, |_, _, _| {}).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/program"));
    }
}
