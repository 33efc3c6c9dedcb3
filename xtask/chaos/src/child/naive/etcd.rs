//! The lock of the naive candidate at etcd: the oldest of some keys, each on a lease.

use async_trait::async_trait;
use etcd_client::{Client, ConnectOptions, GetOptions, PutOptions, SortOrder, SortTarget};
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::child::Brief;
use crate::child::naive::{ANSWER_WITHIN, ELECTION, Lock, POLL_EVERY, Won};
use crate::operator::etcd_entries_of;

struct EtcdLock {
    client: Client,
    lease: i64,
}

pub(super) async fn campaign(brief: &Brief) -> Result<Won> {
    let options = ConnectOptions::new()
        .with_connect_timeout(ANSWER_WITHIN)
        .with_timeout(ANSWER_WITHIN);
    let mut client = Client::connect(&brief.endpoints, Some(options)).await?;
    let ttl = i64::try_from(brief.ttl.as_secs())?;
    let lease = client.lease_grant(ttl, None).await?.id();
    let entries = etcd_entries_of(ELECTION);
    let id = format!("{lease:016x}");
    let key = format!("{entries}{id}");
    let on_lease = PutOptions::new().with_lease(lease);
    client
        .put(key.as_str(), brief.name.as_str(), Some(on_lease))
        .await?;
    let oldest = GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Create, SortOrder::Ascend)
        .with_limit(1);
    let mut renewed = Instant::now();
    loop {
        let first = client.get(entries.as_str(), Some(oldest.clone())).await?;
        let first = first.kvs().first().ok_or("the entry is gone")?;
        if first.key() == key.as_bytes() {
            let token = first.create_revision().cast_unsigned();
            let lock = Box::new(EtcdLock { client, lease });
            return Ok(Won { lock, id, token });
        }
        sleep(POLL_EVERY).await;
        if renewed.elapsed() >= brief.ttl / 3 {
            client.lease_keep_alive(lease).await?;
            renewed = Instant::now();
        }
    }
}

#[async_trait]
impl Lock for EtcdLock {
    async fn renew(&mut self) -> Result<()> {
        self.client.lease_keep_alive(self.lease).await?;
        Ok(())
    }

    async fn give_up(mut self: Box<Self>) -> Result<()> {
        self.client.lease_revoke(self.lease).await?;
        Ok(())
    }
}
