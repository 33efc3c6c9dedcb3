//! Elections that one process can hold with itself.

use std::process::Stdio;
use std::time::Duration;

use rustix::io::dup;
use rustix::pipe::{fcntl_setpipe_size, pipe};
use rustix::process::{Pid, Signal, kill_process};
use sd_core::clock::{BootClock, Clock};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::beating::{Beating, WAYS_OUT, is_alive, is_dead, signal};
use crate::running::{LIMIT, Running, command, ended, failure, sdctl, send};

const MEMORY: &str = "memory://";

fn events(lines: &[String]) -> Vec<Value> {
    let events = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    events.collect()
}

#[tokio::test]
async fn a_mistake_is_answered_before_anything_is_sent() {
    for (arguments, hint) in [
        ("elect", "<NAME>"),
        ("elect /a", "election name"),
        ("elect a --ttl 0s", "ttl"),
        ("elect a --ttl 4s --stop-margin 2s", "stop margin"),
        ("elect a --value=", "value"),
        ("elect a sleep 1", "sdctl elect --help"),
        ("leader a//b", "election name"),
    ] {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let line = failure(&sdctl(MEMORY, &arguments).await);
        assert!(line.contains(hint), "{arguments:?}: {line}");
    }
    for command in ["elect", "leader"] {
        let line = failure(&sdctl("file:///nonexistent/x.json", &[command, "a"]).await);
        assert!(line.contains("no elections"), "{line}");
    }
}

#[tokio::test]
async fn each_signal_resigns_and_ends_with_success() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut elect = Running::start(MEMORY, &["elect", "reports/nightly", "--json"]);
        let elected = elect.json_where(|_| true).await;
        assert_eq!(elected["event"], "elected");
        assert_eq!(elected["name"], "reports/nightly");
        assert!(elected["token"].is_u64() && elected["id"].is_string());
        let now = u64::try_from(BootClock.now().since_start().as_nanos()).unwrap();
        let then = elected["t_boottime_ns"].as_u64().unwrap();
        assert!((1..now).contains(&then), "{then} {now}");

        elect.signal(signal);
        let (status, rest, stderr) = elect.end().await;
        assert!(status.success(), "{stderr}");
        let [ended] = events(&rest).try_into().unwrap();
        assert_eq!(
            (&ended["event"], &ended["reason"]),
            (&"ended".into(), &"resigned".into())
        );
        for field in ["name", "id", "token", "token_domain"] {
            assert_eq!(ended[field], elected[field]);
        }
        assert!(ended["error"].is_null() && ended["t_boottime_ns"].as_u64() > Some(then));
        assert_eq!(stderr, "");
    }
}

#[tokio::test]
async fn a_command_knows_its_term_and_its_status_is_the_commands() {
    let script = r#"echo "$SD_ELECTION_NAME $SD_ELECTION_VALUE $SD_ELECTION_ID $SD_ELECTION_TOKEN $SD_ELECTION_TOKEN_DOMAIN" >&2
                    cat; echo to stdout; exit 7"#;
    let arguments = [
        "elect", "a", "--value", "host 7", "--json", "--", "sh", "-c", script,
    ];
    let elect = Running::start(MEMORY, &arguments);
    let (status, lines, stderr) = elect.end().await;
    assert_eq!(status.code(), Some(7));
    let events = events(&lines);
    let [elected, ended] = events.as_slice() else {
        panic!("{lines:?}");
    };
    assert_eq!(ended["reason"], "resigned");
    let text = |field: &str| elected[field].as_str().unwrap();
    let expected = format!(
        "a host 7 {} {} {}\nto stdout\n",
        text("id"),
        elected["token"],
        text("token_domain")
    );
    assert_eq!(stderr, expected);
}

#[tokio::test]
async fn neither_the_command_nor_the_watchdog_has_what_sdctl_opens_the_registry_with() {
    let script =
        r#"echo "${SDCTL_REGISTRY-none} ${OTHER-none}"; tr '\0' '\n' < /proc/$PPID/environ"#;
    let mut elect = Command::new(env!("CARGO_BIN_EXE_sdctl"));
    let elect = elect
        .args(["elect", "a", "--", "sh", "-c", script])
        .env("SDCTL_REGISTRY", "memory://")
        .env("OTHER", "kept")
        .stdin(Stdio::null());
    let output = timeout(LIMIT, elect.output())
        .await
        .expect("it ends")
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("none kept") && text.contains("SD_ELECTION_TOKEN="),
        "{text}"
    );
    assert!(!text.contains("SDCTL_REGISTRY"), "{text}");
}

