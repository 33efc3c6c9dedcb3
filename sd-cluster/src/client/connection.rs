//! Makes connections to config services, for one module each.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rustls_pki_types::ServerName;
use sd_backend::{FileThread, hinted};
use sd_core::{Address, Endpoint, Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;
use tungstenite::protocol::Role;

use crate::client::credentials::Tls;
use crate::client::endpoints::Endpoints;
use crate::client::error::{At, of_upgrade};
use crate::config::ClusterConfig;
use crate::config::rules::{DEFAULT_PORT, FILES, RULES};
use crate::etp::connection::{self, Connection};
use crate::etp::upgrade;
use crate::protocol::events::{MODULE_NAME, PATH};

/// What a query cannot have as it is. A space becomes `%20`, which a service in Go reads as it reads `+`.
const IN_QUERY: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Makes connections, each to the service whose turn it is.
#[derive(Debug)]
pub(crate) struct Connector {
    config: Arc<ClusterConfig>,
    endpoints: Endpoints,
    files: FileThread,
}

impl Connector {
    /// For a [checked](ClusterConfig::checked) configuration.
    ///
    /// # Errors
    /// As the check.
    pub(crate) fn new(config: Arc<ClusterConfig>) -> Result<Self> {
        let endpoints = config.endpoints.addresses(RULES, DEFAULT_PORT)?;
        Ok(Self {
            config,
            endpoints: Endpoints::new(endpoints),
            files: FileThread::default(),
        })
    }

    /// One attempt to connect as `module`, with what files say now. Returns the endpoint with it. Cancel-safe: a dropped call leaves no
    /// connection behind.
    ///
    /// # Errors
    /// Why there is none. `Timeout` if it takes longer than `connect_timeout`.
    pub(crate) async fn connect(
        &self,
        op: &'static str,
        module: &str,
    ) -> Result<(Connection, String)> {
        let Some(endpoint) = self.endpoints.next() else {
            return Err(RULES.broken("endpoints", "name at least one"));
        };
        let limit = self.config.connect_timeout;
        // On the heap: with TLS it is large, and every future that may connect holds it.
        let connecting = Box::pin(self.connect_to(op, endpoint, module));
        match timeout(limit, connecting).await {
            Ok(connected) => connected.map(|connection| (connection, endpoint.to_string())),
            Err(_) => Err(Error::new(ErrorKind::Timeout, op)
                .because(format!("{endpoint} made no connection within {limit:?}"))),
        }
    }

    async fn connect_to(
        &self,
        op: &'static str,
        endpoint: &Endpoint,
        module: &str,
    ) -> Result<Connection> {
        let unavailable =
            |error| Error::new(ErrorKind::Unavailable, op).with_source(At::new(endpoint, error));
        let config = Arc::clone(&self.config);
        let reading = self
            .files
            .read_again(op, FILES, self.config.connect_timeout, move || {
                Tls::read(&config)
            });
        let tls = match self.config.tls().wanted() {
            Some(true) => reading.await?,
            _ => None,
        };
        let stream = TcpStream::connect(endpoint.to_string())
            .await
            .map_err(unavailable)?;
        // Answers are small and waited for.
        stream.set_nodelay(true).map_err(unavailable)?;
        debug!(%endpoint, module, "connected to a config service");
        let Some(tls) = tls else {
            return self.upgrade(op, endpoint, module, stream).await;
        };
        let name = match (&tls.server_name, endpoint.address()) {
            (Some(name), _) => name.clone(),
            (None, Address::Tcp { host, .. }) => {
                let name = ServerName::try_from(host.to_owned());
                name.map_err(|error| RULES.broken("server_name", error))?
            }
            (None, _) => return Err(RULES.broken("endpoints", "write host:port")),
        };
        let agreed = tls.connector.connect(name, stream).await;
        let stream = agreed.map_err(|error| disagreed(op, endpoint, error))?;
        self.upgrade(op, endpoint, module, stream).await
    }

    async fn upgrade<S>(
        &self,
        op: &'static str,
        endpoint: &Endpoint,
        module: &str,
        mut stream: S,
    ) -> Result<Connection>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let target = target(module);
        let headers = self.config.headers()?;
        let host = endpoint.to_string();
        let read: BytesMut = upgrade::ask(&mut stream, &host, &target, &headers)
            .await
            .map_err(|error| of_upgrade(op, endpoint, error))?;
        Ok(connection::open(
            stream,
            Role::Client,
            read,
            self.config.times(),
        ))
    }
}

/// The error of a server with which TLS cannot be agreed on.
fn disagreed(op: &'static str, endpoint: &Endpoint, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => {
            let hint = "it hangs up while TLS is agreed on: it does not speak TLS at this port, or asks for a client certificate";
            let why = format!("{endpoint}: {error}");
            Error::new(ErrorKind::Unavailable, op).with_source(hinted(hint, why))
        }
        io::ErrorKind::InvalidData => {
            Error::new(ErrorKind::Denied, op).with_source(At::new(endpoint, error))
        }
        _ => Error::new(ErrorKind::Unavailable, op).with_source(At::new(endpoint, error)),
    }
}

/// Where a service is asked for a connection of a module.
fn target(module: &str) -> String {
    format!(
        "{PATH}?{MODULE_NAME}={}",
        utf8_percent_encode(module, IN_QUERY)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_module_is_encoded_in_the_target() {
        for (module, expected) in [
            ("orders", "/isp-etp/?module_name=orders"),
            ("mod b&c", "/isp-etp/?module_name=mod%20b%26c"),
            ("a/b+c", "/isp-etp/?module_name=a%2Fb%2Bc"),
            ("größe", "/isp-etp/?module_name=gr%C3%B6%C3%9Fe"),
        ] {
            assert_eq!(target(module), expected);
        }
    }
}
