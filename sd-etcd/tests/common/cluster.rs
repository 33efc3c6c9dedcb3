//! A cluster whose members come and go, and etcd's own proxy before a server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use async_trait::async_trait;
use etcd_client::Client;
use futures_util::future::join_all;
use sd_core::{Error, ErrorKind, Result};
use sd_testing::{ServerProcess, ServerProgram, free_port, required_env};
use server_programs::{Etcd, EtcdMember, LocalServer};

use super::{LONG, eventually, raw};

/// `etcd grpc-proxy` before one server.
#[derive(Debug)]
pub(crate) struct GrpcProxy {
    program: PathBuf,
    port: u16,
    target: SocketAddr,
}

impl GrpcProxy {
    pub(crate) async fn start(target: SocketAddr) -> ServerProcess<Self> {
        let proxy = Self {
            program: required_env("SD_TEST_ETCD_BIN").unwrap().into(),
            port: free_port().unwrap(),
            target,
        };
        ServerProcess::launch(proxy).await.unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

#[async_trait]
impl ServerProgram for GrpcProxy {
    fn name(&self) -> &'static str {
        "etcd grpc-proxy"
    }

    fn command(&self, data: &Path) -> Command {
        let address = format!("127.0.0.1:{}", self.port);
        let mut command = Command::new(&self.program);
        command
            .args(["grpc-proxy", "start", "--endpoints"])
            .arg(self.target.to_string())
            .args(["--listen-addr", &address])
            .args(["--advertise-client-url", &address])
            .arg("--data-dir")
            .arg(data);
        command
    }

    async fn ready(&self) -> Result<()> {
        let asked = async {
            Client::connect([self.url()], None)
                .await?
                .get("none", None)
                .await
        };
        let answered = asked.await.map(drop);
        answered.map_err(|e| Error::new(ErrorKind::Unavailable, "grpc-proxy").with_source(e))
    }
}

/// A cluster of three, of which each member can be replaced.
pub(crate) struct Cluster {
    members: Vec<(EtcdMember, ServerProcess<Etcd>)>,
    made: usize,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let programs = [(); 3].map(|()| Etcd::from_env().unwrap());
        let all: Vec<EtcdMember> = programs
            .iter()
            .enumerate()
            .map(|(number, program)| EtcdMember {
                name: format!("m{number}"),
                address: program.peer_address(),
            })
            .collect();
        let programs = programs.into_iter().zip(&all);
        // None serves before most of them do.
        let starting =
            programs.map(|(program, own)| ServerProcess::launch(program.with_cluster(own, &all)));
        let started = join_all(starting).await;
        let started = started.into_iter().map(Result::unwrap);
        Self {
            made: all.len(),
            members: all.iter().cloned().zip(started).collect(),
        }
    }

    pub(crate) fn url(&self, at: usize) -> String {
        self.members[at].1.program().url()
    }

    /// Adds a member in place of one, which is removed and killed.
    pub(crate) async fn replace(&mut self, at: usize) {
        let program = Etcd::from_env().unwrap();
        let new = EtcdMember {
            name: format!("m{}", self.made),
            address: program.peer_address(),
        };
        self.made += 1;
        // A member that goes on living.
        let mut raw = raw(&self.url((at + 1) % self.members.len())).await;
        let peer = format!("http://{}", new.address);
        // Refused until the cluster is sure of itself again.
        eventually("a member can be added", LONG, || {
            let (mut raw, peer) = (raw.clone(), peer.clone());
            async move {
                let added = raw.member_add([peer], None).await;
                added.map_or_else(|e| e.to_string().contains("already exist"), |_| true)
            }
        })
        .await;
        let mut all: Vec<EtcdMember> = self.members.iter().map(|(own, _)| own.clone()).collect();
        all.push(new.clone());
        let program = program
            .with_cluster(&new, &all)
            .with_args(["--initial-cluster-state", "existing"]);
        let started = ServerProcess::launch(program).await.unwrap();
        let (old, mut process) = std::mem::replace(&mut self.members[at], (new, started));
        let listed = raw.member_list().await.unwrap();
        let id = listed.members().iter().find(|one| one.name() == old.name);
        let id = id.unwrap().id();
        eventually("a member can be removed", LONG, || {
            let mut raw = raw.clone();
            async move { raw.member_remove(id).await.is_ok() }
        })
        .await;
        process.kill().unwrap();
    }
}
