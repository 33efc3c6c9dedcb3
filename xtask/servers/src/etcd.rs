//! An etcd of one's own.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use async_trait::async_trait;
use sd_core::{Error, ErrorKind, Result};
use sd_testing::{ServerProcess, ServerProgram, free_port, required_env};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A running etcd with its own ports and data: `EtcdServer::launch(EtcdProgram::from_env()?)`.
pub type EtcdServer = ServerProcess<EtcdProgram>;

/// How an etcd of one member is started on free loopback ports.
#[derive(Clone, Debug)]
pub struct EtcdProgram {
    path: PathBuf,
    scheme: &'static str,
    client_port: u16,
    peer_port: u16,
    extra: Vec<OsString>,
}

impl EtcdProgram {
    /// The etcd that `SD_TEST_ETCD_BIN` names.
    ///
    /// # Errors
    /// `NotFound` if the variable is missing.
    pub fn from_env() -> Result<Self> {
        Self::new(required_env("SD_TEST_ETCD_BIN")?)
    }

    /// The etcd at `path`.
    ///
    /// # Errors
    /// `Unavailable` if there are no free ports.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self {
            path: path.into(),
            scheme: "http",
            client_port: free_port()?,
            peer_port: free_port()?,
            extra: Vec::new(),
        })
    }

    /// Adds arguments, for instance `--auto-compaction-retention=1h`.
    #[must_use]
    pub fn with_args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.extra.extend(args.into_iter().map(Into::into));
        self
    }

    /// Serves clients with TLS; the certificates come by [`with_args`](Self::with_args). The server then counts as ready as
    /// soon as it accepts connections.
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.scheme = "https";
        self
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client_port)
    }

    /// The address for clients, for instance as the target of a [`TcpProxy`](sd_testing::TcpProxy).
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.client_port))
    }
}

#[async_trait]
impl ServerProgram for EtcdProgram {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn command(&self, data: &Path) -> Command {
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let mut command = Command::new(&self.path);
        command
            .args(["--name", "test", "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", &self.url()])
            .args(["--advertise-client-urls", &self.url()])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}")])
            .args(&self.extra);
        command
    }

    async fn ready(&self) -> Result<()> {
        const OP: &str = "etcd health";
        let failed = |e: io::Error| Error::new(ErrorKind::Unavailable, OP).with_source(e);
        let stream = TcpStream::connect(self.address()).await.map_err(failed)?;
        if self.scheme == "https" {
            return Ok(());
        }
        let answer = health(stream).await.map_err(failed)?;
        // 3.4 answers `{"health":"true"}`, 3.6 adds a reason.
        if answer.contains(r#""health":"true""#) {
            return Ok(());
        }
        let body = answer.lines().last().unwrap_or_default();
        Err(Error::new(ErrorKind::Unavailable, OP).because(body))
    }
}

async fn health(mut stream: TcpStream) -> io::Result<String> {
    /// A server that is well says so in less.
    const MOST_BYTES: u64 = 64 * 1024;
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.take(MOST_BYTES).read_to_string(&mut answer).await?;
    Ok(answer)
}
