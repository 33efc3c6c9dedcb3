//! The lock of the naive candidate at ZooKeeper: the first of some nodes, each ephemeral. It takes it that it leads for as long as its
//! session answers.

use async_trait::async_trait;
use tokio::time::{sleep, timeout};
use zookeeper_client as zk;

use crate::Result;
use crate::child::Brief;
use crate::child::naive::{ANSWER_WITHIN, ELECTION, Lock, POLL_EVERY, Won};
use crate::operator::{ZK_BEFORE_NUMBER, zk_candidates_of, zk_first};

struct ZkLock {
    client: zk::Client,
    path: String,
}

pub(super) async fn campaign(brief: &Brief) -> Result<Won> {
    let connector = zk::Client::connector().with_session_timeout(brief.ttl);
    let servers = brief.endpoints.join(",");
    let client = timeout(ANSWER_WITHIN, connector.connect(&servers)).await??;
    let folder = zk_candidates_of(ELECTION);
    let persistent = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    client.mkdir(&folder, &persistent).await?;
    let in_order = zk::CreateMode::EphemeralSequential.with_acls(zk::Acls::anyone_all());
    let prefix = format!("{folder}/{ZK_BEFORE_NUMBER}");
    let created = client.create(&prefix, brief.name.as_bytes(), &in_order);
    let (stat, number) = created.await?;
    let node = format!("{ZK_BEFORE_NUMBER}{number}");
    loop {
        let nodes = client.list_children(&folder).await?;
        if !nodes.contains(&node) {
            return Err("the entry is gone".into());
        }
        if zk_first(&nodes) == Some(&node) {
            let path = format!("{folder}/{node}");
            return Ok(Won {
                lock: Box::new(ZkLock { client, path }),
                id: node,
                token: stat.czxid.cast_unsigned(),
            });
        }
        sleep(POLL_EVERY).await;
    }
}

#[async_trait]
impl Lock for ZkLock {
    async fn renew(&mut self) -> Result<()> {
        self.client.check_stat("/").await?;
        Ok(())
    }

    async fn give_up(self: Box<Self>) -> Result<()> {
        Ok(self.client.delete(&self.path, None).await?)
    }
}
