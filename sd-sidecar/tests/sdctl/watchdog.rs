//! The watchdog alone, with the test in the place of `sdctl`.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use sd_core::clock::{BootClock, Clock, Moment};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::beating::{Beating, WAYS_OUT, is_dead, is_stopped, signal, within_limit};
use crate::running::{LIMIT, ended, send};

const FAR: Duration = Duration::from_secs(100);
/// What a busy machine may take to run a process that is due.
const SLACK: Duration = Duration::from_secs(2);

struct Watchdog {
    child: Child,
    orders: OwnedWriteHalf,
    report: Lines<BufReader<OwnedReadHalf>>,
}

impl Watchdog {
    async fn start(command: &[String], stop_at: Moment, kill_at: Moment) -> Self {
        let (ours, its) = UnixStream::pair().unwrap();
        let its = its.into_std().unwrap();
        its.set_nonblocking(false).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sdctl"))
            .arg("__watchdog")
            .args(command)
            .stdin(OwnedFd::from(its))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (report, orders) = ours.into_split();
        let report = BufReader::new(report).lines();
        let mut watchdog = Self {
            child,
            orders,
            report,
        };
        watchdog.order(stop_at, kill_at).await;
        watchdog
    }

    async fn order(&mut self, stop_at: Moment, kill_at: Moment) {
        let [stop_at, kill_at] = [stop_at, kill_at].map(|at| at.since_start().as_nanos());
        self.say(&format!("{stop_at} {kill_at}\n")).await;
    }

    async fn say(&mut self, line: &str) {
        self.orders.write_all(line.as_bytes()).await.unwrap();
    }

    /// What it says last, once it has ended and no process holds the output any more that it shares with the command.
    async fn report(&mut self) -> String {
        let report = timeout(LIMIT, self.report.next_line()).await;
        let report = report.expect("a report").unwrap().expect("a report");
        assert_eq!(self.report.next_line().await.unwrap(), None);
        assert!(ended(&mut self.child).await.success());
        let mut output = String::new();
        let mut pipe = self.child.stdout.take().unwrap();
        let read = timeout(LIMIT, pipe.read_to_string(&mut output)).await;
        read.expect("nothing is left of the command").unwrap();
        report
    }
}

fn after(seconds: f64) -> Moment {
    BootClock.now() + Duration::from_secs_f64(seconds)
}

fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).into()
}

