//! The servers of a site: one, or several members. Between those of etcd there is a network that can be broken.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_testing::{ServerProcess, ServerProgram, free_port};
use server_programs::testing::ready;
use server_programs::{Consul, Etcd, EtcdMember, LocalServer, Redis, ZooKeeper};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::backend::Backend;
use crate::operator::{
    ConsulOperator, EtcdOperator, Operator, RedisOperator, ZkOperator, leads_zk_ensemble,
};
use crate::peers::Peers;
use crate::plan::Plan;
use crate::process::check_stopped;

/// How long a cluster may take to agree on a leader.
const CLUSTER_LEADER_WITHIN: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// The name that Sentinels know the primary of Redis by.
pub(crate) const REDIS_PRIMARY: &str = "main";
/// The members before the Sentinels: the primary and its replica.
const REDIS_DATA: usize = 2;

/// Running servers, killed when this is dropped.
pub(crate) struct Servers {
    backend: Backend,
    members: Vec<ServerProcess<Member>>,
    peers: Peers,
}

/// One server, by way of this program, so that it is killed when we are.
struct Member {
    name: String,
    server: Arc<dyn LocalServer>,
}

impl Servers {
    /// Starts them and waits until they serve.
    pub(crate) async fn launch(plan: &Plan) -> Result<Self> {
        let (members, peers) = match plan.backend {
            Backend::Etcd => etcd_members(plan).await?,
            Backend::Consul => {
                let agent = Member {
                    name: "agent".to_owned(),
                    server: Arc::new(Consul::new(&plan.program, free_port)?),
                };
                (vec![agent], Peers::between(&[]).await?)
            }
            Backend::Zk => (zk_members(plan)?, Peers::between(&[]).await?),
            Backend::Redis => (redis_members(plan)?, Peers::between(&[]).await?),
        };
        let launch = |member| tokio::spawn(ServerProcess::launch(member));
        let starting: Vec<_> = members.into_iter().map(launch).collect();
        let mut members = Vec::new();
        for started in starting {
            members.push(started.await??);
        }
        Ok(Self {
            backend: plan.backend,
            members,
            peers,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Where clients reach each member that they are told of: with Sentinels these.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let told_of = if self.has_sentinels() { REDIS_DATA } else { 0 };
        let members = self.members.iter().skip(told_of);
        members
            .map(|member| member.program().server.address())
            .collect()
    }

    fn has_sentinels(&self) -> bool {
        self.backend == Backend::Redis && self.len() > 1
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
        match self.backend {
            Backend::Etcd => Ok(Box::new(self.etcd_operator().await?)),
            Backend::Consul => {
                let agent = self.addresses().pop().ok_or("there is no agent")?;
                Ok(Box::new(ConsulOperator::new(agent)))
            }
            Backend::Zk => Ok(Box::new(ZkOperator::connect(&self.addresses()).await?)),
            Backend::Redis => {
                let primary = self.cluster_leader().await?;
                let primary = self.members[primary].program().server.address();
                Ok(Box::new(RedisOperator::new(primary)))
            }
        }
    }

    /// The same for what only etcd can do.
    pub(crate) async fn etcd_operator(&self) -> Result<EtcdOperator> {
        EtcdOperator::connect(&self.urls()).await
    }

    fn urls(&self) -> Vec<String> {
        let members = self.members.iter().map(ServerProcess::program);
        members.map(|member| member.server.url()).collect()
    }

    /// Waits until one of the members leads the others.
    pub(crate) async fn cluster_leader(&self) -> Result<usize> {
        let give_up_at = Instant::now() + CLUSTER_LEADER_WITHIN;
        while Instant::now() < give_up_at {
            for member in 0..self.len() {
                if matches!(self.leads_cluster(member).await, Ok(true)) {
                    return Ok(member);
                }
            }
            sleep(ASK_EVERY).await;
        }
        Err("the cluster has no leader".into())
    }

    async fn leads_cluster(&self, member: usize) -> Result<bool> {
        let server = &self.members[member].program().server;
        match self.backend {
            Backend::Etcd => {
                let mut operator = EtcdOperator::connect(&[server.url()]).await?;
                operator.is_raft_leader().await
            }
            Backend::Consul => Ok(true),
            Backend::Zk => leads_zk_ensemble(server.address()).await,
            Backend::Redis if !self.has_sentinels() => Ok(true),
            Backend::Redis => self.is_redis_primary(server.address()).await,
        }
    }

    /// Whether the Sentinels agree that it is the primary, and it does, too.
    async fn is_redis_primary(&self, server: SocketAddr) -> Result<bool> {
        let said = spawn_blocking(move || Redis::ask_at(&format!("redis://{server}"), &["ROLE"]));
        if !said.await??.contains("\r\nmaster\r\n") {
            return Ok(false);
        }
        for sentinel in self.addresses() {
            let url = format!("redis://{sentinel}");
            let named = spawn_blocking(move || Redis::primary_of(&url, REDIS_PRIMARY)).await?;
            // One that does not answer says nothing else.
            if named.is_ok_and(|named| named != server) {
                return Ok(false);
            }
        }
        Ok(true)
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
    let servers = (0..plan.members)
        .map(|_| Etcd::new(&plan.program, free_port))
        .collect::<Result<Vec<_>, _>>()?;
    let listening: Vec<SocketAddr> = servers.iter().map(Etcd::peer_address).collect();
    let peers = Peers::between(&listening).await?;
    let cluster: Vec<EtcdMember> = (0..plan.members)
        .map(|member| EtcdMember {
            name: format!("m{}", member + 1),
            address: peers.address(member),
        })
        .collect();
    let members = servers.into_iter().zip(&cluster);
    let members = members.map(|(server, own)| Member {
        name: own.name.clone(),
        server: Arc::new(server.with_cluster(own, &cluster)),
    });
    Ok((members.collect(), peers))
}

fn zk_members(plan: &Plan) -> Result<Vec<Member>> {
    let servers = if plan.members > 1 {
        ZooKeeper::ensemble(&plan.program, plan.members, free_port)?
    } else {
        vec![ZooKeeper::new(&plan.program, free_port)?]
    };
    let members = servers.into_iter().enumerate();
    let members = members.map(|(index, server)| Member {
        name: format!("m{}", index + 1),
        server: Arc::new(server),
    });
    Ok(members.collect())
}

fn redis_members(plan: &Plan) -> Result<Vec<Member>> {
    let servers = if plan.members > 1 {
        Redis::sentinels(&plan.program, REDIS_PRIMARY, free_port)?
    } else {
        vec![Redis::new(&plan.program, free_port)?]
    };
    let members = servers.into_iter().enumerate();
    let members = members.map(|(index, server)| Member {
        name: match index.checked_sub(REDIS_DATA) {
            None => format!("m{}", index + 1),
            Some(sentinel) => format!("s{}", sentinel + 1),
        },
        server: Arc::new(server),
    });
    Ok(members.collect())
}

#[async_trait]
impl ServerProgram for Member {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, data: &Path) -> io::Result<()> {
        self.server.prepare(data)
    }

    fn command(&self, data: &Path) -> Command {
        crate::guarded(&self.server.command(data))
    }

    async fn ready(&self) -> sd_core::Result<()> {
        ready(Arc::clone(&self.server)).await
    }
}
