//! `sdctl register` with checks and with a command.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use sd_core::clock::{BootClock, Clock};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use crate::beating::{Beating, is_alive, signal};
use crate::electing::is;
use crate::running::{LIMIT, Running, failure, sdctl};

const MEMORY: &str = "memory://";
const ADDRESS: &str = "10.0.0.7:50051";

/// Whether a service is well, for a check to find out.
struct Mark(TempDir);

impl Mark {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("well")
    }

    fn set(&self) {
        fs::write(self.file(), "").unwrap();
    }

    fn remove(&self) {
        fs::remove_file(self.file()).unwrap();
    }

    /// Passes while it is set.
    fn check(&self) -> String {
        let file = self.file();
        format!(
            "command:test -e {},name=mark,interval=100ms",
            file.display()
        )
    }
}

fn register(registry: &str, options: &[&str], command: &[String]) -> Running {
    let first = ["register", "greeter", ADDRESS, "--id", "g-1", "--json"];
    let first = first.iter().chain(options).map(|&word| word.to_owned());
    let dashes = (!command.is_empty()).then(|| "--".to_owned());
    let arguments: Vec<_> = first.chain(dashes).chain(command.iter().cloned()).collect();
    Running::start(registry, &arguments)
}

fn names(lines: &[String]) -> Vec<String> {
    let events = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let names = events.map(|event| event["event"].as_str().unwrap().to_owned());
    names.collect()
}

/// When it was told, as milliseconds of the day.
fn time(event: &Value) -> u64 {
    let time = event["time"].as_str().unwrap();
    let (_, time) = time.trim_end_matches('Z').split_once('T').unwrap();
    let (rest, millis) = time.split_once('.').unwrap();
    let seconds = rest
        .split(':')
        .fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap());
    seconds * 1000 + millis.parse::<u64>().unwrap()
}

fn between(earlier: &Value, later: &Value) -> Duration {
    const DAY: u64 = 24 * 3600 * 1000;
    Duration::from_millis((DAY + time(later) - time(earlier)) % DAY)
}

#[tokio::test]
async fn an_instance_is_registered_once_it_is_well_and_not_ready_while_it_is_not() {
    let mark = Mark::new();
    let mut register = register(MEMORY, &["--check", &mark.check()], &[]);
    let waits = |event: &Value| {
        event["event"] == "waiting" && event["checks"][0]["output"] == "exit status 1"
    };
    let waiting = register.json_where(waits).await;
    assert_eq!(waiting["checks"][0]["name"], "mark");
    assert_eq!(waiting["checks"][0]["state"], "failing");
    mark.set();
    let registered = register
        .json_where(|event| event["event"] != "waiting")
        .await;
    assert_eq!(registered["event"], "registered");
    assert_eq!(registered["ready"], true);

    mark.remove();
    let unhealthy = register.json_where(|_| true).await;
    assert_eq!(unhealthy["event"], "unhealthy");
    assert_eq!(unhealthy["checks"][0]["output"], "exit status 1");
    let updated = register.json_where(|_| true).await;
    assert_eq!(
        (&updated["event"], &updated["ready"]),
        (&"updated".into(), &false.into())
    );
    mark.set();
    assert_eq!(register.json_where(|_| true).await["event"], "healthy");
    let updated = register.json_where(|_| true).await;
    assert_eq!(
        (&updated["event"], &updated["ready"]),
        (&"updated".into(), &true.into())
    );

    register.signal(Signal::TERM);
    let (status, rest, stderr) = register.end().await;
    assert!(status.success(), "{stderr}");
    assert_eq!(names(&rest), ["withdrawn"]);
}

#[tokio::test]
async fn a_process_that_runs_elsewhere_is_checked_at_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let arguments = [
        "register",
        "greeter",
        &address.to_string(),
        "--json",
        "--check",
        "tcp,interval=100ms,fails_after=3",
    ];
    let mut register = Running::start(MEMORY, &arguments);
    register.json_where(is("registered")).await;
    drop(listener);
    let unhealthy = register.json_where(|_| true).await;
    assert_eq!(unhealthy["event"], "unhealthy");
    let output = unhealthy["checks"][0]["output"].as_str().unwrap();
    assert!(output.contains("refused"), "{output}");
    let _listener = TcpListener::bind(address).await.unwrap();
    register.json_where(is("healthy")).await;
}

