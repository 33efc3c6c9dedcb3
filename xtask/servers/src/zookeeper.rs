//! ZooKeeper: alone, or a member of an ensemble.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::local_server::{CHECKED_WITHIN, LocalServer, write_once};
use crate::tcp::{self, End};
use crate::zookeeper_session::ZooKeeperSession;

/// A JVM with little memory that compiles little: most of these servers live for seconds.
const JVM: &str = "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1";

/// The file that tells Java of users.
const JAAS: &str = "jaas.cfg";

/// How a ZooKeeper is started. It is alone, unless told otherwise.
///
/// Sessions last from 1 s to 10 minutes, a client address may have any number of connections, and all four-letter words are answered.
#[derive(Clone, Debug)]
pub struct ZooKeeper {
    program: PathBuf,
    client_port: u16,
    /// Where clients come with TLS. None if they come without.
    secure_port: Option<u16>,
    /// None if it is alone.
    member: Option<Member>,
    /// What Java knows of users. None if there are none.
    jaas: Option<String>,
    config: Vec<String>,
}

/// What one member of an ensemble knows.
#[derive(Clone, Debug)]
struct Member {
    id: usize,
    /// Its own line of configuration.
    line: String,
    /// The lines of all members that it knows when it starts.
    ensemble: String,
}

impl ZooKeeper {
    /// The ZooKeeper that `program` runs, a `zkServer.sh`, on a port of 127.0.0.1.
    ///
    /// # Errors
    /// There is no free port.
    pub fn new<E>(
        program: impl Into<PathBuf>,
        mut free_port: impl FnMut() -> Result<u16, E>,
    ) -> Result<Self, E> {
        Ok(Self {
            program: program.into(),
            client_port: free_port()?,
            secure_port: None,
            member: None,
            jaas: None,
            config: Vec::new(),
        })
    }

    /// The members of an ensemble, each on three ports of 127.0.0.1. None serves before most of them run.
    ///
    /// # Errors
    /// There are not enough free ports.
    pub fn ensemble<E>(
        program: impl Into<PathBuf>,
        members: usize,
        mut free_port: impl FnMut() -> Result<u16, E>,
    ) -> Result<Vec<Self>, E> {
        let program = program.into();
        let mut made = Vec::new();
        for id in 1..=members {
            let server = Self::new(&program, &mut free_port)?;
            let line = server.line(id, &mut free_port)?;
            made.push((server, line));
        }
        let lines: Vec<&str> = made.iter().map(|(_, line)| line.as_str()).collect();
        let ensemble = lines.join("\n");
        let with_id = |(index, (server, line)): (usize, (Self, String))| Self {
            member: Some(Member {
                id: index + 1,
                line,
                ensemble: ensemble.clone(),
            }),
            ..server
        };
        Ok(made.into_iter().enumerate().map(with_id).collect())
    }

    /// A further member beside this one, on three ports of 127.0.0.1, with the same lines of configuration. It follows this one, and
    /// becomes a member once an operator [adds](Self::member_line) it.
    ///
    /// # Errors
    /// There are not enough free ports.
    ///
    /// # Panics
    /// This one is alone.
    pub fn joining<E>(&self, mut free_port: impl FnMut() -> Result<u16, E>) -> Result<Self, E> {
        let member = self.member.as_ref();
        let member = member.expect("a server that is alone takes no members");
        let server = Self::new(&self.program, &mut free_port)?;
        let id = member.id + 1;
        let line = server.line(id, &mut free_port)?;
        Ok(Self {
            member: Some(Member {
                id,
                ensemble: format!("{}\n{line}", member.line),
                line,
            }),
            config: self.config.clone(),
            ..server
        })
    }

    /// The line of configuration of a member, by which an operator adds it to the ensemble. None if it is alone.
    pub fn member_line(&self) -> Option<&str> {
        Some(self.member.as_ref()?.line.as_str())
    }

