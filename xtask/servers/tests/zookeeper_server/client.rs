//! As much of ZooKeeper's protocol as creating and reading a node takes: each message is a length and its fields, big-endian, as
//! `zookeeper.jute` and `ZooDefs` of ZooKeeper define them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CREATE: i32 = 1;
const GET_DATA: i32 = 4;
const SESSION_MILLISECONDS: i32 = 30_000;
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// More than any answer here.
const MOST_BYTES: usize = 64 * 1024;

/// One session, which ends by itself some time after this is dropped.
pub(crate) struct Client(TcpStream);

impl Client {
    pub(crate) fn connect(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, ANSWERED_WITHIN)?;
        stream.set_read_timeout(Some(ANSWERED_WITHIN))?;
        stream.set_write_timeout(Some(ANSWERED_WITHIN))?;
        let mut client = Self(stream);
        // Version of the protocol, last change seen, time-out, no session yet, no password yet.
        let mut message = [0_i32.to_be_bytes().as_slice(), &0_i64.to_be_bytes()].concat();
        message.extend(SESSION_MILLISECONDS.to_be_bytes());
        message.extend(0_i64.to_be_bytes());
        message.extend(text(&[0; 16]));
        client.send(&message)?;
        client.receive()?;
        Ok(client)
    }

    /// A persistent node that everyone may read and change.
    pub(crate) fn create(&mut self, path: &str, data: &str) -> io::Result<()> {
        let mut fields = [text(path.as_bytes()), text(data.as_bytes())].concat();
        let (one_entry, all_permissions, persistent) = (1_i32, 31_i32, 0_i32);
        fields.extend(one_entry.to_be_bytes());
        fields.extend(all_permissions.to_be_bytes());
        fields.extend([text(b"world"), text(b"anyone")].concat());
        fields.extend(persistent.to_be_bytes());
        self.ask(CREATE, &fields).map(drop)
    }

    pub(crate) fn data(&mut self, path: &str) -> io::Result<String> {
        let without_watch = [0];
        let fields = [text(path.as_bytes()).as_slice(), &without_watch].concat();
        let answer = self.ask(GET_DATA, &fields)?;
        let length = usize::try_from(number(&answer)?).map_err(io::Error::other)?;
        let data = answer.get(4..4 + length).ok_or_else(half)?;
        Ok(String::from_utf8_lossy(data).into_owned())
    }

    /// The fields behind the header of the answer.
    fn ask(&mut self, operation: i32, fields: &[u8]) -> io::Result<Vec<u8>> {
        let number_of_request = 1_i32;
        let header = [number_of_request.to_be_bytes(), operation.to_be_bytes()].concat();
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
        self.0.write_all(&text(message))
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?;
        if length > MOST_BYTES {
            return Err(io::Error::other(format!("a message of {length} bytes")));
        }
        let mut message = vec![0; length];
        self.0.read_exact(&mut message)?;
        Ok(message)
    }
}

/// Bytes behind their length.
fn text(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

fn number(bytes: &[u8]) -> io::Result<i32> {
    let bytes = bytes.get(..4).and_then(|four| four.try_into().ok());
    bytes.map(i32::from_be_bytes).ok_or_else(half)
}

fn half() -> io::Error {
    io::Error::other("half an answer")
}
