//! The etcd of a site: one server, or three members with a network between them that can be broken.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::testing::{ServerProcess, ServerProgram, free_port};
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::operator::Operator;
use crate::peers::Peers;
use crate::process::check_stopped;

/// How long a cluster may take to agree on a raft leader.
const RAFT_LEADER_WITHIN: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Running servers, killed when this is dropped.
pub(crate) struct Servers {
    members: Vec<ServerProcess<Member>>,
    peers: Peers,
}

/// How one member is started.
#[derive(Debug)]
struct Member {
    program: PathBuf,
    name: String,
    client: SocketAddr,
    /// Where it listens to other members.
    peer: SocketAddr,
    /// Where they reach it.
    peer_address: SocketAddr,
    /// `--initial-cluster`.
    cluster: String,
}

fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

impl Servers {
    /// Starts this many members and waits until they serve.
    pub(crate) async fn launch(program: &Path, members: usize) -> Result<Self> {
        let listening = (0..members)
            .map(|_| free_address())
            .collect::<Result<Vec<_>>>()?;
        let peers = Peers::between(&listening).await?;
        let names = (0..members).map(|member| format!("m{}", member + 1));
        let cluster: Vec<String> = names
            .enumerate()
            .map(|(member, name)| format!("{name}=http://{}", peers.address(member)))
            .collect();
        let mut starting = Vec::new();
        for (member, peer) in listening.into_iter().enumerate() {
            starting.push(tokio::spawn(ServerProcess::launch(Member {
                program: program.to_owned(),
                name: format!("m{}", member + 1),
                client: free_address()?,
                peer,
                peer_address: peers.address(member),
                cluster: cluster.join(","),
            })));
        }
        let mut servers = Self {
            members: Vec::new(),
            peers,
        };
        for started in starting {
            servers.members.push(started.await??);
        }
        Ok(servers)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Where clients reach each member.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members
            .iter()
            .map(|member| member.program().client)
            .collect()
    }

    pub(crate) fn name(&self, member: usize) -> String {
        self.members[member].program().name.clone()
    }

    /// What the servers have written, for whoever looks for the cause of a failure.
    pub(crate) fn logs(&self) -> Vec<(String, String)> {
        let log = |member: &ServerProcess<Member>| (member.program().name.clone(), member.log());
        self.members.iter().map(log).collect()
    }

    /// A client past all proxies.
    pub(crate) async fn operator(&self) -> Result<Operator> {
        let urls: Vec<String> = self
            .members
            .iter()
            .map(|member| member.program().url())
            .collect();
        Operator::connect(&urls).await
    }

    /// Waits until there is a raft leader.
    pub(crate) async fn raft_leader(&self) -> Result<usize> {
        let give_up_at = Instant::now() + RAFT_LEADER_WITHIN;
        while Instant::now() < give_up_at {
            for (index, member) in self.members.iter().enumerate() {
                let asked = async {
                    let mut operator = Operator::connect(&[member.program().url()]).await?;
                    operator.is_raft_leader().await
                };
                if matches!(asked.await, Ok(true)) {
                    return Ok(index);
                }
            }
            sleep(ASK_EVERY).await;
        }
        Err("the cluster has no raft leader".into())
    }

    pub(crate) fn kill(&mut self, member: usize) -> Result<()> {
        Ok(self.members[member].kill()?)
    }

    /// SIGTERM; returns when the process has ended.
    pub(crate) async fn terminate(&mut self, member: usize) -> Result<()> {
        Ok(self.members[member].stop().await?)
    }

    /// Starts it with its data and waits until it serves.
    pub(crate) async fn start(&mut self, member: usize) -> Result<()> {
        Ok(self.members[member].restart().await?)
    }

    pub(crate) fn freeze(&self, member: usize) -> Result<()> {
        Ok(self.members[member].freeze()?)
    }

    /// # Errors
    /// It was not frozen until now, too.
    pub(crate) fn thaw(&self, member: usize) -> Result<()> {
        let was_stopped = check_stopped(self.members[member].id());
        self.members[member].thaw()?;
        was_stopped
    }

    /// Cuts it off from the other members, not from its clients.
    pub(crate) async fn cut_off(&mut self, member: usize) -> Result<()> {
        self.peers.cut_off(member).await
    }

    /// # Errors
    /// It was not cut off until now, too.
    pub(crate) async fn heal(&mut self, member: usize) -> Result<()> {
        self.peers.heal(member).await
    }
}

impl Member {
    fn url(&self) -> String {
        format!("http://{}", self.client)
    }
}

#[async_trait]
impl ServerProgram for Member {
    fn name(&self) -> &str {
        &self.name
    }

    fn command(&self, data: &Path) -> Command {
        let peer = format!("http://{}", self.peer);
        // By way of this program, so that it is killed when we are.
        let mut command = crate::guarded(&self.program);
        command
            .args(["--name", &self.name, "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", &self.url()])
            .args(["--advertise-client-urls", &self.url()])
            .args(["--listen-peer-urls", &peer])
            .args([
                "--initial-advertise-peer-urls",
                &format!("http://{}", self.peer_address),
            ])
            .args(["--initial-cluster", &self.cluster]);
        command
    }

    async fn ready(&self) -> sd_core::Result<()> {
        // A linearizable read: it serves, and has a leader.
        let served = async {
            let mut operator = Operator::connect(&[self.url()]).await?;
            operator.count(crate::history::Election::Plain).await
        };
        match served.await {
            Ok(_) => Ok(()),
            Err(error) => Err(
                sd_core::Error::new(sd_core::ErrorKind::Unavailable, "etcd member")
                    .because(crate::chain(&error)),
            ),
        }
    }
}
