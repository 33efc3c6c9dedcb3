//! A Consul agent of one's own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use async_trait::async_trait;
use sd_core::{Error, ErrorKind, Result};
use sd_testing::{ServerProcess, ServerProgram, free_port, required_env};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const OP: &str = "consul request";
/// More than any answer that a test asks for.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// A running Consul agent with its own ports and data: `ConsulServer::launch(ConsulProgram::from_env()?)`.
pub type ConsulServer = ServerProcess<ConsulProgram>;

/// How a Consul agent is started on free loopback ports. It is a server, the only one of its datacenter, unless told otherwise.
///
/// It elects itself as soon as Consul allows. All else is as Consul has it by default: sessions of 10 s and more, which
/// `with_config(r#"session_ttl_min = "1s""#)` changes, 200 connections for each client address, and services that are
/// critical for too long are removed after a minute at least, looked for every 30 s, which nothing changes.
#[derive(Clone, Debug)]
pub struct ConsulProgram {
    path: PathBuf,
    node: String,
    http: u16,
    https: Option<u16>,
    server: u16,
    gossip: u16,
    wide_gossip: u16,
    is_client: bool,
    token: Option<String>,
    config: Vec<String>,
}

impl ConsulProgram {
    /// The Consul that `SD_TEST_CONSUL_BIN` names.
    ///
    /// # Errors
    /// `NotFound` if the variable is missing.
    pub fn from_env() -> Result<Self> {
        Self::new(required_env("SD_TEST_CONSUL_BIN")?)
    }

