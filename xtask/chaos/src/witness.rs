//! A connection that shows whether what was broken is broken: it asks before the fault, and again in it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use server_programs::ZooKeeperSession;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::Result;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long connections are tried before a fault: a server that has just been thawed or restarted may not get to the first.
const TRIED_FOR: Duration = Duration::from_secs(30);
const TRY_EVERY: Duration = Duration::from_millis(50);

/// Asks for something small that a server has which serves.
#[derive(Debug)]
pub(crate) struct Witness {
    connection: TcpStream,
    request: Vec<u8>,
    /// Of the first answer, where it has one.
    status: Option<u16>,
}

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    /// This path, by HTTP/1.1.
    Http(&'static str),
    /// A session of ZooKeeper's, and then a sign that it lives.
    ZooKeeper,
    /// A ping. A Sentinel answers it as well.
    Redis,
}

/// What a fault does to connections that were there before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sees {
    /// They end.
    Reset,
    /// They say nothing any more.
    Silence,
}

impl Witness {
    /// Connects and waits for an answer.
    pub(crate) async fn connect(address: SocketAddr, question: Question) -> Result<Self> {
        let ask = async || match question {
            Question::Http(path) => Self::over_http(address, path).await,
            Question::ZooKeeper => Self::in_session(address).await,
            Question::Redis => Self::by_ping(address).await,
        };
        let give_up_at = Instant::now() + TRIED_FOR;
        loop {
            let failed = match timeout(ANSWER_WITHIN, ask()).await {
                Ok(Ok(answered)) => return Ok(answered),
                // A member of ZooKeeper that follows no leader yet hangs up.
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() >= give_up_at {
                return Err(format!("{failed} through {address} before the fault").into());
            }
            sleep(TRY_EVERY).await;
        }
    }

    async fn over_http(address: SocketAddr, path: &str) -> Result<Self> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(request.as_bytes()).await?;
        let status = read_answer(&mut connection).await?;
        Ok(Self {
            connection,
            request: request.into_bytes(),
            status: Some(status),
        })
    }

    /// The session outlasts any fault, so that the server does not hang up meanwhile.
    async fn in_session(address: SocketAddr) -> Result<Self> {
        let session = spawn_blocking(move || ZooKeeperSession::connect(address)).await??;
        let connection = session.into_connection();
        connection.set_nonblocking(true)?;
        Ok(Self {
            connection: TcpStream::from_std(connection)?,
            request: ZooKeeperSession::PING.to_vec(),
            status: None,
        })
    }

    async fn by_ping(address: SocketAddr) -> Result<Self> {
        const PING: &[u8] = b"PING\r\n";
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(PING).await?;
        let mut pong = [0; 7];
        connection.read_exact(&mut pong).await?;
        if pong != *b"+PONG\r\n" {
            return Err(format!("a ping is answered with {pong:?}").into());
        }
        Ok(Self {
            connection,
            request: PING.to_vec(),
            status: None,
        })
    }

    /// The status of the first answer, by HTTP.
    pub(crate) fn status(&self) -> Option<u16> {
        self.status
    }

    /// Asks once more, after the fault has begun.
    pub(crate) async fn ask(&mut self) {
        // An error is what a reset connection gives.
        let _ = self.connection.write_all(&self.request).await;
    }

    /// Whether the connection has been treated as the fault should, told before it is healed.
    pub(crate) async fn check(&mut self, sees: Sees) -> Result<()> {
        let mut buffer = [0; 1024];
        let read = match sees {
            Sees::Reset => timeout(ANSWER_WITHIN, self.connection.read(&mut buffer))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into())),
            Sees::Silence => self.connection.try_read(&mut buffer),
        };
        let silent = matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        let reset = matches!(read, Ok(0)) || (read.is_err() && !silent);
        if (sees == Sees::Reset && reset) || (sees == Sees::Silence && silent) {
            return Ok(());
        }
        Err(format!("the fault did not take effect: expected {sees:?}, got {read:?}").into())
    }
}

/// Reads one answer to the end, as its length says. Returns its status.
async fn read_answer(connection: &mut TcpStream) -> io::Result<u16> {
    let mut answer = Vec::new();
    loop {
        if connection.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let lengths = head.lines().filter_map(|line| line.split_once(": "));
        let length = lengths
            .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .find_map(|(_, length)| length.parse::<usize>().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        if body.len() >= length {
            let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
            return status.ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    pub(crate) const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\n\r\n";
    pub(crate) const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";

    /// Answers each request in two pieces.
    pub(crate) async fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (from, mut to) = connection.split();
                    let mut lines = BufReader::new(from).lines();
                    while let Ok(Some(line)) = lines.next_line().await {
                        if line.is_empty() {
                            let (first, second) = ANSWER.split_at(ANSWER.len() - 2);
                            to.write_all(first.as_bytes()).await?;
                            to.write_all(second.as_bytes()).await?;
                        }
                    }
                    Ok::<_, io::Error>(())
                });
            }
        });
        address
    }

    async fn witness() -> Witness {
        let question = Question::Http("/x");
        Witness::connect(server().await, question).await.unwrap()
    }

    #[tokio::test]
    async fn a_fault_that_does_nothing_is_noticed() {
        let mut witness = witness().await;
        witness.check(Sees::Silence).await.unwrap();
        witness.ask().await;
        witness.connection.readable().await.unwrap();
        let error = witness.check(Sees::Silence).await.unwrap_err().to_string();
        assert!(error.contains("did not take effect"), "{error}");
    }

    #[tokio::test]
    async fn an_answer_is_no_reset() {
        let mut witness = witness().await;
        witness.ask().await;
        assert!(witness.check(Sees::Reset).await.is_err());
    }
}
