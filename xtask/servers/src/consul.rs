//! Consul: an agent that is the only server of its datacenter, or the client of one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::http::{Answer, Request};
use crate::json;
use crate::local_server::{CHECKED_WITHIN, LocalServer};
use crate::tcp;

/// How long an operator waits for an answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// How a Consul agent is started. It is a server, the only one of its datacenter, unless told otherwise.
///
/// It elects itself as soon as Consul allows. All else is as Consul has it by default: sessions of 10 s and more, which
/// `with_config(r#"session_ttl_min = "1s""#)` changes, 200 connections for each client address, and services that are
/// critical for too long are removed after a minute at least, looked for every 30 s, which nothing changes.
#[derive(Clone, Debug)]
pub struct Consul {
    program: PathBuf,
    node: String,
    http: u16,
    https: u16,
    server: u16,
    gossip: u16,
    wide_gossip: u16,
    has_tls: bool,
    is_client: bool,
    token: Option<String>,
    config: Vec<String>,
}

impl Consul {
    /// The Consul at `program`, on five ports of 127.0.0.1.
    ///
    /// # Errors
    /// There is no free port.
    pub fn new<E>(
        program: impl Into<PathBuf>,
        mut free_port: impl FnMut() -> Result<u16, E>,
    ) -> Result<Self, E> {
        let http = free_port()?;
        Ok(Self {
            program: program.into(),
            node: format!("test-{http}"),
            http,
            https: free_port()?,
            server: free_port()?,
            gossip: free_port()?,
            wide_gossip: free_port()?,
            has_tls: false,
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
    #[must_use]
    pub fn with_tls(mut self, ca: &Path, certificate: &Path, key: &Path) -> Self {
        self.has_tls = true;
        let [ca, certificate, key] = [ca, certificate, key].map(|path| path.display());
        self.config.push(format!(
            r#"tls {{ https {{
                ca_file = "{ca}"
                cert_file = "{certificate}"
                key_file = "{key}"
                verify_incoming = true
            }} }}"#
        ));
        self
    }

    /// A datacenter of another name than `dc1`. With `others`, servers of other datacenters that run already, it answers for
    /// them as well, and they for it, some seconds after the start.
    #[must_use]
    pub fn in_datacenter(mut self, name: &str, others: &[&Self]) -> Self {
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
    pub fn client_of(mut self, server: &Self) -> Self {
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

    /// What an operator does: a request without TLS, with the management token if there is one. Blocks for 30 seconds at most.
    ///
    /// # Errors
    /// No answer comes.
    pub fn request(&self, method: &str, target: &str, body: &str) -> io::Result<Answer> {
        let request = Request {
            method,
            target,
            headers: &self.headers(),
            body,
        };
        request.ask(self.plain(), Instant::now() + ANSWERED_WITHIN)
    }

    /// Asks the Consul at a URL whether it serves, and returns the version that it reports. Any process may have started it.
    ///
    /// # Errors
    /// Why it does not serve.
    pub fn serving_at(url: &str) -> io::Result<String> {
        check(tcp::address_of("http", url)?, &[])
    }

    /// Where it answers without TLS.
    fn plain(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.http))
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        let token = self.token.iter();
        token.map(|token| ("X-Consul-Token", &**token)).collect()
    }
}

impl LocalServer for Consul {
    fn name(&self) -> &'static str {
        "consul"
    }

    fn command(&self, data: &Path) -> Command {
        let https = if self.has_tls {
            self.https.to_string()
        } else {
            "-1".to_owned()
        };
        // By default it is made up and kept with the data: without them, the name would belong to a stranger for a while.
        let id = format!("00000000-0000-4000-8000-{:012}", self.http);
        let mut command = Command::new(&self.program);
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
            // Consul elects itself sooner, and does not look for newer versions on the internet.
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

    /// `https://` with TLS.
    fn url(&self) -> String {
        let scheme = if self.has_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    fn address(&self) -> SocketAddr {
        let port = if self.has_tls { self.https } else { self.http };
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    fn serving(&self) -> io::Result<()> {
        check(self.plain(), &self.headers()).map(drop)
    }
}

/// The version of the agent once it does what clients ask of it.
fn check(agent: SocketAddr, headers: &[(&str, &str)]) -> io::Result<String> {
    let deadline = Instant::now() + CHECKED_WITHIN;
    let ask = |method, target: &str| {
        let request = Request {
            method,
            headers,
            ..Request::get(target)
        };
        request.ask(agent, deadline)?.ok()
    };
    let failed = |why| io::Error::other(format!("Consul at {agent} {why}"));
    // It names a leader before it takes writes. This one goes through the log like any other, and leaves nothing.
    let deleted = ask("DELETE", "/v1/kv/sd-test-no-such-key")?;
    if deleted.trim() != "true" {
        return Err(failed(format!("answers a write with `{deleted}`")));
    }
    let itself = ask("GET", "/v1/agent/self")?;
    let own = |name| {
        let found = json::text(&itself, name);
        found.ok_or_else(|| failed(format!("does not say its {name}")))
    };
    let (node, version) = (own("NodeName")?, own("Version")?);
    // Its node comes into the catalog a moment later, and sessions are refused until then.
    let checks = ask("GET", &format!("/v1/health/node/{node}"))?;
    if !checks.contains("serfHealth") {
        return Err(failed("is not in its own catalog yet".to_owned()));
    }
    Ok(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_server::tests::{line, ports_from};

    fn consul(first_port: u16) -> Consul {
        let Ok(consul) = Consul::new("/bin/consul", ports_from(first_port));
        consul
    }

    #[test]
    fn one_alone_elects_itself_and_serves_without_tls() {
        let alone = consul(11);
        let line = line(&alone);
        for part in [
            "agent -node test-11 -node-id 00000000-0000-4000-8000-000000000011 -data-dir /data ",
            " -http-port 11 -https-port -1 -server-port 13 -serf-lan-port 14 -serf-wan-port 15 ",
            " -server -bootstrap-expect=1",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(alone.url(), "http://127.0.0.1:11");
    }

    #[test]
    fn with_tls_clients_are_told_so_and_an_operator_goes_past_it() {
        let [ca, cert, key] = ["/ca", "/cert", "/key"].map(Path::new);
        let server = consul(11).with_tls(ca, cert, key);
        assert!(line(&server).contains(" -http-port 11 -https-port 12 "));
        assert_eq!(server.url(), "https://127.0.0.1:12");
        assert_eq!((server.address().port(), server.plain().port()), (12, 11));
    }

    #[test]
    fn a_client_joins_its_server_and_a_datacenter_the_others() {
        let server = consul(11);
        let client = line(&consul(21).client_of(&server));
        assert!(
            !client.contains("-server ") && client.contains(r#"retry_join = ["127.0.0.1:14"]"#)
        );
        let far = line(&consul(31).in_datacenter("dc2", &[&server]));
        assert!(
            far.contains(r#"retry_join_wan = ["127.0.0.1:15"]"#),
            "{far}"
        );
    }
}