#[tokio::test]
async fn it_drains_stops_the_command_and_deregisters_in_this_order() {
    let beating = Beating::docile();
    let mut register = register(MEMORY, &["--drain-for", "2s"], &beating.command());
    register.json_where(is("registered")).await;
    let run = beating.run(1).await;
    register.signal(Signal::TERM);
    let draining = register.json_where(|_| true).await;
    assert_eq!(draining["event"], "draining");
    let updated = register.json_where(|_| true).await;
    assert_eq!(
        (&updated["event"], &updated["ready"]),
        (&"updated".into(), &false.into())
    );
    let stopping = register.json_where(|_| true).await;
    assert_eq!(stopping["event"], "stopping");
    assert!(between(&updated, &stopping) >= Duration::from_millis(1990));
    let (status, rest, stderr) = register.end().await;
    // It was asked to stop, and did.
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(names(&rest), ["command_ended", "withdrawn"]);
    run.is_over().await;
}

#[tokio::test]
async fn a_command_that_does_not_stop_in_time_is_killed_and_then_the_record_withdrawn() {
    let beating = Beating::stubborn();
    let options = ["--drain-for", "0s", "--stop-within", "500ms"];
    let mut register = register(MEMORY, &options, &beating.command());
    register.json_where(is("registered")).await;
    let run = beating.run(1).await;
    register.signal(Signal::TERM);
    let stopping = register.json_where(|_| true).await;
    assert_eq!(stopping["event"], "stopping");
    let ended = register.json_where(|_| true).await;
    assert_eq!(
        (&ended["event"], &ended["status"]),
        (&"command_ended".into(), &137.into())
    );
    assert!(between(&stopping, &ended) >= Duration::from_millis(490));
    let (status, rest, stderr) = register.end().await;
    assert_eq!(status.code(), Some(137), "{stderr}");
    assert_eq!(names(&rest), ["withdrawn"]);
    run.is_over().await;
}

#[tokio::test]
async fn a_user_who_insists_is_not_kept_waiting() {
    let beating = Beating::stubborn();
    let options = ["--drain-for", "1h", "--stop-within", "1h"];
    let mut register = register(MEMORY, &options, &beating.command());
    register.json_where(is("registered")).await;
    let run = beating.run(1).await;
    register.signal(Signal::TERM);
    let draining = register.json_where(is("draining")).await;
    let mut others = 0;
    // A second signal counts only when the first one is 1 s old.
    let (status, rest, _) = timeout(LIMIT, async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            others += 1;
            if !is_alive(run.command) {
                return register.end().await;
            }
            register.signal(Signal::TERM);
        }
    })
    .await
    .expect("it ends");
    assert!(others > 4, "{others}");
    assert_eq!(status.code(), Some(137));
    assert_eq!(names(&rest).last().unwrap(), "withdrawn");
    let last: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
    assert!(between(&draining, &last) < LIMIT);
    run.is_over().await;
}

#[tokio::test]
async fn a_command_that_ends_by_itself_is_deregistered_at_once_and_its_status_is_ours() {
    for (script, status) in [("sleep 0.3; exit 7", 7), ("sleep 0.3; kill -9 $$", 137)] {
        let command = ["sh", "-c", script].map(str::to_owned);
        let (exit, lines, stderr) = register(MEMORY, &["--drain-for", "1h"], &command)
            .end()
            .await;
        assert_eq!(exit.code(), Some(status), "{stderr}");
        assert_eq!(names(&lines), ["registered", "command_ended", "withdrawn"]);
        let ended: Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(ended["status"], status);
    }
}

#[tokio::test]
async fn a_command_that_is_killed_while_it_drains_is_deregistered_at_once() {
    let beating = Beating::docile();
    let mut register = register(MEMORY, &["--drain-for", "1h"], &beating.command());
    register.json_where(is("registered")).await;
    let run = beating.run(1).await;
    register.signal(Signal::TERM);
    register.json_where(is("updated")).await;
    signal(run.command, Signal::KILL);
    let (status, rest, _) = register.end().await;
    assert_eq!(status.code(), Some(137));
    assert_eq!(names(&rest), ["command_ended", "withdrawn"]);
    run.is_over().await;
}

#[tokio::test]
async fn a_command_that_never_gets_well_is_never_registered_and_stopped_without_a_drain() {
    let mark = Mark::new();
    let beating = Beating::docile();
    let options = ["--check", &mark.check(), "--drain-for", "1h"];
    let mut register = register(MEMORY, &options, &beating.command());
    register.json_where(is("waiting")).await;
    let run = beating.run(1).await;
    register.signal(Signal::TERM);
    let (status, rest, stderr) = register.end().await;
    assert!(status.success(), "{stderr}");
    let names = names(&rest);
    let names: Vec<_> = names.iter().filter(|name| *name != "waiting").collect();
    assert_eq!(names, ["stopping", "command_ended"]);
    run.is_over().await;
}