#[tokio::test]
async fn a_command_that_ends_by_itself_is_reported_with_its_status() {
    for (script, report) in [
        ("exit 0", "exited 0"),
        ("exit 3", "exited 3"),
        ("kill -9 $$", "exited 137"),
        // What it leaves behind ends with it.
        ("sleep 1000 & exit 4", "exited 4"),
        ("exec /nonexistent/command", "exited 127"),
        // It was asked to stop, and did.
        ("kill -TERM $$", "exited 0"),
    ] {
        let mut watchdog = Watchdog::start(&shell(script), after(100.0), after(101.0)).await;
        assert_eq!(watchdog.report().await, report, "{script}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_run_ends_as_in_a_shell() {
    for (program, report) in [("/nonexistent", "exited 127"), ("/", "exited 126")] {
        let command = [program.to_owned()];
        let mut watchdog = Watchdog::start(&command, after(100.0), after(101.0)).await;
        assert_eq!(watchdog.report().await, report, "{program}");
    }
}

#[tokio::test]
async fn without_new_orders_a_command_is_asked_at_its_deadline_and_then_killed() {
    let stubborn = Beating::stubborn();
    let (stop_at, kill_at) = (after(3.0), after(4.0));
    let mut watchdog = Watchdog::start(&stubborn.command(), stop_at, kill_at).await;
    let run = stubborn.run(1).await;
    assert_eq!(watchdog.report().await, "stopped 137");
    run.is_over().await;
    let last = stubborn.last_sign();
    assert!(last > stop_at, "it took no notice of being asked");
    assert!(last < kill_at + SLACK, "{last:?} {kill_at:?}");

    let docile = Beating::docile();
    let (stop_at, kill_at) = (after(3.0), after(3.0) + FAR);
    let mut watchdog = Watchdog::start(&docile.command(), stop_at, kill_at).await;
    docile.run(1).await;
    assert_eq!(watchdog.report().await, "stopped 0");
    let last = docile.last_sign();
    assert!(last < stop_at + SLACK, "{last:?} {stop_at:?}");
}

#[tokio::test]
async fn new_orders_keep_a_command_running_until_they_are_over_too() {
    let docile = Beating::docile();
    let first = after(5.0);
    let mut watchdog = Watchdog::start(&docile.command(), first, first + FAR).await;
    docile.run(1).await;
    let second = after(6.0);
    watchdog.order(second, second + FAR).await;
    docile.lives_after(first + Duration::from_millis(100)).await;
    assert_eq!(watchdog.report().await, "stopped 0");
    assert!(docile.last_sign() < second + SLACK);
}

#[tokio::test]
async fn once_it_was_asked_to_stop_no_orders_help_a_command() {
    let told = Told::new();
    let script = format!(
        "trap '{}' TERM; {}",
        told.tell("asked"),
        told.tell_and_wait("ready")
    );
    let now = BootClock.now();
    let mut watchdog = Watchdog::start(&shell(&script), now + FAR, now + FAR * 2).await;
    told.hear("ready").await;
    watchdog.order(now, after(1.0)).await;
    told.hear("asked").await;
    watchdog.order(now + FAR, now + FAR * 2).await;
    assert_eq!(watchdog.report().await, "stopped 137");
}

#[tokio::test]
async fn a_command_whose_time_is_over_is_not_started() {
    let docile = Beating::docile();
    let past = BootClock.now();
    let mut watchdog = Watchdog::start(&docile.command(), past, past + FAR).await;
    assert_eq!(watchdog.report().await, "stopped 0");
    assert_eq!(docile.runs(), 0);
}

#[tokio::test]
async fn a_command_is_stopped_at_once_when_no_process_gives_orders_any_more() {
    for garbled in [None, Some("nonsense\n")] {
        let stubborn = Beating::stubborn();
        let now = BootClock.now();
        let stop_at = now + FAR;
        let kill_at = stop_at + Duration::from_secs(1);
        let mut watchdog = Watchdog::start(&stubborn.command(), stop_at, kill_at).await;
        let run = stubborn.run(1).await;
        match garbled {
            Some(garbled) => watchdog.say(garbled).await,
            None => drop(watchdog.orders),
        }
        run.is_over().await;
        assert!(stubborn.last_sign() < now + LIMIT);
    }
}

#[tokio::test]
async fn no_signal_takes_the_watchdog_from_its_command() {
    let docile = Beating::docile();
    let now = BootClock.now();
    let mut watchdog = Watchdog::start(&docile.command(), now + FAR, now + FAR * 2).await;
    let run = docile.run(1).await;
    for signal in [
        Signal::TERM,
        Signal::INT,
        Signal::HUP,
        Signal::QUIT,
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::POWER,
        Signal::TSTP,
        Signal::TTIN,
        Signal::TTOU,
    ] {
        send(&watchdog.child, signal);
    }
    docile
        .lives_after(BootClock.now() + Duration::from_millis(100))
        .await;
    signal(run.command, Signal::KILL);
    assert_eq!(watchdog.report().await, "exited 137");
}

#[tokio::test]
async fn what_has_left_the_process_group_is_asked_and_killed_like_the_rest() {
    for way_out in WAYS_OUT {
        let docile = Beating::docile().by(way_out);
        let now = BootClock.now();
        let mut watchdog = Watchdog::start(&docile.command(), now + FAR, now + FAR * 2).await;
        let run = docile.run(1).await;
        watchdog.order(now, now + FAR).await;
        assert_eq!(watchdog.report().await, "stopped 0", "{way_out}");
        run.is_over().await;
        assert!(docile.last_sign() < now + LIMIT, "{way_out}");

        let stubborn = Beating::stubborn().by(way_out);
        let now = BootClock.now();
        let mut watchdog = Watchdog::start(&stubborn.command(), now + FAR, now + FAR * 2).await;
        let run = stubborn.run(1).await;
        watchdog.order(now, after(0.5)).await;
        assert_eq!(watchdog.report().await, "stopped 137", "{way_out}");
        run.is_over().await;
    }
}

#[tokio::test]
async fn what_has_left_the_process_group_ends_with_the_command() {
    for way_out in WAYS_OUT {
        let docile = Beating::docile().by(way_out);
        let now = BootClock.now();
        let mut watchdog = Watchdog::start(&docile.command(), now + FAR, now + FAR * 2).await;
        let run = docile.run(1).await;
        signal(run.command, Signal::KILL);
        assert_eq!(watchdog.report().await, "exited 137", "{way_out}");
        run.is_over().await;
    }
}

#[tokio::test]
async fn what_starts_itself_again_and_again_in_new_sessions_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("again");
    let told = Told::new();
    let again = format!(
        "trap '' TERM; {}; setsid --fork sh {}",
        told.tell("alive"),
        file.display()
    );
    std::fs::write(&file, again).unwrap();
    let script = format!("sh {}; exec sleep 1000", file.display());
    let now = BootClock.now();
    let mut watchdog = Watchdog::start(&shell(&script), now + FAR, now + FAR * 2).await;
    told.hear("alive").await;
    watchdog.order(now, now).await;
    assert_eq!(watchdog.report().await, "stopped 137");
}

#[tokio::test]
async fn a_command_that_is_stopped_is_woken_to_hear_that_it_has_to_end() {
    for (beating, grace, report) in [
        (Beating::docile(), FAR, "stopped 0"),
        (
            Beating::stubborn(),
            Duration::from_millis(500),
            "stopped 137",
        ),
    ] {
        let now = BootClock.now();
        let mut watchdog = Watchdog::start(&beating.command(), now + FAR, now + FAR * 2).await;
        let run = beating.run(1).await;
        for process in [run.command, run.child] {
            signal(process, Signal::STOP);
            is_stopped(process).await;
        }
        let now = BootClock.now();
        watchdog.order(now, now + grace).await;
        assert_eq!(watchdog.report().await, report);
        run.is_over().await;
    }
}

#[tokio::test]
async fn a_watchdog_without_orders_sleeps_until_the_command_has_to_die() {
    let stubborn = Beating::stubborn();
    let now = BootClock.now();
    let watchdog = Watchdog::start(&stubborn.command(), now + FAR, now + FAR * 2).await;
    let run = stubborn.run(1).await;
    let before = processor_time(run.watchdog);
    drop(watchdog.orders);
    drop(watchdog.report);
    let deserted = BootClock.now();
    stubborn
        .lives_after(deserted + Duration::from_secs(2))
        .await;
    let took = processor_time(run.watchdog).saturating_sub(before);
    assert!(took < Duration::from_millis(500), "{took:?}");
    signal(run.child, Signal::KILL);
    signal(run.command, Signal::KILL);
    run.is_over().await;
}

/// What a process has computed so far.
fn processor_time(process: Pid) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid())).unwrap();
    // The state is the third field, after a name in parentheses.
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let times = rest.split(' ').skip(11).take(2);
    let ticks: u64 = times.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::test]
