//! A TCP proxy in this process that breaks connections in the ways networks do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sd_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// How much is read at once, and held back at most, for each direction of each connection.
const BUFFER_BYTES: usize = 16 * 1024;
const BACKLOG: u32 = 1024;

/// What a [`TcpProxy`] does to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Forwards everything.
    #[default]
    Pass,
    /// Refuses new connections. Existing connections go on.
    Refuse,
    /// Resets existing connections and refuses new ones, like a server that died.
    Cut,
    /// Keeps and accepts connections but forwards nothing in this direction, like a server or a network that hangs. What was
    /// sent is forwarded when the fault ends.
    Hold(Direction),
    /// Forwards each chunk with this delay.
    Delay(Duration),
    /// Accepts and reads, drops what it has read, and never answers, like a partition. A connection that lost bytes this way is
    /// reset when the fault ends.
    BlackHole,
}

/// The direction of a [`Fault::Hold`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From client to server.
    ToServer,
    /// From server to client.
    ToClient,
    /// Both.
    Both,
}

/// What a [`TcpProxy`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyCounts {
    /// Connections accepted since the start.
    pub accepted: usize,
    /// Connections open now.
    pub open: usize,
    /// Bytes forwarded from clients to the server.
    pub bytes_to_server: u64,
    /// Bytes forwarded from the server to clients.
    pub bytes_to_client: u64,
}

/// Listens on a free loopback port and forwards to a target. Dropping it ends its tasks and connections.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    settings: watch::Sender<Settings>,
    counts: watch::Sender<ProxyCounts>,
    task: AbortHandle,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    target: SocketAddr,
    fault: Fault,
    /// Connections older than the newest cut are reset.
    cuts: u64,
}

