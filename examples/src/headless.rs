//! What a headless service looks like to its clients: one name, an address for each copy, the same port at all of them. For examples
//! about names, which thereby need no cluster.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;

use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

const COPIES: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
/// How often a port is tried that may be taken at one of the addresses.
const ATTEMPTS: usize = 100;

/// A headless service whose copies are at two addresses of this machine, and the DNS server that knows them.
#[derive(Debug)]
pub struct Headless {
    dns: SocketAddr,
    port: u16,
    _serving: JoinSet<io::Result<()>>,
}

impl Headless {
    /// Starts the DNS server, and returns a listener for each copy of the service.
    ///
    /// # Errors
    /// There is no free port, or this machine has no second loopback address, as only Linux has.
    pub async fn start() -> io::Result<(Self, Vec<TcpListener>)> {
        let listeners = listeners().await?;
        let port = match listeners.first() {
            Some(first) => first.local_addr()?.port(),
            None => return Err(io::Error::other("no listener")),
        };
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let dns = socket.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(serve(socket));
        let service = Self {
            dns,
            port,
            _serving: serving,
        };
        Ok((service, listeners))
    }

    /// The URL of a registry that finds the copies under any name. In a cluster it would be
    /// `dns:///prod.svc.cluster.local.?port=50051`.
    pub fn url(&self) -> String {
        format!(
            "dns://{}/prod.svc.cluster.local.?port={}",
            self.dns, self.port
        )
    }
}

async fn listeners() -> io::Result<Vec<TcpListener>> {
    let [first, second] = COPIES;
    let mut taken = io::Error::other("no free port");
    for _ in 0..ATTEMPTS {
        let one = TcpListener::bind((first, 0)).await?;
        let port = one.local_addr()?.port();
        match TcpListener::bind((second, port)).await {
            Ok(other) => return Ok(vec![one, other]),
            Err(error) => taken = error,
        }
    }
    Err(taken)
}

/// Answers each question for addresses with the same ones, as RFC 1035 has it.
async fn serve(socket: UdpSocket) -> io::Result<()> {
    let mut question = [0; 512];
    loop {
        let (length, client) = socket.recv_from(&mut question).await?;
        if let Some(answer) = question.get(..length).and_then(answer) {
            socket.send_to(&answer, client).await?;
        }
    }
}

const ID: Range<usize> = 0..2;
const HEADER: usize = 12;
/// Type A and class IN, at the end of the question.
const ADDRESSES: [u8; 4] = [0, 1, 0, 1];

fn answer(message: &[u8]) -> Option<Vec<u8>> {
    let name = message.get(HEADER..)?;
    let end = HEADER + name.iter().position(|byte| *byte == 0)? + 1 + ADDRESSES.len();
    let question = message.get(HEADER..end)?;
    let copies: &[Ipv4Addr] = if question.ends_with(&ADDRESSES) {
        &COPIES
    } else {
        &[]
    };
    let count = u8::try_from(copies.len()).ok()?;
    let mut answer = message.get(ID)?.to_vec();
    // An answer with authority, one question, so many records.
    answer.extend([0x85, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(question);
    for copy in copies {
        // The name that was asked, the same type and class, for one second, four bytes.
        answer.extend([0xc0, 12]);
        answer.extend(ADDRESSES);
        answer.extend([0, 0, 0, 1, 0, 4]);
        answer.extend(copy.octets());
    }
    Some(answer)
}