async fn the_kernel_kills_the_command_of_a_watchdog_that_is_killed() {
    let stubborn = Beating::stubborn();
    let now = BootClock.now();
    let watchdog = Watchdog::start(&stubborn.command(), now + FAR, now + FAR * 2).await;
    let run = stubborn.run(1).await;
    send(&watchdog.child, Signal::KILL);
    is_dead(run.command).await;
    // Only `sdctl` kills the others.
    signal(run.child, Signal::KILL);
}

#[tokio::test]
async fn all_of_the_group_have_the_time_to_stop_that_one_of_them_needs() {
    let told = Told::new();
    // The shell ends at once, its child needs a while.
    let script = format!(
        "(trap 'sleep 0.5; {}; exit' TERM; {}) & wait",
        told.tell("tidied"),
        told.tell_and_wait("ready")
    );
    let now = BootClock.now();
    let mut watchdog = Watchdog::start(&shell(&script), now + FAR, now + FAR * 2).await;
    told.hear("ready").await;
    watchdog.order(now, now + FAR).await;
    assert_eq!(watchdog.report().await, "stopped 0");
    told.hear("tidied").await;
}

/// What a shell script says in a file.
struct Told(tempfile::TempDir);

impl Told {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("told")
    }

    fn tell(&self, word: &str) -> String {
        format!("echo {word} >> {}", self.file().display())
    }

    fn tell_and_wait(&self, word: &str) -> String {
        let folder = self.0.path().display();
        format!(
            "{}; while [ -d {folder} ]; do sleep 0.01; done",
            self.tell(word)
        )
    }

    async fn hear(&self, word: &str) {
        let heard = async || {
            let text = std::fs::read_to_string(self.file()).unwrap_or_default();
            text.lines().any(|line| line == word).then_some(())
        };
        within_limit(heard).await;
    }
}
