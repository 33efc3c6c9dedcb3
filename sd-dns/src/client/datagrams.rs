//! Sockets for the client crate. Those for datagrams are of one question each, and let errors through that the crate would not see.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;

/// What the client crate opens and spawns. The tasks end with it.
#[derive(Clone, Default)]
pub(crate) struct Provider(TokioRuntimeProvider);

type Opening<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl RuntimeProvider for Provider {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Datagrams;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        limit: Option<Duration>,
    ) -> Opening<Self::Tcp> {
        self.0.connect_tcp(server, local, limit)
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Opening<Self::Udp> {
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            // Only then does the system say that no program listens there, and drops what comes from elsewhere.
            socket.connect(server).await?;
            Ok(Datagrams {
                socket,
                server,
                asked: OnceLock::new(),
            })
        })
    }
}

/// A socket for one question to one server.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: UdpSocket,
    server: SocketAddr,
    asked: OnceLock<Vec<u8>>,
}

impl Datagrams {
    fn taken(&self, buffer: &mut [u8], length: usize) -> (usize, SocketAddr) {
        let asked = self.asked.get().map_or(&[][..], Vec::as_slice);
        let length = with_question(buffer, length, asked).unwrap_or(length);
        (length, self.server)
    }
}

#[async_trait]
impl DnsUdpSocket for Datagrams {
    type Time = TokioTime;

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        message: &[u8],
        _server: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.asked.get_or_init(|| message.to_vec());
        self.socket.poll_send(cx, message)
    }

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut read = ReadBuf::new(buffer);
        ready!(self.socket.poll_recv(cx, &mut read))?;
        let length = read.filled().len();
        Poll::Ready(Ok(self.taken(buffer, length)))
    }

    /// That a program does not listen there is no datagram, so that a wait for one alone would miss it.
    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let ready = self.socket.ready(Interest::READABLE | Interest::ERROR);
            if ready.await?.is_error() {
                if let Some(error) = self.socket.take_error()? {
                    return Err(error);
                }
                // It is no news any more.
                let none = || Err::<(), _>(ErrorKind::WouldBlock.into());
                let _ = self.socket.try_io(Interest::ERROR, none);
            }
            match self.socket.try_recv(buffer) {
                Ok(length) => return Ok(self.taken(buffer, length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A message of RFC 1035 begins with its id, flags and four counts.
const HEADER: usize = 12;
const COUNTS: std::ops::Range<usize> = 4..HEADER;
/// Where the last bits of the flags are: the response code.
const CODE: usize = 3;
/// Codes that are no errors. That a name does not exist must say of which name.
const NO_ERRORS: [u8; 2] = [0, 3];
/// Type and class, after the name in a question.
const TYPE_AND_CLASS: usize = 4;

/// Adds the question that was asked to an error that is a header alone, and returns the new length. So answers a server that does not
/// understand what it was asked (RFC 6891, section 7); the client crate takes it for the answer to another question, and waits on.
pub(crate) fn with_question(answer: &mut [u8], length: usize, asked: &[u8]) -> Option<usize> {
    let header = answer.get(..length).filter(|_| length == HEADER)?;
    let is_error = !NO_ERRORS.contains(&(header.get(CODE)? & 0x0f));
    if !is_error || header.get(COUNTS)?.iter().any(|byte| *byte != 0) {
        return None;
    }
    let question = question(asked)?;
    let whole = HEADER + question.len();
    answer.get_mut(HEADER..whole)?.copy_from_slice(question);
    // One question.
    *answer.get_mut(COUNTS.start + 1)? = 1;
    Some(whole)
}

/// The question in a message of ours, whose name is not compressed.
fn question(asked: &[u8]) -> Option<&[u8]> {
    let mut at = HEADER;
    loop {
        match usize::from(*asked.get(at)?) {
            0 => return asked.get(HEADER..=at + TYPE_AND_CLASS),
            label => at += 1 + label,
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::{Edns, Message, Query, ResponseCode};
    use hickory_resolver::proto::rr::RecordType;

    use super::*;
    use crate::names;

    fn asked() -> (Message, Vec<u8>) {
        let mut message = Message::query();
        message.metadata.id = 0x0102;
        let name = names::parse("a\0b.sd.test.").unwrap();
        message.add_query(Query::query(name, RecordType::AAAA));
        message.edns = Some(Edns::new());
        let bytes = message.to_vec().unwrap();
        (message, bytes)
    }

    #[test]
    fn an_error_without_the_question_gets_it() {
        let (message, asked) = asked();
        let mut answer = [0; 512];
        answer[..4].copy_from_slice(&[1, 2, 0x80, 1]);
        let length = with_question(&mut answer, HEADER, &asked).unwrap();
        let answer = Message::from_vec(&answer[..length]).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
        assert_eq!(
            (answer.metadata.id, answer.queries),
            (0x0102, message.queries)
        );
    }

    #[test]
    fn what_is_no_such_error_stays_as_it_is() {
        let (_, asked) = asked();
        let error = [1, 2, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut no_error = error;
        no_error[3] = 0x80;
        let mut no_name = error;
        no_name[3] = 0x83;
        let mut with_record = error;
        with_record[7] = 1;
        for header in [no_error, no_name, with_record] {
            let mut answer = [0; 512];
            answer[..HEADER].copy_from_slice(&header);
            assert_eq!(with_question(&mut answer, HEADER, &asked), None);
            assert_eq!(answer[..HEADER], header);
        }
        let mut answer = [0; 512];
        answer[..HEADER].copy_from_slice(&error);
        for (length, asked) in [
            (HEADER - 1, &asked[..]),
            (HEADER + 1, &asked),
            (HEADER, &asked[..HEADER + 2]),
            (HEADER, &[]),
        ] {
            assert_eq!(with_question(&mut answer, length, asked), None);
        }
        // No room for the question.
        assert_eq!(with_question(&mut error.clone(), HEADER, &asked), None);
    }
}
