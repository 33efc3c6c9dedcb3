//! As much of ZooKeeper's protocol as tests of its servers take: each message is a length and its fields, big-endian, as
//! `zookeeper.jute` and `ZooDefs` of ZooKeeper define them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CREATE: i32 = 1;
const GET_DATA: i32 = 4;
const CLOSE: i32 = -11;
const AUTHENTICATE: i32 = 100;
/// The number of a request that authenticates.
const AUTHENTICATING: i32 = -4;
const SESSION_MILLISECONDS: i32 = 30_000;
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
const ALL_PERMISSIONS: i32 = 31;
/// How long the end of a session may take. Of one that its client has taken back, the server may say nothing at all.
const CLOSED_WITHIN: Duration = Duration::from_secs(3);
/// How often a session is ended whose client takes it back.
const MOST_TRIES: usize = 20;
/// More than any answer here.
const MOST_BYTES: usize = 64 * 1024;

/// A session at a ZooKeeper, over one connection. It ends some time after this is dropped, or is [ended](Self::expire). Blocking; each
/// answer may take 30 s.
#[derive(Debug)]
pub struct ZooKeeperSession<S = TcpStream> {
    connection: S,
    id: i64,
}

/// Who may do everything with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Every client.
    Anyone,
    /// Those that authenticate as this session has done.
    Authenticated,
}

impl ZooKeeperSession {
    /// A sign of life, as it is sent over the connection of a session. The server answers with 20 bytes.
    pub const PING: [u8; 12] = [
        0, 0, 0, 8, 0xFF, 0xFF, 0xFF, 0xFE, // the request's number, -2
        0, 0, 0, 11,
    ];

    /// A new session.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub fn connect(server: SocketAddr) -> io::Result<Self> {
        Self::begin(Self::connection(server)?)
    }

    /// Ends a session of any client, and with it its ephemeral nodes.
    ///
    /// Takes it over and closes it in one breath, since its client comes back at once. Where that one was faster, does it again.
    ///
    /// # Errors
    /// `NotFound` if there is no such session. Otherwise as [`connect`](Self::connect).
    pub fn expire(server: SocketAddr, id: i64) -> io::Result<()> {
        let close = bytes(&[1_i32.to_be_bytes(), CLOSE.to_be_bytes()].concat());
        let end = || {
            let connection = Self::connection(server)?;
            connection.set_read_timeout(Some(CLOSED_WITHIN))?;
            let mut session = Self::over(connection, id, password_of(id), &close)?;
            session.receive().map(drop)
        };
        let mut result = end();
        for _ in 1..MOST_TRIES {
            match result {
                Err(error) if is_no_answer(&error) => result = end(),
                result => return result,
            }
            // The server may have hung up when it had done it.
            if matches!(&result, Err(error) if error.kind() == io::ErrorKind::NotFound) {
                return Ok(());
            }
        }
        result
    }

    /// A connection for [`begin`](ZooKeeperSession::begin), with bounds on all waiting.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn connection(server: SocketAddr) -> io::Result<TcpStream> {
        let connection = TcpStream::connect_timeout(&server, ANSWERED_WITHIN)?;
        connection.set_read_timeout(Some(ANSWERED_WITHIN))?;
        connection.set_write_timeout(Some(ANSWERED_WITHIN))?;
        Ok(connection)
    }
}

impl<S: Read + Write> ZooKeeperSession<S> {
    /// A new session over a connection, for instance one with TLS.
    ///
    /// # Errors
    /// The server refuses.
    pub fn begin(connection: S) -> io::Result<Self> {
        Self::over(connection, 0, [0; 16], &[])
    }

