//! Redis, or Valkey, which is started and asked in the same way.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::local_server::{CHECKED_WITHIN, LocalServer, write_once};
use crate::tcp::{self, End};

/// How a Redis or a Valkey is started. It is alone, and keeps each write before it confirms it, unless told otherwise.
#[derive(Clone, Debug)]
pub struct Redis {
    program: PathBuf,
    port: u16,
    is_sentinel: bool,
    config: Vec<String>,
}

impl Redis {
    /// The `redis-server` or `valkey-server` at `program`, on a port of 127.0.0.1.
    ///
    /// # Errors
    /// There is no free port.
    pub fn new<E>(
        program: impl Into<PathBuf>,
        mut free_port: impl FnMut() -> Result<u16, E>,
    ) -> Result<Self, E> {
        Ok(Self {
            program: program.into(),
            port: free_port()?,
            is_sentinel: false,
            config: Vec::new(),
        })
    }

    /// Adds a line of configuration, for instance `appendfsync always` or `cluster-enabled yes`.
    #[must_use]
    pub fn with_config(mut self, line: impl Into<String>) -> Self {
        self.config.push(line.into());
        self
    }

    /// A replica of `primary`.
    #[must_use]
    pub fn replica_of(self, primary: &Self) -> Self {
        let port = primary.port;
        self.with_config(format!("replicaof 127.0.0.1 {port}"))
    }

    /// A Sentinel, which watches `primary` under `name` and replaces it once `quorum` Sentinels have not reached it for a second. The
    /// Sentinels of one primary find each other through it.
    #[must_use]
    pub fn sentinel_of(mut self, primary: &Self, name: &str, quorum: usize) -> Self {
        let port = primary.port;
        self.is_sentinel = true;
        self.with_config(format!("sentinel monitor {name} 127.0.0.1 {port} {quorum}"))
            .with_config(format!("sentinel down-after-milliseconds {name} 1000"))
    }

    /// What an operator does: one command, whose words may hold anything. Blocks for 5 seconds at most.
    ///
    /// Returns a text or a number as text, an empty text for nil, and an array as it is on the wire.
    ///
    /// # Errors
    /// Redis refuses the command, or no answer comes.
    pub fn ask(&self, words: &[&str]) -> io::Result<String> {
        ask(self.address(), words)
    }

    /// Asks the Redis or the Valkey at a URL whether it serves, and returns the version that it reports: `redis 7.0.15`. Any process
    /// may have started it.
    ///
    /// # Errors
    /// Why it does not serve.
    pub fn serving_at(url: &str) -> io::Result<String> {
        check(tcp::address_of("redis", url)?)
    }
}

impl LocalServer for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn prepare(&self, data: &Path) -> io::Result<()> {
        let mut config = vec!["bind 127.0.0.1".to_owned(), format!("port {}", self.port)];
        // A Sentinel has no data, and refuses to start with this line.
        if !self.is_sentinel {
            config.push("appendonly yes".to_owned());
        }
        config.extend_from_slice(&self.config);
        write_once(&data.join("redis.conf"), &(config.join("\n") + "\n"))
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = Command::new(&self.program);
        // The folder is that of the data by default.
        command.arg(data.join("redis.conf")).current_dir(data);
        if self.is_sentinel {
            command.arg("--sentinel");
        }
        command
    }

    fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    fn serving(&self) -> io::Result<()> {
        check(self.address()).map(drop)
    }
}

/// The version once it answers. While it reads its data, it refuses.
fn check(server: SocketAddr) -> io::Result<String> {
    let pong = ask(server, &["PING"])?;
    let info = ask(server, &["INFO", "server"])?;
    let value = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    // Valkey also says which Redis it replaces.
    let version = ["valkey", "redis"].into_iter().find_map(|product| {
        let version = value(&format!("{product}_version"))?;
        Some(format!("{product} {version}"))
    });
    match version {
        Some(version) if pong == "PONG" => Ok(version),
        _ => {
            let why = format!("Redis at {server} answers a ping with `{pong}` and `{info}`");
            Err(io::Error::other(why))
        }
    }
}

/// One command over a connection of its own.
fn ask(server: SocketAddr, words: &[&str]) -> io::Result<String> {
    let question = request(words);
    let end = End::Whole(|answer| end_of_reply(answer).is_some());
    let deadline = Instant::now() + CHECKED_WITHIN;
    let answer = tcp::ask(server, question.as_bytes(), end, deadline);
    let answer = answer.and_then(|answer| reply(&answer));
    answer.map_err(|error| {
        let command = words.join(" ");
        io::Error::new(error.kind(), format!("{server} {command}: {error}"))
    })
}

/// A command as the protocol RESP has it: an array of texts.
fn request(words: &[&str]) -> String {
    let texts = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), texts.collect::<String>())
}

