//! The connections to one endpoint at a time: made when first needed, given up when the endpoint does not answer.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Url};
use sd_backend::{CloseSignal, FileThread, Secret, SharedConnection, Unanswered};
use sd_core::Result;

use crate::client::credentials::{Credentials, token};
use crate::config::ConsulConfig;
use crate::config::rules::{FILES, RULES};

/// The header that carries the ACL token.
const TOKEN_HEADER: &str = "x-consul-token";
/// How long a connection that was not used is kept.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// How many of these there may be.
const MOST_IDLE: usize = 16;
/// How soon the operating system asks whether a quiet connection still has another end.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A request that was dropped unanswered after this long puts its connection under suspicion.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// Makes connections with what files say at that time.
pub(crate) struct Connector {
    shared: Arc<Shared>,
    files: FileThread,
}

/// What the thread that reads files uses, too.
struct Shared {
    config: ConsulConfig,
    connection: SharedConnection<Agent>,
}

/// What a request goes out on.
pub(crate) type Connection = sd_backend::Connection<Agent>;

/// A pool of connections to one endpoint, with the token of that time.
pub(crate) struct Agent {
    base: Url,
    http: Client,
    token: Option<Secret>,
}

impl Connector {
    /// For a [checked](ConsulConfig::checked) configuration.
    pub(crate) fn new(config: ConsulConfig, signal: &CloseSignal) -> Self {
        let connection = SharedConnection::new(signal);
        Self {
            shared: Arc::new(Shared { config, connection }),
            files: FileThread::default(),
        }
    }

    pub(crate) fn config(&self) -> &ConsulConfig {
        &self.shared.config
    }

    /// Whether there is another endpoint to turn to.
    pub(crate) fn has_choice(&self) -> bool {
        self.config().endpoints.len() > 1
    }

    /// The connection in use, or a new one with what files say now. Cancel-safe.
    ///
    /// # Errors
    /// As [`FileThread::read_again`].
    pub(crate) async fn connection(&self, op: &'static str) -> Result<Connection> {
        if let Some(connection) = self.shared.connection.current() {
            return Ok(connection);
        }
        let (shared, limit) = (Arc::clone(&self.shared), self.config().request_timeout);
        let connecting = move || shared.connected();
        self.files.read_again(op, FILES, limit, connecting).await
    }

    /// Uses `connection` for nothing new, and another endpoint if there is one.
    pub(crate) fn retire(&self, connection: &Connection) {
        self.shared.connection.retire(connection);
    }

    /// A request goes out on `connection` now.
    pub(crate) fn unanswered<'a>(&'a self, connection: &'a Connection) -> Unanswered<'a, Agent> {
        Unanswered::new(&self.shared.connection, connection, SUSPECT_AFTER)
    }

    /// Reads the token again. If it is another than that of `connection`, the next connection has it. Takes as long as its file takes
    /// to be read. Cancel-safe.
    pub(crate) async fn renew_token(&self, op: &'static str, connection: &Connection) -> bool {
        if !self.config().reads_token() {
            return false;
        }
        let shared = Arc::clone(&self.shared);
        let read = self.files.run(op, move || token(&shared.config)).await;
        // One that cannot be read is no better.
        let renewed = matches!(read, Ok(Ok(token)) if token != connection.token);
        if renewed {
            self.shared.connection.renew(connection);
        }
        renewed
    }
}

impl Shared {
    /// The connection in use, a new one if there is none. Blocks.
    fn connected(&self) -> Result<Connection> {
        match self.connection.current() {
            Some(connection) => Ok(connection),
            None => Ok(self.connection.put(self.connect()?)),
        }
    }

