//! What signals do, where the kernel or another program does something special.

use std::fs;
use std::process::Stdio;

use rustix::process::{Pid, Signal, getuid};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::beating::{Beating, is_stopped, signal, within_limit};
use crate::running::{Running, command, ended};

const MEMORY: &str = "memory://";

/// A command that says when it runs.
const UP: &str = "echo up; exec sleep 1000";

/// The first process of a container: the only child of the `unshare` that made the container.
async fn first_process(unshare: Pid) -> Pid {
    let path = format!("/proc/{0}/task/{0}/children", unshare.as_raw_pid());
    within_limit(async || {
        let children = fs::read_to_string(&path).ok()?;
        Pid::from_raw(children.trim().parse().ok()?)
    })
    .await
}

#[tokio::test]
async fn as_the_first_process_of_a_container_each_command_ends_when_it_is_asked_to() {
    if !getuid().is_root() {
        eprintln!("skipped: only root makes a container with unshare");
        return;
    }
    for (arguments, asked, status) in [
        (&["watch", "greeter"][..], Signal::TERM, 128 + 15),
        (&["leader", "a", "--watch"], Signal::INT, 128 + 2),
        (&["services", "--watch"], Signal::HUP, 128 + 1),
        (&["wait-for", "greeter"], Signal::TERM, 128 + 15),
        (&["register", "greeter", "h:1"], Signal::TERM, 0),
        (&["elect", "a"], Signal::TERM, 0),
        (&["elect", "a", "--", "sh", "-c", UP], Signal::INT, 0),
        (
            &[
                "register",
                "s",
                "h:1",
                "--drain-for",
                "0s",
                "--",
                "sh",
                "-c",
                UP,
            ],
            Signal::TERM,
            0,
        ),
    ] {
        let unshare = ["unshare", "-pf", "--mount-proc", "--kill-child"];
        let sdctl = command(MEMORY, arguments);
        let mut unshare = Command::new(unshare[0])
            .args(&unshare[1..])
            .arg(sdctl.as_std().get_program())
            .args(sdctl.as_std().get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(unshare.id().unwrap().try_into().unwrap()).unwrap();
        let first = first_process(pid).await;
        let caught = 1u64 << (asked.as_raw() - 1);
        within_limit(async || {
            let status = fs::read_to_string(format!("/proc/{}/status", first.as_raw_pid())).ok()?;
            let mask = status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))?;
            let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
            (mask & caught != 0).then_some(())
        })
        .await;
        if arguments.contains(&UP) {
            let mut lines = BufReader::new(unshare.stdout.take().unwrap()).lines();
            while lines.next_line().await.unwrap().expect("more lines") != "up" {}
        }
        signal(first, asked);
        let ended = ended(&mut unshare).await;
        assert_eq!(ended.code(), Some(status), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_watch_dies_of_the_signal_that_ends_it() {
    use std::os::unix::process::ExitStatusExt;

    for asked in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut watch = Running::start(MEMORY, &["watch", "greeter"]);
        watch.line().await.unwrap();
        watch.signal(asked);
        assert_eq!(watch.end().await.0.signal(), Some(asked.as_raw()));
    }
}

#[tokio::test]
async fn asked_to_pause_it_gives_up_what_it_leads_and_campaigns_again_when_it_goes_on() {
    let beating = Beating::docile();
    let arguments = beating.after(&["elect", "a", "--json", "--ttl", "100s", "--"]);
    let mut elect = Running::start(MEMORY, &arguments);
    elect.json_where(|event| event["event"] == "elected").await;
    let run = beating.run(1).await;
    elect.signal(Signal::TSTP);
    let ended = elect.json_where(|event| event["event"] == "ended").await;
    assert_eq!(ended["reason"], "resigned");
    run.is_over().await;
    is_stopped(elect.pid()).await;

    elect.signal(Signal::CONT);
    elect.json_where(|event| event["event"] == "elected").await;
    let run = beating.run(2).await;
    elect.signal(Signal::TERM);
    let (status, _, stderr) = elect.end().await;
    assert!(status.success(), "{stderr}");
    run.is_over().await;
}

#[tokio::test]
async fn a_request_to_stop_wins_over_one_to_pause() {
    // It takes its time to pause.
    let beating = Beating::stubborn();
    let arguments = beating.after(&["elect", "a", "--ttl", "8s", "--"]);
    let elect = Running::start(MEMORY, &arguments);
    let run = beating.run(1).await;
    elect.signal(Signal::TSTP);
    elect.signal(Signal::TERM);
    let (status, _, stderr) = elect.end().await;
    assert_eq!(status.code(), Some(128 + 9), "{stderr}");
    run.is_over().await;
}