    /// Connects, and sends `next` without waiting for the answer.
    fn over(connection: S, id: i64, password: [u8; 16], next: &[u8]) -> io::Result<Self> {
        let mut session = Self { connection, id };
        // Version of the protocol, and the last change that was seen.
        let mut message = [0_i32.to_be_bytes().as_slice(), &0_i64.to_be_bytes()].concat();
        message.extend(SESSION_MILLISECONDS.to_be_bytes());
        message.extend(id.to_be_bytes());
        message.extend(bytes(&password));
        session
            .connection
            .write_all(&[&bytes(&message), next].concat())?;
        session.connection.flush()?;
        let answer = session.receive()?;
        // After the version of the protocol and the time-out.
        let id = answer.get(8..16).and_then(|eight| eight.try_into().ok());
        session.id = i64::from_be_bytes(id.ok_or_else(half)?);
        if session.id == 0 {
            let why = "ZooKeeper has no such session";
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        Ok(session)
    }

    /// The session's id.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The connection, for a test that sends and reads by itself.
    pub fn into_connection(self) -> S {
        self.connection
    }

    /// Authenticates by the scheme `digest`.
    ///
    /// # Errors
    /// The server refuses, or no answer comes.
    pub fn authenticate(&mut self, user: &str, password: &str) -> io::Result<()> {
        let login = format!("{user}:{password}");
        let mut fields = 0_i32.to_be_bytes().to_vec();
        fields.extend([bytes(b"digest"), bytes(login.as_bytes())].concat());
        self.ask(AUTHENTICATING, AUTHENTICATE, &fields).map(drop)
    }

    /// Creates a persistent node.
    ///
    /// # Errors
    /// The server refuses, or no answer comes.
    pub fn create(&mut self, path: &str, data: &str, allowed: Allowed) -> io::Result<()> {
        let mut fields = [bytes(path.as_bytes()), bytes(data.as_bytes())].concat();
        let (one_entry, persistent) = (1_i32, 0_i32);
        fields.extend(one_entry.to_be_bytes());
        fields.extend(ALL_PERMISSIONS.to_be_bytes());
        let [scheme, id] = match allowed {
            Allowed::Anyone => ["world", "anyone"],
            Allowed::Authenticated => ["auth", ""],
        };
        fields.extend([bytes(scheme.as_bytes()), bytes(id.as_bytes())].concat());
        fields.extend(persistent.to_be_bytes());
        self.ask(1, CREATE, &fields).map(drop)
    }

    /// What a node holds.
    ///
    /// # Errors
    /// The server refuses, or no answer comes.
    pub fn data(&mut self, path: &str) -> io::Result<String> {
        let without_watch = [0];
        let fields = [bytes(path.as_bytes()).as_slice(), &without_watch].concat();
        let answer = self.ask(1, GET_DATA, &fields)?;
        let length = usize::try_from(number(&answer)?).map_err(io::Error::other)?;
        let data = answer.get(4..).and_then(|data| data.get(..length));
        Ok(String::from_utf8_lossy(data.ok_or_else(half)?).into_owned())
    }

    /// The fields behind the header of the answer.
    fn ask(&mut self, request: i32, operation: i32, fields: &[u8]) -> io::Result<Vec<u8>> {
        let header = [request.to_be_bytes(), operation.to_be_bytes()].concat();
        self.send(&[&header, fields].concat())?;
        let answer = self.receive()?;
        // After the request's number and the last change.
        let error = number(answer.get(12..).ok_or_else(half)?)?;
        if error != 0 {
            return Err(io::Error::other(format!("ZooKeeper's error {error}")));
        }
        Ok(answer.get(16..).ok_or_else(half)?.to_vec())
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.connection.write_all(&bytes(message))?;
        self.connection.flush()
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.connection.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?;
        if length > MOST_BYTES {
            return Err(io::Error::other(format!("a message of {length} bytes")));
        }
        let mut message = vec![0; length];
        self.connection.read_exact(&mut message)?;
        Ok(message)
    }
}

/// Whether the server hung up, or said nothing in time.
fn is_no_answer(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionReset | UnexpectedEof | TimedOut | WouldBlock
    )
}

/// The password that servers give to a session: the first bytes that `java.util.Random` makes from the session's id, as
/// `ZooKeeperServer.generatePasswd` has it.
fn password_of(session: i64) -> [u8; 16] {
    const SUPER_SECRET: i64 = 0xB341_5C00;
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const BITS: u64 = (1 << 48) - 1;
    let mut state = ((session ^ SUPER_SECRET).cast_unsigned() ^ MULTIPLIER) & BITS;
    let mut password = [0; 16];
    for four in password.chunks_exact_mut(4) {
        state = (state.wrapping_mul(MULTIPLIER) + 0xB) & BITS;
        let [.., a, b, c, d] = (state >> 16).to_be_bytes();
        four.copy_from_slice(&[d, c, b, a]);
    }
    password
}

/// Bytes behind their length.
fn bytes(bytes: &[u8]) -> Vec<u8> {
    // What tests send is short.
    let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

fn number(bytes: &[u8]) -> io::Result<i32> {
    let bytes = bytes.get(..4).and_then(|four| four.try_into().ok());
    bytes.map(i32::from_be_bytes).ok_or_else(half)
}

fn half() -> io::Error {
    io::Error::other("half an answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection with an answer that has come already.
    #[derive(Debug)]
    struct Answered(io::Cursor<Vec<u8>>);

    impl Read for Answered {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Answered {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            Ok(buffer.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answered(answer: &[u8]) -> io::Result<ZooKeeperSession<Answered>> {
        ZooKeeperSession::begin(Answered(io::Cursor::new(bytes(answer))))
    }

    #[test]
    fn a_session_has_the_id_that_the_server_gave() {
        let mut answer = [0_i32.to_be_bytes(), 30_000_i32.to_be_bytes()].concat();
        answer.extend(7_i64.to_be_bytes());
        answer.extend(bytes(&[0; 16]));
        assert_eq!(answered(&answer).unwrap().id(), 7);
    }

    #[test]
    fn a_session_that_is_not_there_and_half_an_answer_are_errors() {
        let error = answered(&[0; 36]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = answered(&[0; 9]).unwrap_err().to_string();
        assert!(error.contains("half an answer"), "{error}");
    }

    /// `new java.util.Random(id ^ 0xB3415C00L).nextBytes` says so.
    #[test]
    fn a_password_is_what_java_makes_of_the_id() {
        let hex = |id| {
            let bytes = password_of(id).map(|byte| format!("{byte:02x}"));
            bytes.concat()
        };
        assert_eq!(
            hex(0x0100_0000_0000_0001),
            "054cc74a37327db215e702e20c73f005"
        );
        assert_eq!(hex(-2), "0dd532b5c441e3927c04b55e50fd9421");
    }
}