/// Where the first reply in `bytes` ends. None if it is not whole.
fn end_of_reply(bytes: &[u8]) -> Option<usize> {
    let (mut end, mut missing) = (0_usize, 1_usize);
    while missing > 0 {
        let rest = bytes.get(end..)?;
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let number = std::str::from_utf8(rest.get(1..line)?).ok();
        // That of nil is -1, and nothing follows.
        let number = number.and_then(|number| number.parse().ok());
        missing -= 1;
        end += line + 2;
        match (rest.first(), number) {
            (Some(b'$'), Some(length)) => end = end.checked_add(length)?.checked_add(2)?,
            (Some(b'*'), Some(length)) => missing = missing.checked_add(length)?,
            _ => {}
        }
    }
    (end <= bytes.len()).then_some(end)
}

fn reply(answer: &[u8]) -> io::Result<String> {
    let invalid = || io::Error::new(ErrorKind::InvalidData, "half an answer, or no RESP");
    let whole = end_of_reply(answer).and_then(|end| answer.get(..end));
    let whole = String::from_utf8_lossy(whole.ok_or_else(invalid)?);
    let (first, rest) = whole.split_once("\r\n").ok_or_else(invalid)?;
    let mut first = first.chars();
    let kind = first.next().ok_or_else(invalid)?;
    let said = first.as_str();
    match kind {
        '+' | ':' => Ok(said.to_owned()),
        '-' => Err(io::Error::other(said.to_owned())),
        // Nothing follows nil.
        '$' => Ok(rest.strip_suffix("\r\n").unwrap_or_default().to_owned()),
        '*' => Ok(whole.into_owned()),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::local_server::tests::{line, ports_from, prepared};
    use crate::tcp::tests::server_that_answers;

    fn redis(port: u16) -> Redis {
        let Ok(redis) = Redis::new("/bin/redis-server", ports_from(port));
        redis
    }

    #[test]
    fn one_alone_keeps_what_is_written() {
        let alone = redis(11);
        assert_eq!(line(&alone), "/data/redis.conf");
        let config = prepared(&alone, "redis.conf");
        assert_eq!(config, "bind 127.0.0.1\nport 11\nappendonly yes\n");
        assert_eq!(alone.url(), "redis://127.0.0.1:11");
    }

    #[test]
    fn a_replica_and_a_sentinel_know_their_primary() {
        let primary = redis(11);
        let replica = prepared(&redis(12).replica_of(&primary), "redis.conf");
        assert!(replica.ends_with("replicaof 127.0.0.1 11\n"), "{replica}");
        let sentinel = redis(13).sentinel_of(&primary, "main", 2);
        assert_eq!(line(&sentinel), "/data/redis.conf --sentinel");
        let config = prepared(&sentinel, "redis.conf");
        assert!(config.contains("\nsentinel monitor main 127.0.0.1 11 2\n"));
        assert!(!config.contains("appendonly"), "{config}");
    }

    #[test]
    fn each_word_is_sent_as_it_is() {
        let sent = request(&["SET", "a b", "größe\r\n"]);
        assert_eq!(sent, "*3\r\n$3\r\nSET\r\n$3\r\na b\r\n$9\r\ngröße\r\n\r\n");
    }

    #[test]
    fn a_reply_is_a_text_a_number_or_an_error() {
        let said = |on_the_wire: &str| reply(on_the_wire.as_bytes()).unwrap();
        assert_eq!(said("+PONG\r\n"), "PONG");
        assert_eq!(said(":3\r\n"), "3");
        assert_eq!(said("$4\r\na\r\nb\r\n"), "a\r\nb");
        assert_eq!(said("$0\r\n\r\n"), "");
        assert_eq!(said("$-1\r\n"), "");
        let nested = "*2\r\n*1\r\n$2\r\n\r\n\r\n:1\r\n";
        assert_eq!(said(nested), nested);
        let refused = reply(b"-LOADING Redis is loading\r\n").unwrap_err();
        assert_eq!(refused.to_string(), "LOADING Redis is loading");
        assert!(reply("größe\r\n".as_bytes()).is_err());
        for length in 0..nested.len() {
            assert!(reply(&nested.as_bytes()[..length]).is_err(), "{length}");
        }
        let endless = format!("*{0}\r\n${0}\r\n", usize::MAX);
        assert!(reply(endless.as_bytes()).is_err());
    }

    #[test]
    fn one_that_still_reads_its_data_does_not_serve() {
        let (server, _) = server_that_answers(b"PING\r\n", |stream| {
            stream.write_all(b"-LOADING Redis is loading the dataset in memory\r\n")
        });
        let error = Redis::serving_at(&format!("redis://{server}")).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("PING") && error.contains("LOADING"),
            "{error}"
        );
    }
}