#[tokio::test]
async fn one_that_ends_before_it_is_well_was_never_registered() {
    let mark = Mark::new();
    let command = ["sh", "-c", "exit 3"].map(str::to_owned);
    let (status, lines, _) = register(MEMORY, &["--check", &mark.check()], &command)
        .end()
        .await;
    assert_eq!(status.code(), Some(3));
    let names = names(&lines);
    assert!(!names.contains(&"registered".to_owned()), "{names:?}");
    assert_eq!(names.last().unwrap(), "command_ended");
}

#[tokio::test]
async fn sdctl_that_is_killed_leaves_no_command_behind() {
    for beating in [Beating::docile(), Beating::stubborn()] {
        let options = ["--stop-within", "500ms"];
        let mut register = register(MEMORY, &options, &beating.command());
        register.json_where(is("registered")).await;
        let run = beating.run(1).await;
        let killed = BootClock.now();
        register.signal(Signal::KILL);
        run.is_over().await;
        assert!(beating.last_sign() < killed + LIMIT);
    }
}

#[tokio::test]
async fn when_the_watchdog_is_killed_the_command_is_too_and_the_record_withdrawn() {
    let beating = Beating::stubborn();
    let mut register = register(MEMORY, &[], &beating.command());
    register.json_where(is("registered")).await;
    let run = beating.run(1).await;
    signal(run.watchdog, Signal::KILL);
    let (status, rest, stderr) = register.end().await;
    assert_eq!(status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("watchdog"), "{stderr}");
    assert_eq!(names(&rest), ["withdrawn"]);
    run.is_over().await;
}

#[tokio::test]
async fn a_command_knows_its_instance_and_not_how_to_open_the_registry() {
    let script = r#"echo "$SD_SERVICE_NAME $SD_INSTANCE_ID $SD_INSTANCE_ADDRESS ${SDCTL_REGISTRY-none} ${OTHER-none}""#;
    let mut register = Command::new(env!("CARGO_BIN_EXE_sdctl"));
    let register = register
        .args([
            "register", "greeter", ADDRESS, "--id", "g-1", "--json", "--",
        ])
        .args(["sh", "-c", script])
        .env("SDCTL_REGISTRY", MEMORY)
        .env("OTHER", "kept");
    let output = timeout(LIMIT, register.output()).await.expect("it ends");
    let output = output.unwrap();
    // A program that reads our events does not find the command's output in them.
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, format!("greeter g-1 {ADDRESS} none kept\n"));
}

#[tokio::test]
async fn what_can_never_work_is_said_before_the_command_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("started");
    let touch = ["--", "touch", file.to_str().unwrap()];
    for (registry, options, hint) in [
        (MEMORY, &["--check", "tpc"][..], "tcp, http"),
        (MEMORY, &["--check", "tcp,intervall=5s"], "intervall"),
        (MEMORY, &["--check", "ttl:5s"], "another check than ttl"),
        (MEMORY, &["--check", "ttl"], "another check than ttl"),
        (
            MEMORY,
            &["--check", "tcp,name=a", "--check", "http,name=a"],
            "\"a\"",
        ),
        (MEMORY, &["--ttl", "1ms"], "ttl"),
        ("file:///nonexistent/x.json", &[], "only be read"),
    ] {
        let arguments = ["register", "greeter", ADDRESS]
            .iter()
            .chain(options)
            .chain(&touch);
        let arguments: Vec<_> = arguments.collect();
        let output = sdctl(registry, &arguments).await;
        assert_eq!(output.status.code(), Some(2), "{options:?}: {output:?}");
        let line = failure(&output);
        assert!(line.contains(hint), "{options:?}: {line}");
    }
    assert!(!file.exists());
    let arguments = ["register", "greeter", ADDRESS, "--stop-within", "1s"];
    let line = failure(&sdctl(MEMORY, &arguments).await);
    assert!(line.contains("COMMAND"), "{line}");
}

#[tokio::test]
async fn a_command_that_cannot_be_run_ends_as_in_a_shell() {
    for (program, status) in [("/nonexistent", 127), ("/", 126)] {
        let (exit, ..) = register(MEMORY, &[], &[program.to_owned()]).end().await;
        assert_eq!(exit.code(), Some(status), "{program}");
    }
}
