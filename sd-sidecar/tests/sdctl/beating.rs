//! A command that shows signs of life, by a child of it that writes them down.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sd_core::clock::Moment;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::running::LIMIT;

/// Its first line tells its process and its watchdog's. `$3` is what to start the child with, if anything.
const COMMAND: &str = r#"
echo "start $$ $PPID $SD_ELECTION_TOKEN" >> "$1"
$3 sh -c "$2" sh "$1" &
wait
exec sleep 1000
"#;

/// Tells its process and the times at which it lived. It ends with the folder that it writes to.
const CHILD: &str = r#"
echo "child $$" >> "$1"
while :; do read -r up rest < /proc/uptime; echo "$up" >> "$1" || exit; sleep 0.01; done
"#;

/// How a child leaves the process group of its parent: by a program that has one of its own, by a session of its own, and by one whose
/// parent ends at once.
pub(crate) const WAYS_OUT: [&str; 3] = ["timeout 1000", "setsid", "setsid --fork"];

pub(crate) struct Beating {
    folder: TempDir,
    stubborn: bool,
    way_out: &'static str,
}

/// One run of the command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) command: Pid,
    pub(crate) child: Pid,
    pub(crate) watchdog: Pid,
    pub(crate) token: Option<u64>,
}

impl Beating {
    /// Ends when it is asked to.
    pub(crate) fn docile() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            stubborn: false,
            way_out: "",
        }
    }

    /// Takes no notice of SIGTERM.
    pub(crate) fn stubborn() -> Self {
        Self {
            stubborn: true,
            ..Self::docile()
        }
    }

    /// With its child somewhere else than in its process group.
    pub(crate) fn by(self, way_out: &'static str) -> Self {
        Self { way_out, ..self }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("signs")
    }

    /// Its command line.
    pub(crate) fn command(&self) -> Vec<String> {
        let trap = if self.stubborn { "trap '' TERM" } else { "" };
        let [command, child] = [COMMAND, CHILD].map(|script| format!("{trap}{script}"));
        let file = self.file().display().to_string();
        ["sh", "-c", &command, "sh", &file, &child, self.way_out]
            .map(str::to_owned)
            .into()
    }

    /// `first`, then the command line.
    pub(crate) fn after(&self, first: &[&str]) -> Vec<String> {
        let first = first.iter().map(|&argument| argument.to_owned());
        first.chain(self.command()).collect()
    }

    /// Waits for the run with this number, from 1 on, to show that it lives.
    pub(crate) async fn run(&self, number: usize) -> Run {
        within_limit(async || {
            let text = self.read();
            let (_, this) = text.split("start ").enumerate().nth(number)?;
            let mut lines = this.lines();
            let mut starts = lines.next()?.split(' ');
            let mut pid = || Pid::from_raw(starts.next()?.parse().ok()?);
            let (command, watchdog) = (pid()?, pid()?);
            let token = starts.next()?.parse().ok();
            let child = this.lines().find_map(|line| line.strip_prefix("child "))?;
            let child = Pid::from_raw(child.parse().ok()?)?;
            this.lines().find_map(sign)?;
            Some(Run {
                command,
                child,
                watchdog,
                token,
            })
        })
        .await
    }

    /// How often it was run.
    pub(crate) fn runs(&self) -> usize {
        self.read().matches("start ").count()
    }

    /// The last sign of life. `/proc/uptime` is the boot clock cut to hundredths of a second, so it may have come 10 ms later.
    pub(crate) fn last_sign(&self) -> Moment {
        let text = self.read();
        // The last line may not be whole.
        let whole = text.rsplit_once('\n').unwrap_or_default().0;
        let last = whole.lines().rev().find_map(sign);
        last.expect("a sign of life")
    }

    /// Waits for a sign of life from after `moment`.
    pub(crate) async fn lives_after(&self, moment: Moment) {
        within_limit(async || (self.last_sign() > moment).then_some(())).await;
    }

    fn read(&self) -> String {
        fs::read_to_string(self.file()).unwrap_or_default()
    }
}

impl Run {
    /// Waits until nothing of it is left, watchdog included.
    pub(crate) async fn is_over(&self) {
        for process in [self.command, self.child, self.watchdog] {
            is_dead(process).await;
        }
    }
}

fn sign(line: &str) -> Option<Moment> {
    let (seconds, hundredths) = line.split_once('.')?;
    let millis = seconds.parse::<u64>().ok()? * 1000 + hundredths.parse::<u64>().ok()? * 10;
    Some(Moment::from_start(Duration::from_millis(millis)))
}

/// Waits until a process has ended; whether its parent has asked how does not matter.
pub(crate) async fn is_dead(process: Pid) {
    within_limit(async || (!is_alive(process)).then_some(())).await;
}

pub(crate) fn is_alive(process: Pid) -> bool {
    !matches!(state(process), None | Some('Z'))
}

/// Waits until a process is stopped.
pub(crate) async fn is_stopped(process: Pid) {
    within_limit(async || (state(process) == Some('T')).then_some(())).await;
}

fn state(process: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid())).ok()?;
    // It comes after the name, which is between parentheses.
    stat.rsplit_once(") ")?.1.chars().next()
}

pub(crate) fn signal(process: Pid, signal: Signal) {
    kill_process(process, signal).unwrap();
}

/// What `look` finds, sooner or later.
pub(crate) async fn within_limit<T>(look: impl AsyncFn() -> Option<T>) -> T {
    let found = timeout(LIMIT, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.expect("it happens")
}
