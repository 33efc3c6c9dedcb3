//! etcd: alone, or a member of a cluster.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::http::Request;
use crate::json;
use crate::local_server::{CHECKED_WITHIN, LocalServer};
use crate::tcp;

/// How an etcd is started. It is the only member of its cluster, unless told otherwise.
#[derive(Clone, Debug)]
pub struct Etcd {
    program: PathBuf,
    scheme: &'static str,
    client_port: u16,
    peer_port: u16,
    name: String,
    /// Where the other members reach it.
    advertised: SocketAddr,
    /// `--initial-cluster`.
    cluster: String,
    extra: Vec<OsString>,
}

/// A member of a cluster, as the others know it.
#[derive(Clone, Debug)]
pub struct EtcdMember {
    /// Unlike that of any other member.
    pub name: String,
    /// Where the others reach it: its [`peer_address`](Etcd::peer_address), or a proxy before it.
    pub address: SocketAddr,
}

impl Etcd {
    /// The etcd at `program`, on two ports of 127.0.0.1.
    ///
    /// # Errors
    /// There is no free port.
    pub fn new<E>(
        program: impl Into<PathBuf>,
        mut free_port: impl FnMut() -> Result<u16, E>,
    ) -> Result<Self, E> {
        let (client_port, peer_port) = (free_port()?, free_port()?);
        let alone = EtcdMember {
            name: "test".to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, peer_port)),
        };
        let etcd = Self {
            program: program.into(),
            scheme: "http",
            client_port,
            peer_port,
            name: String::new(),
            advertised: alone.address,
            cluster: String::new(),
            extra: Vec::new(),
        };
        Ok(etcd.with_cluster(&alone, std::slice::from_ref(&alone)))
    }

    /// The member `own` of a cluster of `all`, which are started at the same time: none serves before most of them do.
    #[must_use]
    pub fn with_cluster(mut self, own: &EtcdMember, all: &[EtcdMember]) -> Self {
        self.name.clone_from(&own.name);
        self.advertised = own.address;
        let all = all.iter();
        let all = all.map(|member| format!("{}=http://{}", member.name, member.address));
        self.cluster = all.collect::<Vec<_>>().join(",");
        self
    }

    /// Adds arguments, for instance `--auto-compaction-retention=1h`.
    #[must_use]
    pub fn with_args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.extra.extend(args.into_iter().map(Into::into));
        self
    }

    /// Serves clients with TLS; the certificates come by [`with_args`](Self::with_args). The server then counts as serving as
    /// soon as it accepts connections.
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.scheme = "https";
        self
    }

    /// Where it listens to other members.
    pub fn peer_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.peer_port))
    }

    /// Asks the etcd at a URL whether it serves, and returns the version that it reports. Any process may have started it.
    ///
    /// # Errors
    /// Why it does not serve.
    pub fn serving_at(url: &str) -> io::Result<String> {
        let (server, deadline) = (
            tcp::address_of("http", url)?,
            Instant::now() + CHECKED_WITHIN,
        );
        let get = |target| Request::get(target).ask(server, deadline)?.ok();
        // True only while it has a leader and commits. 3.4 answers `{"health":"true"}`, 3.6 adds a reason.
        let health = get("/health")?;
        if json::text(&health, "health") != Some("true") {
            return Err(io::Error::other(format!(
                "etcd at {url} says that its health is `{health}`"
            )));
        }
        let version = get("/version")?;
        let said = json::text(&version, "etcdserver");
        said.map(str::to_owned).ok_or_else(|| {
            io::Error::other(format!(
                "etcd at {url} says that its version is `{version}`"
            ))
        })
    }
}

impl LocalServer for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn command(&self, data: &Path) -> Command {
        let client = self.url();
        let mut command = Command::new(&self.program);
        command
            .args(["--name", &self.name, "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .arg("--listen-peer-urls")
            .arg(format!("http://{}", self.peer_address()))
            .arg("--initial-advertise-peer-urls")
            .arg(format!("http://{}", self.advertised))
            .args(["--initial-cluster", &self.cluster])
            .args(&self.extra);
        command
    }

    fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client_port)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.client_port))
    }

    fn serving(&self) -> io::Result<()> {
        if self.scheme == "https" {
            return TcpStream::connect_timeout(&self.address(), CHECKED_WITHIN).map(drop);
        }
        Self::serving_at(&self.url()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_server::tests::{line, ports_from};

    fn etcd(first_port: u16) -> Etcd {
        let Ok(etcd) = Etcd::new("/bin/etcd", ports_from(first_port));
        etcd
    }

    #[test]
    fn one_alone_is_a_cluster_of_its_own() {
        assert_eq!(
            line(&etcd(1)),
            "--name test --data-dir /data \
             --listen-client-urls http://127.0.0.1:1 --advertise-client-urls http://127.0.0.1:1 \
             --listen-peer-urls http://127.0.0.1:2 --initial-advertise-peer-urls http://127.0.0.1:2 \
             --initial-cluster test=http://127.0.0.1:2"
        );
    }

    #[test]
    fn a_member_is_known_to_the_others_under_another_address_than_its_own() {
        let member = |name: &str, port: u16| EtcdMember {
            name: name.to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        };
        let all = [member("m1", 11), member("m2", 12)];
        let second = etcd(1).with_cluster(&all[1], &all).with_args(["--extra"]);
        let line = line(&second);
        assert!(line.starts_with("--name m2 "), "{line}");
        assert!(
            line.ends_with(
                "--listen-peer-urls http://127.0.0.1:2 --initial-advertise-peer-urls http://127.0.0.1:12 \
                 --initial-cluster m1=http://127.0.0.1:11,m2=http://127.0.0.1:12 --extra"
            ),
            "{line}"
        );
    }

    #[test]
    fn with_tls_clients_are_told_so() {
        let etcd = etcd(1).with_tls();
        assert_eq!(etcd.url(), "https://127.0.0.1:1");
        assert_eq!(etcd.peer_address().port(), 2);
    }
}
