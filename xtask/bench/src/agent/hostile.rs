//! The hostile process: it sends requests as often as it is meant to, and does not care what they do.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::interval;

use crate::{Error, Result};

const PER_SECOND: u32 = 10_000;
const CONNECTIONS: u32 = 32;
/// A registration of nothing.
const BODY: &str = r#"{"tags": ["flood"]}"#;
/// Longer than any answer to it.
const LONGEST: usize = 4096;

/// The process, as seen by the bench. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Hostile {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// What it was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) all: u64,
    /// Because there were too many requests.
    pub(super) refused: u64,
}

impl Hostile {
    /// Starts this program again, as one that floods this address.
    pub(super) fn start(address: SocketAddr) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(format!("--flood={address}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(BufReader::new).ok_or("no stdout")?;
        Ok(Self {
            child,
            stdin,
            stdout,
        })
    }

    /// Ends the flood, and tells what it was answered.
    pub(super) fn stop(mut self) -> Result<Answers> {
        drop(self.stdin.take());
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let (all, refused) = line
            .trim()
            .split_once(' ')
            .ok_or("the hostile process ended without an answer; its output says why")?;
        Ok(Answers {
            all: all.parse()?,
            refused: refused.parse()?,
        })
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the process does, until its input ends. Then it says how many answers it got, and how many were refusals.
pub(crate) fn flood(address: SocketAddr) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let answers = runtime.block_on(async {
        let (stop, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            connections.spawn(flood_over_one(address, stopped.clone()));
        }
        spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
        drop(stop);
        let mut sum = Answers::default();
        for answers in connections.join_all().await {
            let Answers { all, refused } = answers?;
            sum.all += all;
            sum.refused += refused;
        }
        Ok::<_, Error>(sum)
    })?;
    writeln!(io::stdout(), "{} {}", answers.all, answers.refused)?;
    Ok(())
}

/// One request after another over one connection. What could not be sent in time is sent as soon as it can be.
async fn flood_over_one(address: SocketAddr, mut stop: watch::Receiver<()>) -> Result<Answers> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "POST /v1/registrations HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let mut ticks = interval(Duration::from_secs(1) * CONNECTIONS / PER_SECOND);
    let mut answers = Answers::default();
    let mut answer = Vec::with_capacity(LONGEST);
    loop {
        tokio::select! {
            biased;
            // Its sender is gone.
            _ = stop.changed() => return Ok(answers),
            _ = ticks.tick() => {}
        }
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        while !is_whole(&answer) {
            if answer.len() >= LONGEST || stream.read_buf(&mut answer).await? == 0 {
                return Err("the agent's answer has no end".into());
            }
        }
        answers.all += 1;
        answers.refused += u64::from(answer.starts_with(b"HTTP/1.1 429 "));
    }
}

/// Whether what was read is an answer to its end.
fn is_whole(answer: &[u8]) -> bool {
    let Ok(answer) = str::from_utf8(answer) else {
        return false;
    };
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    });
    length == Some(body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_at_the_end_of_its_body() {
        let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}";
        assert!(is_whole(answer));
        for end in 0..answer.len() {
            assert!(!is_whole(&answer[..end]), "{end}");
        }
    }
}