impl TcpProxy {
    /// Starts a proxy in front of `target`.
    ///
    /// # Errors
    /// `Unavailable` if no port can be listened on.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let failed = |e: io::Error| Error::new(ErrorKind::Unavailable, "tcp proxy").with_source(e);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (settings, seen) = watch::channel(Settings {
            target,
            fault: Fault::Pass,
            cuts: 0,
        });
        let (counts, _) = watch::channel(ProxyCounts::default());
        let task = tokio::spawn(accept(listener, address, seen, counts.clone())).abort_handle();
        Ok(Self {
            address,
            settings,
            counts,
            task,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what happens to connections from now on.
    pub fn set(&self, fault: Fault) {
        self.settings.send_modify(|settings| {
            settings.fault = fault;
            settings.cuts += u64::from(fault == Fault::Cut);
        });
    }

    /// Resets all existing connections once. New connections are accepted if the fault allows.
    pub fn cut_connections(&self) {
        self.settings.send_modify(|settings| settings.cuts += 1);
    }

    /// Sets the target of new connections.
    pub fn set_target(&self, target: SocketAddr) {
        self.settings
            .send_modify(|settings| settings.target = target);
    }

    /// The counts so far.
    pub fn counts(&self) -> ProxyCounts {
        *self.counts.borrow()
    }

    /// Waits until the counts satisfy `condition`. Cancel-safe. Has no deadline of its own.
    pub async fn counted(&self, condition: impl FnMut(&ProxyCounts) -> bool) -> ProxyCounts {
        let mut seen = self.counts.subscribe();
        // Cannot fail: `self` holds the sender.
        match seen.wait_for(condition).await {
            Ok(counts) => *counts,
            Err(_) => self.counts(),
        }
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Owns the port and all connections.
async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    mut settings: watch::Receiver<Settings>,
    counts: watch::Sender<ProxyCounts>,
) {
    let mut connections = JoinSet::new();
    let mut listener = Some(listener);
    loop {
        let refuse = matches!(
            settings.borrow_and_update().fault,
            Fault::Refuse | Fault::Cut
        );
        let reserved = if refuse {
            drop(listener.take());
            // Bound but not listening: connections are refused, and no other process gets the port.
            bind(address).ok()
        } else {
            None
        };
        let changed = loop {
            tokio::select! {
                biased;
                changed = settings.changed() => break changed,
                Some(_) = connections.join_next() => {}
                Some(client) = next(listener.as_ref()) => {
                    connections.spawn(serve(client, settings.clone(), counts.clone()));
                }
            }
        };
        if changed.is_err() {
            return;
        }
        drop(reserved);
        if listener.is_none() {
            listener = bind(address).and_then(|socket| socket.listen(BACKLOG)).ok();
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The next client. Never returns without a listener.
async fn next(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

/// Counts a connection as open for as long as it lives.
struct Open(watch::Sender<ProxyCounts>);

impl Open {
    fn new(counts: watch::Sender<ProxyCounts>) -> Self {
        counts.send_modify(|counts| {
            counts.accepted += 1;
            counts.open += 1;
        });
        Self(counts)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|counts| counts.open -= 1);
    }
}

/// One connection, until either side or a fault ends it.
async fn serve(
    mut client: TcpStream,
    mut settings: watch::Receiver<Settings>,
    counts: watch::Sender<ProxyCounts>,
) {
    let _open = Open::new(counts.clone());
    let Settings {
        cuts,
        target,
        fault,
    } = *settings.borrow_and_update();
    let during = settings.clone();
    let cut = async {
        // An error means that the proxy is gone.
        let _ = settings.wait_for(|settings| settings.cuts != cuts).await;
        Err(io::ErrorKind::ConnectionReset.into())
    };
    let mut server = None;
    let work = async {
        if fault == Fault::BlackHole {
            return swallow(&mut client, during).await;
        }
        let server = server.insert(TcpStream::connect(target).await?);
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        forward(&mut client, server, during, counts).await
    };
    let ended = tokio::select! {
        // First, so that nothing that was held back passes with the cut that ends the hold.
        biased;
        ended = cut => ended,
        ended = work => ended,
    };
    if ended.is_err() {
        // Reset: a connection that did not end by itself must not look to the other side as if it had.
        let _ = client.set_zero_linger();
        if let Some(server) = server {
            let _ = server.set_zero_linger();
        }
    }
}

async fn forward(
    client: &mut TcpStream,
    server: &mut TcpStream,
    settings: watch::Receiver<Settings>,
    counts: watch::Sender<ProxyCounts>,
) -> io::Result<()> {
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    let to_server = Pipe {
        from: client_reads,
        to: server_writes,
        way: Direction::ToServer,
        settings: settings.clone(),
        counts: counts.clone(),
    };
    let to_client = Pipe {
        from: server_reads,
        to: client_writes,
        way: Direction::ToClient,
        settings,
        counts,
    };
    tokio::try_join!(to_server.run(), to_client.run())?;
    Ok(())
}

/// Reads and drops. Ends well with the stream, or with an error when the black hole does.
async fn swallow(
    from: &mut (impl AsyncRead + Unpin),
    mut settings: watch::Receiver<Settings>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        tokio::select! {
            error = reset_after_black_hole(&mut settings) => return Err(error),
            read = from.read(&mut buffer) => if read? == 0 {
                return Ok(());
            }
        }
    }
}

/// The error for a connection that lost bytes, when the black hole ends: anything after that would be garbage.
async fn reset_after_black_hole(settings: &mut watch::Receiver<Settings>) -> io::Error {
    let _ = settings
        .wait_for(|settings| settings.fault != Fault::BlackHole)
        .await;
    io::ErrorKind::ConnectionReset.into()
}

/// One direction of one connection.
struct Pipe<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    way: Direction,
    settings: watch::Receiver<Settings>,
    counts: watch::Sender<ProxyCounts>,
}

impl Pipe<'_> {
    async fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            // Nothing is read ahead while held, so that the sender notices.
            self.not_held().await?;
            let read = tokio::select! {
                biased;
                changed = self.settings.changed() => { gone(changed)?; continue }
                read = self.from.read(&mut buffer) => read?,
            };
            // A fault may have begun since.
            self.not_held().await?;
            let fault = self.settings.borrow_and_update().fault;
            match fault {
                Fault::BlackHole => {
                    if read > 0 {
                        swallow(&mut self.from, self.settings.clone()).await?;
                    }
                    return Err(reset_after_black_hole(&mut self.settings).await);
                }
                Fault::Delay(by) => tokio::time::sleep(by).await,
                _ => {}
            }
            if read == 0 {
                return self.to.shutdown().await;
            }
            self.to.write_all(&buffer[..read]).await?;
            let bytes = u64::try_from(read).unwrap_or(u64::MAX);
            let way = self.way;
            self.counts.send_modify(|counts| match way {
                Direction::ToClient => counts.bytes_to_client += bytes,
                Direction::ToServer | Direction::Both => counts.bytes_to_server += bytes,
            });
        }
    }

    async fn not_held(&mut self) -> io::Result<()> {
        let way = self.way;
        let free = |settings: &Settings| match settings.fault {
            Fault::Hold(held) => held != way && held != Direction::Both,
            _ => true,
        };
        gone(self.settings.wait_for(free).await.map(drop))
    }
}

/// Whether the proxy itself is gone.
fn gone(changed: std::result::Result<(), watch::error::RecvError>) -> io::Result<()> {
    changed.map_err(|_| io::ErrorKind::ConnectionAborted.into())
}
