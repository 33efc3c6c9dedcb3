//! Endpoints that cannot be used, each in its own way.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Result;

/// What is wrong with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing is wrong: what the others are compared with.
    None,
    /// There is no listener.
    Refused,
    /// What is sent there vanishes.
    BlackHoled,
    /// Connections are accepted and closed at once.
    Closing,
    /// Connections are accepted, and then not a byte comes.
    Silent,
}

impl Fault {
    pub(super) const ALL: [Self; 5] = [
        Self::None,
        Self::Refused,
        Self::BlackHoled,
        Self::Closing,
        Self::Silent,
    ];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Refused => "refused",
            Self::BlackHoled => "black-holed",
            Self::Closing => "accepting and closing",
            Self::Silent => "accepting, saying nothing",
        }
    }
}

/// A broken endpoint, as long as it is held.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) address: SocketAddr,
    hold: Hold,
}

/// What keeps it broken.
#[derive(Debug)]
#[expect(dead_code, reason = "held, never read")]
enum Hold {
    Socket(TcpSocket),
    Full(TcpListener, TcpStream),
    Task(JoinHandle<()>),
}

impl Broken {
    /// An endpoint on a port of its own.
    pub(super) async fn start(fault: Fault) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = socket.local_addr()?;
        let hold = match fault {
            Fault::None | Fault::Refused => Hold::Socket(socket),
            Fault::BlackHoled => {
                // One connection fills a queue of none; the kernel then drops whatever asks for another.
                let listener = socket.listen(0)?;
                let first = TcpStream::connect(address).await?;
                let second = timeout(PROOF, TcpStream::connect(address)).await;
                if second.is_ok() {
                    return Err("this kernel accepts connections beyond a full queue".into());
                }
                Hold::Full(listener, first)
            }
            Fault::Closing => {
                let listener = socket.listen(1024)?;
                Hold::Task(tokio::spawn(async move {
                    while let Ok((connection, _)) = listener.accept().await {
                        drop(connection);
                    }
                }))
            }
            Fault::Silent => {
                let listener = socket.listen(1024)?;
                Hold::Task(tokio::spawn(async move {
                    let mut open = Vec::new();
                    while let Ok((connection, _)) = listener.accept().await {
                        open.push(connection);
                    }
                }))
            }
        };
        Ok(Self { address, hold })
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        if let Hold::Task(task) = &self.hold {
            task.abort();
        }
    }
}

/// How long a connection must hang to count as black-holed.
const PROOF: Duration = Duration::from_millis(300);