    fn connect(&self) -> Result<Agent> {
        let config = &self.config;
        let credentials = Credentials::read(config)?;
        let turn = self.connection.retirements() % config.endpoints.len().max(1);
        let endpoint = config.endpoints.get(turn).map_or("", String::as_str);
        let wrong = |error: &dyn fmt::Display| RULES.broken("endpoints", error);
        let mut base: Url = endpoint.parse().map_err(|error| wrong(&error))?;
        let mut builder = Client::builder()
            // The agent is asked directly, whatever the environment says of proxies.
            .no_proxy()
            .redirect(Policy::none())
            // Spares a copy of each request. It would only see to refusals that HTTP/1 does not have.
            .retry(reqwest::retry::never())
            .http1_only()
            .connect_timeout(config.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(TCP_KEEP_ALIVE)
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(MOST_IDLE)
            .user_agent(concat!("sd-consul/", env!("CARGO_PKG_VERSION")));
        if let Some(name) = &config.server_name {
            let host = base.host_str().unwrap_or_default().to_owned();
            base.set_host(Some(name)).map_err(|error| wrong(&error))?;
            builder = builder.dns_resolver(Arc::new(OneHost(host)));
        }
        let http = credentials.apply(builder).build().map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.unwrap_or_else(|| error.to_string());
            RULES.broken("ca, cert, key or server_name", cause)
        })?;
        Ok(Agent {
            base,
            http,
            token: credentials.token,
        })
    }
}

impl Agent {
    /// What requests show.
    pub(crate) fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// `text` without our token, should that be in it.
    pub(crate) fn redact(&self, text: &str) -> String {
        match &self.token {
            Some(token) => text.replace(token.expose(), "***"),
            None => text.to_owned(),
        }
    }

    /// A request with our token. Every segment of the path and every value is encoded.
    pub(crate) fn request<'a>(
        &self,
        method: reqwest::Method,
        path: &[&str],
        query: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        let mut query = query.peekable();
        if query.peek().is_some() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.header(TOKEN_HEADER, token.expose()),
            None => request,
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector")
            .field(&self.config().endpoints)
            .finish()
    }
}

/// Finds one host, whatever name is asked for: certificates may name another than the one that is dialled.
struct OneHost(String);

impl Resolve for OneHost {
    fn resolve(&self, _name: Name) -> Resolving {
        let host = self.0.trim_matches(['[', ']']).to_owned();
        Box::pin(async move {
            // The port is that of the URL.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// A file in `folder` that hangs until something is written to it.
#[cfg(test)]
pub(crate) fn hanging_file(folder: &tempfile::TempDir) -> std::path::PathBuf {
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    path
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::{fs, thread};

    use tokio::runtime::{Builder, Runtime};
    use tokio::time::timeout;

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_file_that_hangs_holds_up_no_runtime_and_is_used_once_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = hanging_file(&folder);
        let config = ConsulConfig::default().with_token_file(&path);
        let connector = Arc::new(Connector::new(
            config.checked().unwrap(),
            &CloseSignal::new(),
        ));
        let (tell, told) = mpsc::channel();
        let asking = Arc::clone(&connector);
        thread::spawn(move || {
            let runtime = runtime();
            for _ in 0..3 {
                let asked =
                    async { timeout(Duration::from_millis(50), asking.connection("test")).await };
                assert!(runtime.block_on(asked).is_err());
            }
            // A runtime that is shut down does not wait for it, either.
            drop(runtime);
            tell.send(()).unwrap();
        });
        let done = told.recv_timeout(Duration::from_secs(20));
        done.expect("the thread of a runtime hangs");
        fs::write(&path, "late\n").unwrap();
        let connection = runtime().block_on(connector.connection("test")).unwrap();
        assert_eq!(connection.token(), Some(&Secret::new("late")));
    }

    #[tokio::test]
    async fn a_token_that_was_replaced_is_that_of_the_next_connection() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "first").unwrap();
        let config = ConsulConfig::default().with_token_file(file.path());
        let connector = Connector::new(config.checked().unwrap(), &CloseSignal::new());
        let first = connector.connection("test").await.unwrap();
        assert!(!connector.renew_token("test", &first).await);
        fs::write(file.path(), "second").unwrap();
        assert!(connector.renew_token("test", &first).await);
        let second = connector.connection("test").await.unwrap();
        assert_eq!(second.token(), Some(&Secret::new("second")));
        fs::write(file.path(), "").unwrap();
        assert!(!connector.renew_token("test", &second).await);
    }
}
