//! A connection to what is checked.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use sd_core::{Address, Endpoint};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::probe::Answer;

/// How many look-ups of names may be under way in this process. One may hang for longer than its check waits, and nothing can end it.
static LOOK_UPS: Semaphore = Semaphore::const_new(48);

/// A connection of either kind.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

/// Whether a connection is accepted.
pub(super) async fn connects(endpoint: &Endpoint) -> Answer {
    dial(endpoint).await?;
    Ok(format!("connected to {endpoint}"))
}

/// Connects, or says why not.
pub(super) async fn dial(endpoint: &Endpoint) -> Result<Box<dyn Connection>, String> {
    let connected = connect(endpoint).await;
    connected.map_err(|error| format!("cannot connect to {endpoint}: {error}"))
}

async fn connect(endpoint: &Endpoint) -> io::Result<Box<dyn Connection>> {
    let connection: Box<dyn Connection> = match endpoint.address() {
        Address::Tcp { host, port } => {
            let addresses = addresses(host, port).await?;
            Box::new(TcpStream::connect(&*addresses).await?)
        }
        Address::Unix { path } => Box::new(UnixStream::connect(path).await?),
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok(connection)
}

async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        // It is the same everywhere, and is asked for often.
        let both = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Ok(both.map(|ip: IpAddr| SocketAddr::new(ip, port)).into());
    }
    let Ok(permit) = LOOK_UPS.acquire().await else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let host = host.to_owned();
    let looked_up = spawn_blocking(move || {
        let _permit = permit;
        let addresses = (host.as_str(), port).to_socket_addrs()?;
        Ok(addresses.collect())
    });
    looked_up.await.map_err(io::Error::other)?
}

/// How a request names the server.
pub(super) struct Authority<'a>(pub(super) &'a Endpoint);

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.address() {
            Address::Unix { .. } => f.write_str("localhost"),
            _ => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_found_while_all_look_ups_hang() {
        let _all = LOOK_UPS.acquire_many(48).await.unwrap();
        let found = addresses("LocalHost", 80).await.unwrap();
        let expected: [SocketAddr; 2] = [
            ([127, 0, 0, 1], 80).into(),
            (Ipv6Addr::LOCALHOST, 80).into(),
        ];
        assert_eq!(found, expected);
    }
}
