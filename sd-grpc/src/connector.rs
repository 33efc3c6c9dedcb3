//! How an endpoint is dialled: TCP, Unix sockets, or whatever the user brings.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use sd_core::{Address, Instance};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::happy_eyeballs;

/// A byte stream that a connection can run over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A boxed [`Io`].
pub type BoxedIo = Box<dyn Io>;

/// The future of [`Connector::connect`].
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<BoxedIo>> + Send + 'a>>;

/// Opens connections to instances. Any `Fn(Arc<Instance>) -> impl Future<Output = io::Result<impl Io>>` is a connector.
///
/// If TLS is configured, the channel runs it over the stream that this returns.
///
/// A write that returns an error must not have passed on any of its bytes: the channel sends a call again, whatever the call,
/// when none of its request was written.
pub trait Connector: Send + Sync + 'static {
    /// Opens one connection.
    ///
    /// # Errors
    /// Whatever keeps the connection from opening. The channel tries again later, and meanwhile shows the error as the reason.
    ///
    /// # Cancel safety
    /// The channel drops the future when [`connect_timeout`](crate::ChannelConfig::connect_timeout) has passed or when the
    /// endpoint is no longer wanted.
    fn connect(&self, instance: Arc<Instance>) -> Connecting<'_>;
}

impl<F, R, T> Connector for F
where
    F: Fn(Arc<Instance>) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<T>> + Send + 'static,
    T: Io,
{
    fn connect(&self, instance: Arc<Instance>) -> Connecting<'_> {
        let connecting = self(instance);
        Box::pin(async move { Ok(Box::new(connecting.await?) as BoxedIo) })
    }
}

/// Dials TCP endpoints, with Nagle's algorithm disabled, and Unix sockets. Of several addresses of a host name, those that do not
/// answer within 250 ms get company by the next one, IPv6 and IPv4 by turns, and the first that connects is taken (RFC 8305).
///
/// Unix sockets only where that is allowed. Otherwise a writer to the registry could send clients to any socket of their machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dial {
    unix_sockets: bool,
}

impl Dial {
    /// Dials TCP endpoints only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Dials Unix sockets as well, for registries that only this machine or trusted parties write to.
    #[must_use]
    pub fn with_unix_sockets(mut self) -> Self {
        self.unix_sockets = true;
        self
    }
}

impl Connector for Dial {
    fn connect(&self, instance: Arc<Instance>) -> Connecting<'_> {
        let unix_sockets = self.unix_sockets;
        Box::pin(async move {
            match instance.endpoint().address() {
                Address::Tcp { host, port } => {
                    let addresses = tokio::net::lookup_host((host, port)).await?;
                    let addresses = happy_eyeballs::by_turns(addresses);
                    let attempts = addresses.into_iter().map(TcpStream::connect);
                    let stream = happy_eyeballs::race(attempts).await?;
                    stream.set_nodelay(true)?;
                    Ok(Box::new(stream) as BoxedIo)
                }
                Address::Unix { path } if !unix_sockets => Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "may not dial {}: allow it with `Dial::with_unix_sockets` and `ChannelBuilder::connector`",
                        path.display()
                    ),
                )),
                #[cfg(unix)]
                Address::Unix { path } => {
                    let stream = tokio::net::UnixStream::connect(path).await?;
                    Ok(Box::new(stream) as BoxedIo)
                }
                other => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("cannot dial {other:?}: set a `ChannelBuilder::connector` that can"),
                )),
            }
        })
    }
}

/// A shared connector, for configs.
#[derive(Clone)]
pub(crate) struct SharedConnector(pub(crate) Arc<dyn Connector>);

impl fmt::Debug for SharedConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}
