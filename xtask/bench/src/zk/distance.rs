//! A server that is far away: what is sent to it, and what comes back, is on its way for a while.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::Result;

const BUFFER_BYTES: usize = 4096;
/// Pieces that may be on their way at a time, each way.
const ON_THE_WAY: usize = 256;

/// Where `server` is reached over such connections. They end with the runtime.
pub(super) async fn far_away(server: SocketAddr, each_way: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // However it ends, both sides see it.
            tokio::spawn(connect(client, server, each_way));
        }
    });
    Ok(address)
}

async fn connect(client: TcpStream, server: SocketAddr, each_way: Duration) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let to_server = carry(from_client, to_server, each_way);
    let to_client = carry(from_server, to_client, each_way);
    tokio::try_join!(to_server, to_client).map(drop)
}

/// Each piece arrives so much later than it was sent, however many are on their way.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    each_way: Duration,
) -> io::Result<()> {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let sending = async move {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = from.read(&mut buffer).await?;
            let piece = (Instant::now() + each_way, buffer[..read].to_vec());
            if read == 0 || send.send(piece).await.is_err() {
                return Ok(());
            }
        }
    };
    let receiving = async move {
        while let Some((at, piece)) = receive.recv().await {
            sleep_until(at).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(sending, receiving).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_that_follow_each_other_are_on_their_way_together() {
        const EACH_WAY: Duration = Duration::from_millis(200);
        const PIECES: u32 = 10;
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = echo.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut connection, _) = echo.accept().await.unwrap();
            let (mut from, mut to) = connection.split();
            tokio::io::copy(&mut from, &mut to).await
        });
        let far = far_away(server, EACH_WAY).await.unwrap();
        let mut client = TcpStream::connect(far).await.unwrap();
        let began = Instant::now();
        for nth in 0..PIECES {
            sleep_until(began + EACH_WAY / PIECES * nth).await;
            client.write_u8(0).await.unwrap();
        }
        client.read_u8().await.unwrap();
        assert!(began.elapsed() >= 2 * EACH_WAY);
        for _ in 1..PIECES {
            client.read_u8().await.unwrap();
        }
        // One after the other they would take longer than this.
        let took = began.elapsed();
        assert!(took < PIECES * EACH_WAY, "{took:?}");
    }
}
