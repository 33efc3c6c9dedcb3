//! A link that passes few bytes in a second.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

/// What is passed on at once, and about what waits in the link.
const CHUNK: u32 = 16 * 1024;

/// Passes connections on, slowly. Ends with all of them when it is dropped.
pub(crate) struct SlowLink {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl SlowLink {
    /// A link to `target` that passes so many bytes in a second in each direction.
    pub(crate) fn start(target: SocketAddr, bytes_per_second: u32) -> Self {
        let socket = narrow_socket();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(8).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connections);
        let pause = Duration::from_secs(1) * CHUNK / bytes_per_second;
        let accepting = async move {
            let mut passing = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let server = narrow_socket().connect(target).await.unwrap();
                passing.spawn(pass(client, server, pause));
            }
        };
        Self {
            address,
            connections,
            task: tokio::spawn(accepting).abort_handle(),
        }
    }

    /// How many connections there were so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One in which little waits to be passed on.
fn narrow_socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(CHUNK).unwrap();
    socket
}

async fn pass(mut client: TcpStream, mut server: TcpStream, pause: Duration) {
    let (mut client_reads, mut client_writes) = client.split();
    let (mut server_reads, mut server_writes) = server.split();
    tokio::select! {
        () = pass_on(&mut client_reads, &mut server_writes, pause) => {}
        () = pass_on(&mut server_reads, &mut client_writes, pause) => {}
    }
}

async fn pass_on(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    pause: Duration,
) {
    let mut chunk = vec![0; CHUNK as usize];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        // A part of a chunk costs its part of the pause.
        sleep(pause * u32::try_from(read).unwrap() / CHUNK).await;
        if to.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}
