//! moto: an emulation of AWS, of which Cloud Map is used here.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::http::Request;
use crate::local_server::{CHECKED_WITHIN, LocalServer};
use crate::tcp;

/// How a moto server is started. It keeps everything in memory: started again, it knows nothing.
#[derive(Clone, Debug)]
pub struct Moto {
    program: PathBuf,
    port: u16,
}

impl Moto {
    /// The `moto_server` at `program`, on a port of 127.0.0.1.
    ///
    /// # Errors
    /// There is no free port.
    pub fn new<E>(
        program: impl Into<PathBuf>,
        mut free_port: impl FnMut() -> Result<u16, E>,
    ) -> Result<Self, E> {
        Ok(Self {
            program: program.into(),
            port: free_port()?,
        })
    }

    /// Asks the moto at a URL whether it serves. Any process may have started it. It does not tell its version.
    ///
    /// # Errors
    /// Why it does not serve.
    pub fn serving_at(url: &str) -> io::Result<()> {
        let server = tcp::address_of("http", url)?;
        let list = ask_cloud_map(server, "ListNamespaces", "{}")?;
        if list.contains("\"Namespaces\"") {
            return Ok(());
        }
        let why = format!("moto at {url} lists namespaces as `{list}`");
        Err(io::Error::other(why))
    }

    /// What an operator does: an operation of Cloud Map, with its arguments and its answer in JSON. Blocks for 5 seconds at most.
    ///
    /// # Errors
    /// The operation fails, or no answer comes.
    pub fn cloud_map(&self, operation: &str, arguments: &str) -> io::Result<String> {
        ask_cloud_map(self.address(), operation, arguments)
    }
}

/// As the SDKs ask, but for the signature, which moto does not check.
fn ask_cloud_map(server: SocketAddr, operation: &str, arguments: &str) -> io::Result<String> {
    let target = format!("Route53AutoNaming_v20170314.{operation}");
    let request = Request {
        method: "POST",
        headers: &[
            ("Content-Type", "application/x-amz-json-1.1"),
            ("X-Amz-Target", &target),
            // By this, moto tells one service of AWS from another.
            (
                "Authorization",
                "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/servicediscovery/aws4_request, \
                 SignedHeaders=host, Signature=none",
            ),
        ],
        body: arguments,
        ..Request::get("/")
    };
    request.ask(server, Instant::now() + CHECKED_WITHIN)?.ok()
}

impl LocalServer for Moto {
    fn name(&self) -> &'static str {
        "moto"
    }

    fn command(&self, _data: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["-H", "127.0.0.1", "-p"])
            .arg(self.port.to_string());
        command
    }

    fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    fn serving(&self) -> io::Result<()> {
        Self::serving_at(&self.url())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_server::tests::{line, ports_from};

    #[test]
    fn it_listens_where_clients_are_told() {
        let Ok(moto) = Moto::new("/bin/moto_server", ports_from(11));
        assert_eq!(line(&moto), "-H 127.0.0.1 -p 11");
        assert_eq!(moto.url(), "http://127.0.0.1:11");
    }
}