    fn line<E>(
        &self,
        id: usize,
        mut free_port: impl FnMut() -> Result<u16, E>,
    ) -> Result<String, E> {
        let (quorum, election) = (free_port()?, free_port()?);
        let client = self.client_port;
        Ok(format!(
            "server.{id}=127.0.0.1:{quorum}:{election}:participant;127.0.0.1:{client}"
        ))
    }

    /// Adds a line of configuration, for instance `skipACL=yes`.
    #[must_use]
    pub fn with_config(mut self, line: impl Into<String>) -> Self {
        self.config.push(line.into());
        self
    }

    /// Serves clients with TLS, on another port of 127.0.0.1, and asks for their certificates. `server` is a PEM file with its key and the
    /// chain of its certificate, `clients` one with what client certificates are issued by. What asks whether it serves, and what an
    /// operator does, goes without TLS over the port that it also has.
    ///
    /// # Errors
    /// There is no free port.
    pub fn with_tls<E>(
        mut self,
        server: &Path,
        clients: &Path,
        free_port: impl FnOnce() -> Result<u16, E>,
    ) -> Result<Self, E> {
        let port = free_port()?;
        self.secure_port = Some(port);
        self.config.extend([
            // The one that knows of TLS.
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".to_owned(),
            "secureClientPortAddress=127.0.0.1".to_owned(),
            format!("secureClientPort={port}"),
            "ssl.keyStore.type=PEM".to_owned(),
            format!("ssl.keyStore.location={}", property(server)),
            "ssl.trustStore.type=PEM".to_owned(),
            format!("ssl.trustStore.location={}", property(clients)),
            "ssl.clientAuth=need".to_owned(),
        ]);
        Ok(self)
    }

    /// Refuses clients that have not authenticated by the scheme `digest`. Which users there are, and what each may do, is said by the
    /// access lists of nodes.
    #[must_use]
    pub fn with_digest(self) -> Self {
        self.with_config("enforce.auth.enabled=true")
            .with_config("enforce.auth.schemes=digest")
    }

    /// Refuses clients that have not authenticated by SASL with DIGEST-MD5 as one of these users, each with its password. Neither may have
    /// quotation marks in it.
    #[must_use]
    pub fn with_sasl<'a>(mut self, users: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let users = users.into_iter();
        let users = users.map(|(user, password)| format!("    user_{user}=\"{password}\"\n"));
        self.jaas = Some(format!(
            "Server {{\n    org.apache.zookeeper.server.auth.DigestLoginModule required\n{};\n}};\n",
            users.collect::<String>()
        ));
        self.with_config(
            "authProvider.sasl=org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
        )
        .with_config("enforce.auth.enabled=true")
        .with_config("enforce.auth.schemes=sasl")
    }

    /// Ends a session of any client at once, and with it its ephemeral nodes. Its client is told that the session has expired.
    ///
    /// Does it as another client with the session's id and password. Blocks for 30 seconds at most for each answer.
    ///
    /// # Errors
    /// `NotFound` if there is no such session. No answer comes, or the server wants to know who asks.
    pub fn expire_session(&self, id: i64) -> io::Result<()> {
        ZooKeeperSession::expire(self.operators_address(), id)
    }

    /// Where it is reached without TLS.
    pub fn operators_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.client_port))
    }

    /// What it answers to a four-letter word: `srvr`, `cons`, `dump`. Blocks for 5 seconds at most.
    ///
    /// # Errors
    /// No answer comes.
    pub fn four_letter_word(&self, word: &str) -> io::Result<String> {
        ask(self.operators_address(), word)
    }

    /// Asks the ZooKeeper at an address, `host:port`, whether it serves, and returns the version that it reports. Any process may have
    /// started it.
    ///
    /// # Errors
    /// Why it does not serve.
    pub fn serving_at(address: &str) -> io::Result<String> {
        check(tcp::address_of("", address)?)
    }

    /// As [`four_letter_word`](Self::four_letter_word), of one that any process may have started.
    ///
    /// # Errors
    /// No answer comes.
    pub fn four_letter_word_at(server: SocketAddr, word: &str) -> io::Result<String> {
        ask(server, word)
    }
}

