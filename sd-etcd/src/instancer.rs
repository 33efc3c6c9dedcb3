//! Reading: the services, one service once, and the feed of one service.

use async_trait::async_trait;
use etcd_client::GetOptions;
use sd_core::{Error, ErrorKind, Instancer, Result, ServiceName, Snapshot, Watcher};

use crate::backend::EtcdBackend;
use crate::client::{Client, Position, position};
use crate::codec::Layout;
use crate::entries::Entries;
use crate::watcher::EtcdWatcher;

/// Records that are read in one request.
const PAGE: i64 = 1000;
/// How often a read starts over because its revision was compacted between two pages.
const MOST_STARTS: u32 = 3;

#[async_trait]
impl Instancer for EtcdBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        const OP: &str = "etcd: list services";
        let (all, end) = self.layout.all();
        let options = GetOptions::new()
            .with_range(end)
            .with_limit(1)
            .with_keys_only();
        let mut services = Vec::new();
        let mut from = all.clone().into_bytes();
        // One request for each service, however many instances it has: the next one begins after all keys of this one.
        loop {
            let answer = self.client.get(OP, &from, &options).await?;
            let Some(first) = answer.kvs().first() else {
                services.sort();
                return Ok(services);
            };
            let mut key = first.key().to_vec();
            let name = key.get(all.len()..).unwrap_or_default();
            if let Some(length) = name.iter().position(|byte| *byte == b'/') {
                key.truncate(all.len() + length);
                // Other programs' keys may lie here, too.
                let name = String::from_utf8_lossy(key.get(all.len()..).unwrap_or_default());
                services.extend(ServiceName::new(name));
                from = after_folder(key);
            } else {
                from = after_key(key);
            }
        }
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let as_of = self.clock.now();
        let (mut entries, position) = read(
            &self.client,
            &self.layout,
            "etcd: list service",
            service,
            None,
        )
        .await?;
        Ok(entries.snapshot(position, as_of))
    }

    /// Always reads everything. The position of `known` proves nothing: a cluster that lost its data and was started anew has
    /// the same cluster id, and may have passed the same revision.
    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        let watcher = EtcdWatcher::open(self, service, known).await?;
        Ok(Box::new(watcher))
    }
}

/// Reads all records of a service at one revision.
pub(crate) async fn read(
    client: &Client,
    layout: &Layout,
    op: &'static str,
    service: &ServiceName,
    known: Option<&Snapshot>,
) -> Result<(Entries, Position)> {
    let mut starts = 0;
    loop {
        starts += 1;
        match read_at_one_revision(client, layout, op, service, known).await {
            Err(error) if error.kind() == ErrorKind::Outdated && starts < MOST_STARTS => {}
            done => return done,
        }
    }
}

async fn read_at_one_revision(
    client: &Client,
    layout: &Layout,
    op: &'static str,
    service: &ServiceName,
    known: Option<&Snapshot>,
) -> Result<(Entries, Position)> {
    let (prefix, end) = layout.service(service);
    let mut entries = Entries::new(service.clone(), prefix.clone());
    let mut options = GetOptions::new().with_range(end).with_limit(PAGE);
    let mut from = prefix.into_bytes();
    let mut first: Option<Position> = None;
    loop {
        let page = client.get(op, &from, &options).await?;
        let at = position(op, page.header())?;
        let first = *first.get_or_insert(at);
        if first.cluster != at.cluster {
            return Err(Error::new(ErrorKind::Outdated, op)
                .because("the pages of one read came from different clusters"));
        }
        for entry in page.kvs() {
            entries.put(entry.key(), entry.value(), entry.into(), known);
        }
        let Some(last) = page.kvs().last().filter(|_| page.more()) else {
            return Ok((entries, first));
        };
        from = after_key(last.key().to_vec());
        options = options.with_revision(first.revision);
    }
}

/// The first key that may follow `key`.
fn after_key(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The first key that may follow all keys below `folder/`.
fn after_folder(mut folder: Vec<u8>) -> Vec<u8> {
    folder.push(b'/' + 1);
    folder
}