#[tokio::test]
async fn people_see_the_commands_output_between_the_steps() {
    let output = sdctl(MEMORY, &["elect", "a", "--", "echo", "hello"]).await;
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "elected    a, token 1",
        "hello",
        "ended      a, token 1: resigned",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[tokio::test]
async fn the_exit_status_is_as_in_a_shell() {
    for (command, status) in [
        (&["true"][..], 0),
        (&["false"], 1),
        (&["sh", "-c", "kill -9 $$"], 128 + 9),
        // It was asked to stop, and did.
        (&["sh", "-c", "kill -TERM $$"], 0),
        (&["/nonexistent"], 127),
        (&["/"], 126),
    ] {
        let arguments: Vec<_> = ["elect", "a", "--"].iter().chain(command).collect();
        let output = sdctl(MEMORY, &arguments).await;
        assert_eq!(output.status.code(), Some(status), "{command:?}");
    }
}

#[tokio::test]
async fn a_signal_stops_the_command_before_the_term_ends() {
    for (beating, expected) in [(Beating::docile(), 0), (Beating::stubborn(), 128 + 9)] {
        let arguments = beating.after(&["elect", "a", "--json", "--ttl", "3s", "--"]);
        let mut elect = Running::start(MEMORY, &arguments);
        elect.json_where(|event| event["event"] == "elected").await;
        let run = beating.run(1).await;
        elect.signal(Signal::TERM);
        let ended = elect.json_where(|event| event["event"] == "ended").await;
        assert_eq!(ended["reason"], "resigned");
        let last = beating.last_sign().since_start().as_nanos();
        assert!(last < u128::from(ended["t_boottime_ns"].as_u64().unwrap()));
        run.is_over().await;
        let (status, _, stderr) = elect.end().await;
        assert_eq!(status.code(), Some(expected), "{stderr}");
    }
}

#[tokio::test]
async fn a_second_signal_kills_the_command_at_once_and_resigns() {
    for (first, second) in [
        (Signal::INT, Signal::INT),
        (Signal::TERM, Signal::INT),
        (Signal::HUP, Signal::TERM),
    ] {
        let beating = Beating::stubborn();
        // It would have 20 s to stop.
        let arguments = beating.after(&["elect", "a", "--json", "--ttl", "100s", "--"]);
        let elect = Running::start(MEMORY, &arguments);
        let run = beating.run(1).await;
        elect.signal(first);
        // Long enough that the two are not taken for one.
        let asked = BootClock.now();
        beating.lives_after(asked + Duration::from_secs(2)).await;
        elect.signal(second);
        let (status, lines, stderr) = elect.end().await;
        assert_eq!(status.code(), Some(128 + 9), "{stderr}");
        assert_eq!(events(&lines).last().unwrap()["reason"], "resigned");
        let last = beating.last_sign().since(asked);
        assert!(last < Duration::from_secs(10), "{last:?}");
        run.is_over().await;
    }
}

#[tokio::test]
async fn a_signal_that_comes_twice_at_once_leaves_the_command_its_time() {
    let beating = Beating::stubborn();
    let arguments = beating.after(&["elect", "a", "--ttl", "12s", "--"]);
    let elect = Running::start(MEMORY, &arguments);
    let run = beating.run(1).await;
    let asked = BootClock.now();
    for signal in [Signal::TERM, Signal::TERM, Signal::HUP] {
        elect.signal(signal);
    }
    beating.lives_after(asked + Duration::from_secs(1)).await;
    // A terminal may say so late.
    elect.signal(Signal::HUP);
    beating
        .lives_after(asked + Duration::from_millis(1400))
        .await;
    let (status, _, stderr) = elect.end().await;
    assert_eq!(status.code(), Some(128 + 9), "{stderr}");
    run.is_over().await;
}

#[tokio::test]
async fn the_exit_status_is_the_commands_whichever_process_is_told_to_stop_first() {
    // Whom SIGTERM reaches, in this order: what is sent to a whole service has none.
    #[derive(Clone, Copy, Debug)]
    enum Whom {
        Sdctl,
        Watchdog,
        Command,
    }
    use Whom::{Command, Sdctl, Watchdog};

    for (on_term, expected) in [("", 0), ("trap 'exit 3' TERM", 3)] {
        for order in [
            &[Sdctl, Watchdog, Command][..],
            &[Command, Watchdog, Sdctl],
            &[Watchdog, Command, Sdctl],
            &[Sdctl],
            &[Command],
        ] {
            let script = format!("{on_term}\necho pids $$ $PPID; while :; do sleep 0.01; done");
            let arguments = ["elect", "a", "--ttl", "60s", "--", "sh", "-c", &script];
            let mut elect = Running::start(MEMORY, &arguments);
            // Before or after the line that says that it leads: two processes write them.
            let pids = loop {
                let line = elect.line().await.expect("its processes");
                if let Some(pids) = line.strip_prefix("pids ") {
                    break pids.to_owned();
                }
            };
            let (command, watchdog) = pids.split_once(' ').unwrap();
            let pid = |text: &str| Pid::from_raw(text.parse().unwrap()).unwrap();
            for whom in order {
                match whom {
                    Sdctl => elect.signal(Signal::TERM),
                    Watchdog => send_if_alive(pid(watchdog)),
                    Command => send_if_alive(pid(command)),
                }
            }
            let (status, _, stderr) = elect.end().await;
            assert_eq!(status.code(), Some(expected), "{order:?}: {stderr}");
        }
    }
}

/// The signal before may have ended it already.
fn send_if_alive(process: Pid) {
    let _ = kill_process(process, Signal::TERM);
}

#[tokio::test]
async fn under_nohup_no_process_hears_that_the_terminal_was_closed() {
    let beating = Beating::docile();
    let arguments = beating.after(&["elect", "a", "--"]);
    let elect = Running::start_by(&["nohup"], MEMORY, &arguments);
    let run = beating.run(1).await;
    elect.signal(Signal::HUP);
    for process in [run.watchdog, run.command, run.child] {
        signal(process, Signal::HUP);
    }
    beating
        .lives_after(BootClock.now() + Duration::from_millis(500))
        .await;
    elect.signal(Signal::TERM);
    let (status, _, stderr) = elect.end().await;
    assert!(status.success(), "{stderr}");
    assert_eq!(beating.runs(), 1);
    run.is_over().await;
}

#[tokio::test]
async fn the_command_does_not_go_on_whichever_process_dies_first() {
    // Who is killed, in this order.
    #[derive(Clone, Copy, Debug)]
    enum Victim {
        Sdctl,
        Watchdog,
    }
    use Victim::{Sdctl, Watchdog};

    let alone = [&[Sdctl][..], &[Watchdog]];
    let both = [&[Sdctl, Watchdog][..], &[Watchdog, Sdctl]];
    let ways_out = WAYS_OUT.into_iter().chain([""]);
    let alone = ways_out.flat_map(|way_out| alone.map(|victims| (way_out, victims)));
    for (way_out, victims) in alone.chain(both.map(|victims| ("", victims))) {
        let beating = Beating::stubborn().by(way_out);
        let elect = Running::start(MEMORY, &beating.after(&["elect", "a", "--ttl", "8s", "--"]));
        let run = beating.run(1).await;
        for victim in victims {
            match victim {
                Sdctl => elect.signal(Signal::KILL),
                Watchdog => signal(run.watchdog, Signal::KILL),
            }
        }
        is_dead(run.command).await;
        if victims.len() == 1 {
            run.is_over().await;
        } else {
            // What it started is killed by one of them, as long as that one lives.
            let _ = kill_process(run.child, Signal::KILL);
        }
    }
}

#[tokio::test]
async fn children_that_sdctl_had_before_are_none_of_its_business() {
    let beating = Beating::stubborn().by("setsid");
    let script = r#"sleep 1000 > /dev/null 2>&1 & echo $!; exec "$@""#;
    let arguments = beating.after(&["elect", "a", "--"]);
    let mut elect = Running::start_by(&["sh", "-c", script, "sh"], MEMORY, &arguments);
    let stranger = elect.line().await.expect("the stranger");
    let stranger = Pid::from_raw(stranger.parse().unwrap()).unwrap();
    let run = beating.run(1).await;
    signal(run.watchdog, Signal::KILL);
    let (status, _, stderr) = elect.end().await;
    assert_eq!(status.code(), Some(125), "{stderr}");
    run.is_over().await;
    assert!(is_alive(stranger));
    signal(stranger, Signal::KILL);
}

#[tokio::test]
async fn without_its_watchdog_a_command_is_killed_and_the_term_given_up() {
    let beating = Beating::stubborn();
    let arguments = beating.after(&["elect", "a", "--json", "--"]);
    let elect = Running::start(MEMORY, &arguments);
    let run = beating.run(1).await;
    signal(run.watchdog, Signal::KILL);
    let (status, lines, stderr) = elect.end().await;
    assert_eq!(status.code(), Some(125));
    assert!(stderr.contains("the watchdog has died"), "{stderr}");
    assert_eq!(events(&lines).last().unwrap()["reason"], "resigned");
    run.is_over().await;
}

#[tokio::test]
async fn a_frozen_watchdog_is_not_waited_for() {
    let beating = Beating::stubborn();
    let elect = Running::start(MEMORY, &beating.after(&["elect", "a", "--ttl", "2s", "--"]));
    let run = beating.run(1).await;
    signal(run.watchdog, Signal::STOP);
    elect.signal(Signal::TERM);
    let (status, _, stderr) = elect.end().await;
    assert_eq!(status.code(), Some(128 + 9), "{stderr}");
    run.is_over().await;
}

#[tokio::test]
async fn a_frozen_sdctl_loses_term_and_command_and_campaigns_again_when_it_wakes() {
    let beating = Beating::stubborn();
    let mut elect = Running::start(
        MEMORY,
        &beating.after(&["elect", "a", "--json", "--ttl", "2s", "--"]),
    );
    let first = elect.json_where(|event| event["event"] == "elected").await;
    let run = beating.run(1).await;
    elect.signal(Signal::STOP);
    is_dead(run.command).await;
    is_dead(run.child).await;
    elect.signal(Signal::CONT);
    let ended = elect.json_where(|event| event["event"] == "ended").await;
    assert_eq!(ended["token"], first["token"]);
    assert_ne!(ended["reason"], "resigned");
    let again = elect.json_where(|event| event["event"] == "elected").await;
    assert!(again["token"].as_u64() > first["token"].as_u64());
    let run = beating.run(2).await;
    assert_eq!(run.token, again["token"].as_u64());
    elect.signal(Signal::TERM);
    let (status, _, stderr) = elect.end().await;
    assert_eq!(status.code(), Some(128 + 9), "{stderr}");
    run.is_over().await;
}

#[tokio::test]
async fn a_reader_who_does_not_read_holds_nothing_up() {
    let (_unread, write) = pipe().unwrap();
    let capacity = fcntl_setpipe_size(&write, 4096).unwrap();
    rustix::io::write(&write, &vec![b'\n'; capacity]).unwrap();
    let beating = Beating::docile();
    let ttl = Duration::from_secs(4);
    let mut elect = command(MEMORY, &beating.after(&["elect", "a", "--ttl", "4s", "--"]))
        .stdout(Stdio::from(dup(&write).unwrap()))
        .spawn()
        .unwrap();
    let run = beating.run(1).await;
    beating.lives_after(BootClock.now() + ttl * 2).await;
    assert_eq!(beating.runs(), 1, "its term went on");
    send(&elect, Signal::TERM);
    assert!(ended(&mut elect).await.success());
    run.is_over().await;
}

#[tokio::test]
async fn that_none_leads_is_told_and_is_a_status_of_its_own() {
    let no_leader = sdctl(MEMORY, &["leader", "a"]).await;
    assert_eq!(no_leader.status.code(), Some(4));
    assert_eq!(no_leader.stdout, b"a: no leader\n");
    let output = sdctl(MEMORY, &["leader", "a", "--json"]).await;
    assert_eq!(output.status.code(), Some(4));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["name"], "a");
    assert_eq!(
        (&told["leader"], &told["status"]),
        (&Value::Null, &"live".into())
    );
    let mut watch = Running::start(MEMORY, &["leader", "a", "--watch", "--json"]);
    let mut watched = watch.json_where(|_| true).await;
    assert!(watched.as_object_mut().unwrap().remove("time").is_some());
    assert_eq!(watched, told);
}