impl LocalServer for ZooKeeper {
    fn name(&self) -> &'static str {
        "zookeeper"
    }

    fn prepare(&self, data: &Path) -> io::Result<()> {
        let mut config = vec![
            format!("dataDir={}", property(data)),
            "tickTime=500".to_owned(),
            "initLimit=20".to_owned(),
            "syncLimit=10".to_owned(),
            "minSessionTimeout=1000".to_owned(),
            "maxSessionTimeout=600000".to_owned(),
            "maxClientCnxns=0".to_owned(),
            "admin.enableServer=false".to_owned(),
            "4lw.commands.whitelist=*".to_owned(),
        ];
        if let Some(member) = &self.member {
            let ensemble = data.join("ensemble.cfg");
            write_once(&ensemble, &member.ensemble)?;
            write_once(&data.join("myid"), &member.id.to_string())?;
            config.push("reconfigEnabled=true".to_owned());
            config.push(format!("dynamicConfigFile={}", property(&ensemble)));
        } else {
            config.push("clientPortAddress=127.0.0.1".to_owned());
            config.push(format!("clientPort={}", self.client_port));
        }
        config.extend_from_slice(&self.config);
        if let Some(jaas) = &self.jaas {
            write_once(&data.join(JAAS), jaas)?;
        }
        write_once(&data.join("zoo.cfg"), &(config.join("\n") + "\n"))
    }

    fn command(&self, data: &Path) -> Command {
        let users = data.join(JAAS);
        let flags = match &self.jaas {
            Some(_) => format!(
                "{JVM} -Djava.security.auth.login.config={}",
                users.display()
            ),
            None => JVM.to_owned(),
        };
        let mut command = Command::new(&self.program);
        command
            .arg("start-foreground")
            .arg(data.join("zoo.cfg"))
            .env("SERVER_JVMFLAGS", flags)
            .env("JMXDISABLE", "true")
            .env("ZOO_LOG_DIR", data);
        command
    }

    /// `host:port`, as ZooKeeper's clients have it, whether they come with TLS or without.
    fn url(&self) -> String {
        self.address().to_string()
    }

    fn address(&self) -> SocketAddr {
        let port = self.secure_port.unwrap_or(self.client_port);
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    fn serving(&self) -> io::Result<()> {
        check(self.operators_address())?;
        // It listens there a moment later.
        match self.secure_port {
            Some(_) => TcpStream::connect_timeout(&self.address(), CHECKED_WITHIN).map(drop),
            None => Ok(()),
        }
    }
}

/// A path as a value of a Java properties file.
fn property(path: &Path) -> String {
    path.display().to_string().replace('\\', r"\\")
}

/// The version once it serves. A member that is in no quorum says that it does not.
fn check(server: SocketAddr) -> io::Result<String> {
    let said = ask(server, "srvr")?;
    let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name));
    let (Some(_), Some(version)) = (value("Mode: "), value("Zookeeper version: ")) else {
        let why = format!("ZooKeeper at {server} answers srvr with `{}`", said.trim());
        return Err(io::Error::other(why));
    };
    Ok(version.to_owned())
}

