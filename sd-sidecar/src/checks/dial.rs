//! A connection to what is checked.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use sd_core::{Address, Endpoint};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::probe::Answer;

/// How many look-ups of names may be under way in this process. One may hang for longer than its check waits, and nothing can end it.
static LOOK_UPS: Semaphore = Semaphore::const_new(48);
/// How many of them may be one caller's, so that names of one that hang hold up no other's.
const OF_ONE_CALLER: usize = 12;

/// The look-ups of names that are made for one caller, of which at most 12 may be under way at a time. Clones count together.
#[derive(Clone, Debug)]
pub struct LookUps(Arc<Semaphore>);

impl Default for LookUps {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(OF_ONE_CALLER)))
    }
}

impl LookUps {
    /// Whether there is no other clone.
    #[cfg(feature = "daemon")]
    pub(crate) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// A connection of either kind.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

/// Whether a connection is accepted.
pub(super) async fn connects(endpoint: &Endpoint, look_ups: &LookUps) -> Answer {
    dial(endpoint, look_ups).await?;
    Ok(format!("connected to {endpoint}"))
}

/// Connects, or says why not.
pub(super) async fn dial(
    endpoint: &Endpoint,
    look_ups: &LookUps,
) -> Result<Box<dyn Connection>, String> {
    let connected = connect(endpoint, look_ups).await;
    connected.map_err(|error| format!("cannot connect to {endpoint}: {error}"))
}

async fn connect(endpoint: &Endpoint, look_ups: &LookUps) -> io::Result<Box<dyn Connection>> {
    let connection: Box<dyn Connection> = match endpoint.address() {
        Address::Tcp { host, port } => {
            let addresses = addresses(host, port, look_ups).await?;
            Box::new(TcpStream::connect(&*addresses).await?)
        }
        Address::Unix { path } => Box::new(UnixStream::connect(path).await?),
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok(connection)
}

async fn addresses(host: &str, port: u16, look_ups: &LookUps) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        // It is the same everywhere, and is asked for often.
        let both = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Ok(both.map(|ip: IpAddr| SocketAddr::new(ip, port)).into());
    }
    // The caller's own come first: who waits for those takes no place of others.
    let own = Arc::clone(&look_ups.0).acquire_owned().await;
    let (Ok(own), Ok(permit)) = (own, LOOK_UPS.acquire().await) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let host = host.to_owned();
    let looked_up = spawn_blocking(move || {
        let _permits = (own, permit);
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
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;

    /// These take all look-ups of the process.
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    #[tokio::test]
    async fn localhost_is_found_while_all_look_ups_hang() {
        let _one = ONE_AT_A_TIME.lock().await;
        let _all = LOOK_UPS.acquire_many(48).await.unwrap();
        let found = addresses("LocalHost", 80, &LookUps::default())
            .await
            .unwrap();
        let expected: [SocketAddr; 2] = [
            ([127, 0, 0, 1], 80).into(),
            (Ipv6Addr::LOCALHOST, 80).into(),
        ];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn names_of_one_caller_that_hang_leave_look_ups_to_others() {
        let _one = ONE_AT_A_TIME.lock().await;
        let (hanging, other) = (LookUps::default(), LookUps::default());
        // As many as would take all there are.
        let hangs = |_| {
            let own = Arc::clone(&hanging.0);
            async move { (own.acquire_owned().await, LOOK_UPS.acquire().await) }
        };
        let mut all = Vec::new();
        for hang in (0..48).map(hangs) {
            all.extend(hang.now_or_never());
        }
        assert_eq!(all.len(), OF_ONE_CALLER);
        let looked_up = addresses("name.invalid", 80, &other);
        let _ = timeout(Duration::from_secs(30), looked_up)
            .await
            .expect("it has its turn");
        let waits = addresses("name.invalid", 80, &hanging);
        assert!(waits.now_or_never().is_none());
    }
}
