//! One connection to one server: its socket, TLS, the login, and who it says that it is.

use std::fmt;
use std::sync::Arc;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisResult, Value,
};
use rustls_pki_types::ServerName;
use sd_backend::{FileThread, hinted, with_hint};
use sd_core::{Address, Endpoint, Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::client::answer::field;
use crate::client::credentials::Credentials;
use crate::client::error::{odd_answer, refused, translate};
use crate::config::RedisConfig;
use crate::config::rules::FILES;

/// Makes connections as a configuration says.
#[derive(Debug)]
pub(crate) struct Dialer {
    config: RedisConfig,
    files: FileThread,
}

/// What a connection is for.
#[derive(Clone)]
pub(crate) enum Purpose {
    /// Commands to a server that keeps data.
    Commands,
    /// Being told by such a server.
    Pushes(Arc<dyn AsyncPushSender>),
    /// Questions to a Sentinel.
    Sentinel,
}

/// A connection that is open. All requests share it, and their answers come in their order.
pub(crate) struct Link {
    address: Endpoint,
    connection: MultiplexedConnection,
    is_primary: bool,
    _driver: AbortOnDropHandle<()>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Dialer {
    /// For a [checked](RedisConfig::checked) configuration.
    pub(crate) fn new(config: RedisConfig) -> Self {
        let files = FileThread::default();
        Self { config, files }
    }

    pub(crate) fn config(&self) -> &RedisConfig {
        &self.config
    }

    /// Connects to `address` and logs in.
    ///
    /// # Errors
    /// Why that server cannot be used.
    ///
    /// # Cancel safety
    /// A dropped call drops the connection.
    pub(crate) async fn dial(
        &self,
        op: &'static str,
        address: &Endpoint,
        purpose: Purpose,
    ) -> Result<Link> {
        let (config, limit) = (self.config.clone(), self.config.request_timeout);
        let reading = move || Credentials::read(&config);
        let credentials = self.files.read_again(op, FILES, limit, reading).await?;
        let limit = self.config.connect_timeout;
        let dialed = timeout(limit, self.open(op, address, &credentials, purpose)).await;
        let dialed = dialed.unwrap_or_else(|_| {
            let why = format!("no connection within {limit:?}");
            Err(Error::new(ErrorKind::Timeout, op).because(why))
        });
        dialed.map_err(|error| at(address, error, &credentials))
    }

    async fn open(
        &self,
        op: &'static str,
        address: &Endpoint,
        credentials: &Credentials,
        purpose: Purpose,
    ) -> Result<Link> {
        let stream = self.stream(op, address, credentials).await?;
        let is_sentinel = matches!(purpose, Purpose::Sentinel);
        let login = if is_sentinel {
            &credentials.sentinel_login
        } else {
            &credentials.login
        };
        let mut settings = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name();
        if let Some((user, password)) = login {
            settings = settings.set_username(user).set_password(password.expose());
        }
        if !is_sentinel {
            settings = settings.set_db(self.config.database.into());
        }
        // Each request has a deadline of its own.
        let mut options = AsyncConnectionConfig::new().set_response_timeout(None);
        if let Purpose::Pushes(sender) = purpose {
            options = options.set_push_sender(sender);
        }
        let made = MultiplexedConnection::new_with_config(&settings, stream, options).await;
        let (connection, driver) = made.map_err(|error| translate(op, error))?;
        let mut link = Link {
            address: address.clone(),
            connection,
            is_primary: true,
            _driver: AbortOnDropHandle::new(tokio::spawn(driver)),
        };
        // A Sentinel says nothing of a role.
        if !is_sentinel {
            link.is_primary = link.says_primary(op).await?;
        }
        Ok(link)
    }

    async fn stream(
        &self,
        op: &'static str,
        address: &Endpoint,
        credentials: &Credentials,
    ) -> Result<Box<dyn Stream>> {
        let Address::Tcp { host, port } = address.address() else {
            return Err(Error::new(ErrorKind::Unavailable, op).because("it is no TCP address"));
        };
        let broken = |error| Error::new(ErrorKind::Unavailable, op).with_source(with_hint(error));
        let plain = TcpStream::connect((host, port)).await.map_err(broken)?;
        plain.set_nodelay(true).map_err(broken)?;
        let Some(tls) = &credentials.tls else {
            return Ok(Box::new(plain));
        };
        let name = self.config.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned());
        let name =
            name.map_err(|error| Error::new(ErrorKind::Unavailable, op).with_source(error))?;
        let connector = TlsConnector::from(Arc::clone(tls));
        Ok(Box::new(
            connector.connect(name, plain).await.map_err(broken)?,
        ))
    }
}

/// An error of one server, with where that is.
#[derive(Debug)]
struct At {
    address: Endpoint,
    error: Error,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

impl std::error::Error for At {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

/// The error with the address. Without its causes, if one of them repeats a password.
fn at(address: &Endpoint, error: Error, credentials: &Credentials) -> Error {
    let (kind, op) = (error.kind(), error.op());
    let shown = format!("{error:?} {}", error.report());
    let logins = [&credentials.login, &credentials.sentinel_login];
    let mut passwords = logins
        .into_iter()
        .flatten()
        .map(|(_, password)| password.expose());
    // What is shorter is found in any text.
    let is_repeated = passwords.any(|password| password.len() >= 4 && shown.contains(password));
    let address = address.clone();
    if is_repeated {
        let why = format!("{address} repeats the password in its answer, which is not shown");
        return Error::new(kind, op).because(why);
    }
    Error::new(kind, op).with_source(At { address, error })
}

impl Link {
    pub(crate) fn address(&self) -> &Endpoint {
        &self.address
    }

    /// Whether the server said at the beginning that it is a primary.
    pub(crate) fn is_primary(&self) -> bool {
        self.is_primary
    }

    /// Sends commands together, and returns their answers in order. One that the server refused has its error as the answer.
    ///
    /// # Errors
    /// The connection has failed.
    ///
    /// # Cancel safety
    /// After a dropped call, the server may have carried the commands out.
    pub(crate) async fn send(&self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        let mut connection = self.connection.clone();
        connection
            .send_packed_commands(commands, 0, commands.len())
            .await
    }

    /// Has the server tell what is published on these channels. Returns when it has confirmed that.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) async fn subscribe(&self, op: &'static str, channels: &[String]) -> Result<()> {
        let mut connection = self.connection.clone();
        let done = connection.subscribe(channels).await;
        done.map_err(|error| translate(op, error))
    }

    /// Has the server tell these channels no more.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) async fn unsubscribe(&self, op: &'static str, channels: &[String]) -> Result<()> {
        let mut connection = self.connection.clone();
        let done = connection.unsubscribe(channels).await;
        done.map_err(|error| translate(op, error))
    }

    /// Whether the server says now that it is a primary. Every user may ask this, and few `ROLE`.
    ///
    /// # Errors
    /// Why it does not say that.
    pub(crate) async fn says_primary(&self, op: &'static str) -> Result<bool> {
        let mut hello = Pipeline::new();
        hello.cmd("HELLO");
        let answers = self
            .send(&hello)
            .await
            .map_err(|error| translate(op, error))?;
        match answers.first() {
            Some(Value::ServerError(error)) => Err(refused(op, error)),
            Some(answer) => {
                let role = field(answer, "role").ok_or_else(|| odd_answer(op))?;
                Ok(role == "master")
            }
            None => Err(odd_answer(op)),
        }
    }
}

/// What a server that is a replica, where the primary was expected, is told as.
pub(crate) fn no_primary(op: &'static str, address: &Endpoint) -> Error {
    let why = format!("{address} is a replica");
    let hint = "name its primary, or all servers of which one is the primary, or their Sentinels with redis+sentinel://";
    Error::new(ErrorKind::Unavailable, op).with_source(hinted(hint, why))
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Link");
        shown.field("address", &self.address);
        shown.finish_non_exhaustive()
    }
}
