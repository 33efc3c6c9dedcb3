//! Output that cannot be written: a full disk, a reader that has gone, a reader who does not read.

use std::fs::OpenOptions;
use std::process::Stdio;

use rustix::pipe::{fcntl_setpipe_size, pipe};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Child;

use crate::running::{Running, command, ended, send};

const MEMORY: &str = "memory://";

fn full_disk() -> Stdio {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    full.into()
}

async fn stderr_of(child: &mut Child) -> String {
    let mut text = String::new();
    let mut pipe = child.stderr.take().unwrap();
    pipe.read_to_string(&mut text).await.unwrap();
    text
}

/// Asks a registration to stop that could not tell what it did. It must have gone on, and end well.
async fn goes_on_and_withdraws(registry: &str, stdout: Stdio, said: &str) {
    let mut register = command(registry, &["register", "greeter", "10.0.0.7:50051", "-v"]);
    let register = register.stdout(stdout).stderr(Stdio::piped());
    let mut child = register.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut told = Vec::new();
    let registered = tokio::time::timeout(crate::running::LIMIT, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let done = line.contains("event=\"registered\"");
            told.push(line);
            if done {
                return;
            }
        }
    });
    registered.await.expect("it registers");
    send(&child, Signal::TERM);
    while let Some(line) = lines.next_line().await.unwrap() {
        told.push(line);
    }
    let told = told.join("\n");
    assert!(ended(&mut child).await.success(), "{told}");
    assert!(told.contains("event=\"withdrawn\""), "{told}");
    assert!(told.contains(said), "{told}");
}

#[tokio::test]
async fn a_registration_goes_on_while_nothing_can_be_told() {
    goes_on_and_withdraws(
        MEMORY,
        full_disk(),
        "sdctl: cannot write to stdout: No space",
    )
    .await;

    let (read, write) = pipe().unwrap();
    drop(read);
    goes_on_and_withdraws(MEMORY, write.into(), "").await;

    // One who does not read holds up nothing, and no signal.
    let (_unread, write) = pipe().unwrap();
    let capacity = fcntl_setpipe_size(&write, 4096).unwrap();
    rustix::io::write(&write, &vec![b'\n'; capacity]).unwrap();
    goes_on_and_withdraws(MEMORY, write.into(), "").await;
}

#[tokio::test]
async fn a_stderr_that_cannot_be_written_to_changes_no_exit_status() {
    for (arguments, status) in [
        (&["list", "greeter"][..], 5),
        (&["-vv", "services"], 0),
        (&["services", "--nonsense"], 2),
        (&["drain", "greeter", "g-1"], 5),
        (&["-vv", "elect", "a", "--", "sh", "-c", "exit 7"], 7),
        (&["elect", "a", "--", "/nonexistent"], 127),
    ] {
        let mut command = command(MEMORY, arguments);
        let mut child = command
            .stderr(full_disk())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ended = ended(&mut child).await;
        assert_eq!(ended.code(), Some(status), "{arguments:?}");
    }
}

#[tokio::test]
async fn what_was_only_asked_for_its_output_fails_without_it() {
    for arguments in [
        &["services", "--json"][..],
        &["--help"],
        &["help", "list"],
        &["--version"],
        &["completion", "bash"],
        &["man"],
    ] {
        let mut command = command(MEMORY, arguments);
        let mut child = command
            .stdout(full_disk())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = stderr_of(&mut child).await;
        let status = ended(&mut child).await;
        assert_eq!(status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("cannot write to stdout"),
            "{arguments:?}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn the_log_shows_what_a_list_asks_and_how_long_that_takes() {
    let list = Running::start(MEMORY, &["-v", "list", "greeter"]);
    let (_, _, stderr) = list.end().await;
    for part in ["list \"greeter\"", "answered", "took="] {
        assert!(stderr.contains(part), "{stderr}");
    }
}