fn ask(server: SocketAddr, word: &str) -> io::Result<String> {
    let deadline = Instant::now() + CHECKED_WITHIN;
    let answer = tcp::ask(server, word.as_bytes(), End::Closed, deadline);
    match answer {
        Ok(answer) => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) => {
            let why = format!("{server} {word}: {error}");
            Err(io::Error::new(error.kind(), why))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Write;

    use super::*;
    use crate::local_server::tests::{line, ports_from, prepared};
    use crate::tcp::tests::server_that_answers;

    #[test]
    fn one_alone_listens_where_clients_are_told() {
        let Ok(alone) = ZooKeeper::new("/bin/zkServer.sh", ports_from(11));
        let alone = alone.with_config("skipACL=yes");
        assert_eq!(line(&alone), "start-foreground /data/zoo.cfg");
        let config = prepared(&alone, "zoo.cfg");
        assert!(config.ends_with("\nclientPortAddress=127.0.0.1\nclientPort=11\nskipACL=yes\n"));
        assert!(!config.contains("dynamicConfigFile"), "{config}");
        assert_eq!(alone.url(), "127.0.0.1:11");
    }

    #[test]
    fn each_member_knows_all_and_which_it_is() {
        let Ok(members) = ZooKeeper::ensemble("/bin/zkServer.sh", 3, ports_from(11));
        let all = "server.1=127.0.0.1:12:13:participant;127.0.0.1:11\n\
                   server.2=127.0.0.1:15:16:participant;127.0.0.1:14\n\
                   server.3=127.0.0.1:18:19:participant;127.0.0.1:17";
        for (member, (id, port)) in members.iter().zip([("1", 11), ("2", 14), ("3", 17)]) {
            assert_eq!(prepared(member, "ensemble.cfg"), all);
            assert_eq!(prepared(member, "myid"), id);
            assert!(!prepared(member, "zoo.cfg").contains("clientPort="));
            assert_eq!(member.address().port(), port);
        }
        let Ok(next) = members[2].joining(ports_from(20));
        let own = "server.4=127.0.0.1:21:22:participant;127.0.0.1:20";
        assert_eq!(next.member_line(), Some(own));
        let (_, third) = all.rsplit_once('\n').unwrap();
        assert_eq!(prepared(&next, "ensemble.cfg"), format!("{third}\n{own}"));
    }

    #[test]
    fn users_of_sasl_are_in_a_file_that_java_reads() {
        let Ok(alone) = ZooKeeper::new("/bin/zkServer.sh", ports_from(11));
        let alone = alone.with_sasl([("u", "p"), ("v", "q")]);
        let jaas = prepared(&alone, "jaas.cfg");
        assert!(
            jaas.contains("required\n    user_u=\"p\"\n    user_v=\"q\"\n;\n};"),
            "{jaas}"
        );
        let command = LocalServer::command(&alone, Path::new("/data"));
        let flag = "-Djava.security.auth.login.config=/data/jaas.cfg";
        assert!(format!("{command:?}").contains(flag), "{command:?}");
    }

    #[test]
    fn with_tls_clients_have_another_port_than_operators() {
        let Ok(alone) = ZooKeeper::new("/bin/zkServer.sh", ports_from(11));
        let [server, clients] = ["/tls/server.pem", "/tls/ca.pem"].map(Path::new);
        let Ok(secure) = alone.with_tls(server, clients, || Ok::<_, Infallible>(21));
        let config = prepared(&secure, "zoo.cfg");
        assert!(config.contains("\nclientPort=11\n"), "{config}");
        assert!(config.contains("\nsecureClientPort=21\n"), "{config}");
        assert!(config.contains("\nssl.keyStore.location=/tls/server.pem\n"));
        assert_eq!(secure.url(), "127.0.0.1:21");
        assert_eq!(secure.operators_address().port(), 11);
    }

    fn asked(answer: &'static str) -> io::Result<String> {
        let (server, _) = server_that_answers(b"srvr", |s| s.write_all(answer.as_bytes()));
        ZooKeeper::serving_at(&server.to_string())
    }

    #[test]
    fn it_serves_once_it_has_a_mode() {
        let served =
            "Zookeeper version: 3.8.0-abc, built on 2024-12-29\nMode: follower\nNodes: 5\n";
        assert_eq!(asked(served).unwrap(), "3.8.0-abc, built on 2024-12-29");
        let alone = "This ZooKeeper instance is not currently serving requests\n";
        let error = asked(alone).unwrap_err().to_string();
        assert!(error.contains("not currently serving"), "{error}");
    }
}
