//! The quickstart, as a newcomer runs it.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Several times what it takes, for a busy machine.
const LIMIT: Duration = Duration::from_mins(5);

fn quickstart(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs it to the end, which must be a good one.
async fn tells_its_story(arguments: &[&str]) {
    let output = timeout(LIMIT, quickstart(arguments).output());
    let output = output.await.expect("it ends").unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}{stderr}");
    assert_eq!(stderr, "", "{text}");
    for part in [
        "a fourth joins",
        "b is killed without notice",
        "c is out of the set",
        "c answers again",
        "the registry has forgotten b",
        "x is elected",
        "y is elected",
        "x wakes and its write is refused: the token",
        "ms from register to first call",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // The killed and the frozen server had calls in flight.
    let summary = text
        .lines()
        .find(|line| line.ends_with("to another endpoint"));
    let summary = summary.expect("a summary");
    let numbers: Vec<u64> = summary
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let [calls, failed, sent_again] = numbers[..] else {
        panic!("{summary}");
    };
    assert!(calls > 100 && failed == 0 && sent_again > 1, "{summary}");
    // Without a terminal, nothing is redrawn.
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[tokio::test]
async fn no_call_fails_while_servers_come_go_die_and_fall_silent() {
    tells_its_story(&[]).await;
}

#[tokio::test]
async fn misuse_is_answered_with_the_usage() {
    let output = quickstart(&["--nonsense"]).output().await.unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "quickstart: usage: quickstart [--registry URL]\n");
}

/// On one line, before anything starts.
async fn is_refused(registry: &str) -> String {
    let output = quickstart(&["--registry", registry]).output();
    let output = timeout(LIMIT, output).await.expect("it ends").unwrap();
    assert!(!output.status.success());
    assert_eq!(output.stdout, b"");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

#[tokio::test]
async fn a_registry_that_can_only_be_read_is_refused_in_words() {
    let stderr = is_refused("file:///services.json").await;
    assert!(stderr.contains("can only be read"), "{stderr}");
}

#[cfg(feature = "dns")]
#[tokio::test]
async fn for_names_of_dns_another_example_is_named() {
    let stderr = is_refused("dns:///prod.local?port=50051").await;
    assert!(stderr.contains("can only be read"), "{stderr}");
    assert!(
        stderr.contains("--bin headless_grpc --features dns"),
        "{stderr}"
    );
}

/// Before it looks for a service, of which there is none.
#[cfg(feature = "cluster")]
#[tokio::test]
async fn for_modules_without_elections_another_example_is_named() {
    let stderr = is_refused("isp://127.0.0.1:1/?module_name=quickstart").await;
    assert!(stderr.contains("has no elections"), "{stderr}");
    assert!(
        stderr.contains("--bin isp_module --features cluster"),
        "{stderr}"
    );
}

#[cfg(feature = "consul")]
mod consul {
    use sd_testing::required_env;

    use super::*;

    #[tokio::test]
    #[ignore = "needs consul: cargo xtask test --backend consul"]
    async fn no_call_fails_with_processes_that_are_killed_and_frozen() {
        let server = required_env("SD_TEST_CONSUL").unwrap();
        let registry = server.replacen("http://", "consul://", 1) + "?lock_delay=1s";
        tells_its_story(&["--registry", &registry]).await;
    }
}

#[cfg(feature = "redis")]
mod redis {
    use sd_testing::required_env;

    use super::*;

    #[tokio::test]
    #[ignore = "needs redis: cargo xtask test --backend redis"]
    async fn no_call_fails_with_processes_that_are_killed_and_frozen() {
        let registry = required_env("SD_TEST_REDIS").unwrap();
        tells_its_story(&["--registry", &registry]).await;
    }
}

#[cfg(feature = "zk")]
mod zk {
    use sd_testing::required_env;

    use super::*;

    #[tokio::test]
    #[ignore = "needs zk: cargo xtask test --backend zk"]
    async fn no_call_fails_with_processes_that_are_killed_and_frozen() {
        let server = required_env("SD_TEST_ZK").unwrap();
        let registry = format!("zk://{server}?session_timeout=8s");
        tells_its_story(&["--registry", &registry]).await;
    }
}

#[cfg(feature = "etcd")]
mod etcd {
    use std::collections::BTreeSet;
    use std::fs;

    use rustix::process::{Pid, Signal, kill_process};
    use sd_testing::{free_port, required_env};
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::time::sleep;

    use super::*;

    fn registry() -> String {
        let server = required_env("SD_TEST_ETCD").unwrap();
        server.replacen("http://", "etcd://", 1) + "/services"
    }

    #[tokio::test]
    #[ignore = "needs etcd: cargo xtask test --backend etcd"]
    async fn no_call_fails_with_processes_that_are_killed_and_frozen() {
        tells_its_story(&["--registry", &registry()]).await;
    }

    #[tokio::test]
    async fn a_registry_that_is_down_is_named_on_one_line() {
        let port = free_port().unwrap();
        let registry = format!("etcd://u:sesame@127.0.0.1:{port}/services");
        let output = quickstart(&["--registry", &registry]).output();
        let output = timeout(LIMIT, output).await.expect("it ends").unwrap();
        assert!(!output.status.success());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("unavailable"), "{stderr}");
        assert!(!stderr.contains("sesame"), "{stderr}");
    }

    fn children(parent: u32) -> BTreeSet<i32> {
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).unwrap();
        let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("children"));
        let lists = tasks.filter_map(|task| of_task(task.unwrap()).ok());
        let lists: Vec<String> = lists.collect();
        let ids = lists.iter().flat_map(|list| list.split_whitespace());
        ids.map(|id| id.parse().unwrap()).collect()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    #[ignore = "needs etcd: cargo xtask test --backend etcd"]
    async fn no_server_outlives_a_story_that_is_killed() {
        let mut story = quickstart(&["--registry", &registry()]).spawn().unwrap();
        let mut lines = BufReader::new(story.stdout.take().unwrap()).lines();
        let in_use = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains("all three are in use") {
                    return;
                }
            }
            panic!("it ended early");
        };
        timeout(LIMIT, in_use).await.expect("three servers");
        let servers = children(story.id().unwrap());
        assert_eq!(servers.len(), 3);
        // A stopped process does nothing by itself.
        let first = Pid::from_raw(*servers.first().unwrap()).unwrap();
        kill_process(first, Signal::STOP).unwrap();

        story.kill().await.unwrap();
        let all_gone = async {
            while servers.iter().any(|id| is_alive(*id)) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, all_gone).await.expect("no server is left");
    }

    /// An ended process may stay in the table until its new parent looks.
    fn is_alive(id: i32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().unwrap_or_default();
        !(state.is_empty() || state.starts_with('Z') || state.starts_with('X'))
    }
}