    /// The Consul at `path`.
    ///
    /// # Errors
    /// `Unavailable` if there are no free ports.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        let http = free_port()?;
        Ok(Self {
            path: path.into(),
            node: format!("test-{http}"),
            http,
            https: None,
            server: free_port()?,
            gossip: free_port()?,
            wide_gossip: free_port()?,
            is_client: false,
            token: None,
            config: Vec::new(),
        })
    }

    /// Adds configuration in HCL, for instance `limits { http_max_conns_per_client = 1000 }` or `node_meta { zone = "a" }`.
    #[must_use]
    pub fn with_config(mut self, hcl: impl Into<String>) -> Self {
        self.config.push(hcl.into());
        self
    }

    /// Denies what no token allows. `management` is a token that may do everything, a UUID.
    #[must_use]
    pub fn with_acl(mut self, management: impl Into<String>) -> Self {
        let token = management.into();
        self.config.push(format!(
            r#"acl {{
                enabled = true
                default_policy = "deny"
                tokens {{ initial_management = "{token}" agent = "{token}" }}
            }}"#
        ));
        self.token = Some(token);
        self
    }

    /// Serves clients with TLS too, and only those with a certificate that `ca` signed. The files are PEM; the certificate has
    /// to be good for 127.0.0.1. `with_config("tls { https { verify_incoming = false } }")` afterwards serves all clients.
    ///
    /// # Errors
    /// `Unavailable` if there is no free port.
    pub fn with_tls(mut self, ca: &Path, certificate: &Path, key: &Path) -> Result<Self> {
        self.https = Some(free_port()?);
        let [ca, certificate, key] = [ca, certificate, key].map(|path| path.display());
        self.config.push(format!(
            r#"tls {{ https {{
                ca_file = "{ca}"
                cert_file = "{certificate}"
                key_file = "{key}"
                verify_incoming = true
            }} }}"#
        ));
        Ok(self)
    }

    /// A datacenter of another name than `dc1`. With `others`, servers of other datacenters that run already, it answers for
    /// them as well, and they for it, some seconds after the start.
    #[must_use]
    pub fn in_datacenter(mut self, name: &str, others: &[&ConsulProgram]) -> Self {
        self.config.push(format!(r#"datacenter = "{name}""#));
        for other in others {
            let port = other.wide_gossip;
            self.config
                .push(format!(r#"retry_join_wan = ["127.0.0.1:{port}"]"#));
        }
        self
    }

    /// An agent that keeps no data of the datacenter itself but asks `server`, as those beside applications do. With `server`
    /// killed, it answers that there is no leader.
    #[must_use]
    pub fn client_of(mut self, server: &ConsulProgram) -> Self {
        self.is_client = true;
        let port = server.gossip;
        self.config
            .push(format!(r#"retry_join = ["127.0.0.1:{port}"]"#));
        self.config.push(r#"retry_interval = "200ms""#.to_owned());
        self
    }

    /// The name of its node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The URL for clients: `https://` with TLS.
    pub fn url(&self) -> String {
        match self.https {
            Some(port) => format!("https://127.0.0.1:{port}"),
            None => format!("http://127.0.0.1:{}", self.http),
        }
    }

    /// The address for clients, for instance as the target of a [`TcpProxy`](sd_testing::TcpProxy) or an
    /// [`HttpProxy`](sd_testing::HttpProxy).
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.https.unwrap_or(self.http)))
    }

    /// What an operator does: a request without TLS, with the management token if there is one. Returns status and body.
    ///
    /// # Errors
    /// `Unavailable` if no answer comes.
    pub async fn request(&self, method: &str, target: &str, body: &str) -> Result<(u16, String)> {
        self.exchange(method, target, body)
            .await
            .map_err(|e| Error::new(ErrorKind::Unavailable, OP).with_source(e))
    }

    async fn exchange(&self, method: &str, target: &str, body: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).await?;
        let token = match &self.token {
            Some(token) => format!("X-Consul-Token: {token}\r\n"),
            None => String::new(),
        };
        let length = body.len();
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        let request =
            format!("{method} {target} HTTP/1.0\r\n{token}Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(MOST_BYTES).read_to_string(&mut answer).await?;
        let parts = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
            let status = head.split(' ').nth(1)?.parse().ok()?;
            Some((status, body.to_owned()))
        });
        parts.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// A request that succeeds once the agent does what clients ask of it.
    async fn expect(&self, method: &str, target: &str, fits: fn(&str) -> bool) -> Result<()> {
        let (status, body) = self.request(method, target, "").await?;
        if status == 200 && fits(body.trim()) {
            return Ok(());
        }
        let why = format!("{method} {target} is answered with {status} `{body}`");
        Err(Error::new(ErrorKind::Unavailable, OP).because(why))
    }
}

#[async_trait]
impl ServerProgram for ConsulProgram {
    fn name(&self) -> &'static str {
        "consul"
    }

    fn command(&self, data: &Path) -> Command {
        let https = self.https.map_or("-1".to_owned(), |port| port.to_string());
        // By default it is made up and kept with the data: without them, the name would belong to a stranger for a while.
        let id = format!("00000000-0000-4000-8000-{:012}", self.http);
        let mut command = Command::new(&self.path);
        command
            .args(["agent", "-node", &self.node, "-node-id", &id])
            .arg("-data-dir")
            .arg(data)
            .args(["-bind=127.0.0.1", "-client=127.0.0.1"])
            .args(["-http-port", &self.http.to_string()])
            .args(["-https-port", &https])
            .args(["-server-port", &self.server.to_string()])
            .args(["-serf-lan-port", &self.gossip.to_string()])
            .args(["-serf-wan-port", &self.wide_gossip.to_string()])
            .args(["-grpc-port=-1", "-grpc-tls-port=-1", "-dns-port=-1"])
            .args(["-hcl", "performance { raft_multiplier = 1 }"])
            .args(["-hcl", "disable_update_check = true"]);
        if !self.is_client {
            command.args(["-server", "-bootstrap-expect=1"]);
        }
        for config in &self.config {
            command.args(["-hcl", config]);
        }
        command
    }

    async fn ready(&self) -> Result<()> {
        // It names a leader before it takes writes. This one goes through the log like any other, and leaves nothing.
        self.expect("DELETE", "/v1/kv/sd-test-no-such-key", |body| {
            body == "true"
        })
        .await?;
        // Its node comes into the catalog a moment later, and sessions are refused until then.
        let itself = format!("/v1/health/node/{}", self.node);
        self.expect("GET", &itself, |body| body.contains("serfHealth"))
            .await
    }
}
