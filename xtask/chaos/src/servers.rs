//! The servers of a site: one, or three members of etcd with a network between them that can be broken.

mod etcd;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;
use sd_testing::{ServerProcess, ServerProgram, free_port};
use server_programs::ConsulProgram;
use tokio::time::{Instant, sleep};

use self::etcd::EtcdMember;
use crate::Result;
use crate::backend::Backend;
use crate::operator::{ConsulOperator, EtcdOperator, Operator};
use crate::peers::Peers;
use crate::plan::Plan;
use crate::process::check_stopped;

/// How long a cluster may take to agree on a raft leader.
const RAFT_LEADER_WITHIN: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Running servers, killed when this is dropped.
pub(crate) struct Servers {
    members: Vec<ServerProcess<Member>>,
    peers: Peers,
}

/// How one server is started.
enum Member {
    Etcd(EtcdMember),
    Consul(ConsulProgram),
}

fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

impl Servers {
    /// Starts them and waits until they serve.
    pub(crate) async fn launch(plan: &Plan) -> Result<Self> {
        let (members, peers) = match plan.backend {
            Backend::Etcd => etcd_members(plan).await?,
            Backend::Consul => {
                let agent = Member::Consul(ConsulProgram::new(&plan.program)?);
                (vec![agent], Peers::between(&[]).await?)
            }
        };
        let launch = |member| tokio::spawn(ServerProcess::launch(member));
        let starting: Vec<_> = members.into_iter().map(launch).collect();
        let mut members = Vec::new();
        for started in starting {
            members.push(started.await??);
        }
        Ok(Self { members, peers })
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Where clients reach each member.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members
            .iter()
            .map(|member| member.program().address())
            .collect()
    }

    pub(crate) fn name(&self, member: usize) -> String {
        self.members[member].program().name().to_owned()
    }

    /// What the servers have written, for finding the cause of a failure.
    pub(crate) fn logs(&self) -> Vec<(String, String)> {
        let log =
            |member: &ServerProcess<Member>| (member.program().name().to_owned(), member.log());
        self.members.iter().map(log).collect()
    }

    /// A client past all proxies.
    pub(crate) async fn operator(&self) -> Result<Box<dyn Operator>> {
        match self.members.first().map(ServerProcess::program) {
            Some(Member::Consul(agent)) => Ok(Box::new(ConsulOperator::new(agent.address()))),
            _ => Ok(Box::new(self.etcd_operator().await?)),
        }
    }

    /// The same for what only etcd can do.
    pub(crate) async fn etcd_operator(&self) -> Result<EtcdOperator> {
        EtcdOperator::connect(&self.etcd_urls()).await
    }

    fn etcd_urls(&self) -> Vec<String> {
        let members = self.members.iter().map(ServerProcess::program);
        members
            .filter_map(|member| match member {
                Member::Etcd(member) => Some(member.url()),
                Member::Consul(_) => None,
            })
            .collect()
    }

    /// Waits until members of etcd have a raft leader.
    pub(crate) async fn raft_leader(&self) -> Result<usize> {
        let give_up_at = Instant::now() + RAFT_LEADER_WITHIN;
        while Instant::now() < give_up_at {
            for (index, url) in self.etcd_urls().into_iter().enumerate() {
                let asked = async {
                    let mut operator = EtcdOperator::connect(&[url]).await?;
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

async fn etcd_members(plan: &Plan) -> Result<(Vec<Member>, Peers)> {
    let listening = (0..plan.members)
        .map(|_| free_address())
        .collect::<Result<Vec<_>>>()?;
    let peers = Peers::between(&listening).await?;
    let name = |member: usize| format!("m{}", member + 1);
    let cluster: Vec<String> = (0..plan.members)
        .map(|member| format!("{}=http://{}", name(member), peers.address(member)))
        .collect();
    let mut members = Vec::new();
    for (member, peer) in listening.into_iter().enumerate() {
        members.push(Member::Etcd(EtcdMember {
            program: plan.program.clone(),
            name: name(member),
            client: free_address()?,
            peer,
            peer_address: peers.address(member),
            cluster: cluster.join(","),
        }));
    }
    Ok((members, peers))
}

impl Member {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Etcd(member) => member.client,
            Self::Consul(agent) => agent.address(),
        }
    }
}

#[async_trait]
impl ServerProgram for Member {
    fn name(&self) -> &str {
        match self {
            Self::Etcd(member) => &member.name,
            Self::Consul(_) => "agent",
        }
    }

    /// By way of this program, so that it is killed when we are.
    fn command(&self, data: &Path) -> Command {
        match self {
            Self::Etcd(member) => member.command(data),
            Self::Consul(agent) => {
                let agent = agent.command(data);
                let mut command = crate::guarded(Path::new(agent.get_program()));
                command.args(agent.get_args());
                command
            }
        }
    }

    async fn ready(&self) -> sd_core::Result<()> {
        match self {
            Self::Etcd(member) => member.ready().await.map_err(|error| {
                sd_core::Error::new(sd_core::ErrorKind::Unavailable, "etcd member")
                    .because(crate::chain(&error))
            }),
            Self::Consul(agent) => agent.ready().await,
        }
    }
}
