//! One member of an etcd cluster.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::history::Election;
use crate::operator::{EtcdOperator, Operator};

/// How it is started.
#[derive(Debug)]
pub(super) struct EtcdMember {
    pub(super) program: PathBuf,
    pub(super) name: String,
    pub(super) client: SocketAddr,
    /// Where it listens to other members.
    pub(super) peer: SocketAddr,
    /// Where they reach it.
    pub(super) peer_address: SocketAddr,
    /// `--initial-cluster`.
    pub(super) cluster: String,
}

impl EtcdMember {
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.client)
    }

    pub(super) fn command(&self, data: &Path) -> Command {
        let peer = format!("http://{}", self.peer);
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

    /// A linearizable read: it serves, and has a leader.
    pub(super) async fn ready(&self) -> Result<()> {
        let mut operator = EtcdOperator::connect(&[self.url()]).await?;
        operator.count(Election::Plain).await.map(drop)
    }
}
