//! Reading: the services, one service once, and the feed of one service.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use redis::Cmd;
use sd_core::port::ServicesWatcher;
use sd_core::{
    Error, ErrorKind, Instancer, Result, Revision, ServiceList, ServiceName, Snapshot, Watcher,
};

use crate::backend::RedisBackend;
use crate::client::Client;
use crate::codec::names::Layout;
use crate::reading::full_read::read_service;
use crate::reading::heartbeat_watcher::{self, HeartbeatWatcher};
use crate::reading::services_watcher::RedisServicesWatcher;
use crate::reading::watcher::RedisWatcher;
use crate::scripts::{ALIVE, args_of, new_history};

/// How many services are asked after at once.
const AT_ONCE: usize = 64;

#[async_trait]
impl Instancer for RedisBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(self.list_services().await?.services)
    }

    async fn list_services(&self) -> Result<ServiceList> {
        const OP: &str = "redis: list services";
        if self.heartbeats.is_some() {
            return Err(cannot_list(OP));
        }
        let (services, unlisted) = read_list(&self.client, &self.layout, OP).await?;
        let services: Vec<_> = services.into_keys().collect();
        Ok(ServiceList::from(services).with_unlisted(unlisted))
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        if self.heartbeats.is_some() {
            return Err(cannot_list("redis: watch services"));
        }
        let watcher = RedisServicesWatcher::open(self).await?;
        Ok(Some(Box::new(watcher)))
    }

    /// A heartbeat has no room for a mark.
    fn tells_withdrawals(&self) -> bool {
        self.heartbeats.is_none()
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        const OP: &str = "redis: list service";
        let as_of = self.clock.now();
        if let Some(heartbeats) = &self.heartbeats {
            let read = heartbeats.read(OP, service).await?;
            return Ok(heartbeat_watcher::snapshot(service, read, 0, as_of));
        }
        let keys = self.layout.keys(service);
        let (mut set, at) = read_service(&self.client, OP, service, &keys, None).await?;
        Ok(set.snapshot(Revision::new(at.history, at.version), as_of))
    }

    /// Always reads everything: that costs one request, as it does to ask whether `known` is still right.
    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        if let Some(heartbeats) = &self.heartbeats {
            let watcher = HeartbeatWatcher::open(heartbeats, &self.clock, service).await?;
            return Ok(Box::new(watcher));
        }
        let watcher = RedisWatcher::open(self, service, known).await?;
        Ok(Box::new(watcher))
    }
}

fn cannot_list(op: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, op).because(
        "heartbeats lie under a key of their own for each service, and nothing lists these: name the service",
    )
}

/// The services that have an instance, each with how long its last one lives unless it is renewed, and how much else is in the list.
pub(super) async fn read_list(
    client: &Client,
    layout: &Layout,
    op: &'static str,
) -> Result<(BTreeMap<ServiceName, Duration>, usize)> {
    let list = layout.list();
    let read = Cmd::new()
        .arg("ZRANGE")
        .arg(&list)
        .arg(0)
        .arg(-1)
        .to_owned();
    let names = client
        .command(op, &list, &read)
        .await?
        .list()?
        .all_bytes()?;
    let services: Vec<_> = names
        .iter()
        .filter_map(|name| Layout::service(name))
        .collect();
    let mut unlisted = names.len() - services.len();
    let asked = stream::iter(services).map(async |service| {
        let rest = rest_of(client, layout, op, &service).await;
        match rest {
            // Another program has made one of its keys something else.
            Err(error) if error.kind() == ErrorKind::InvalidData => Ok((service, None, true)),
            rest => rest.map(|rest| (service, rest, false)),
        }
    });
    let asked: Vec<_> = asked.buffer_unordered(AT_ONCE).try_collect().await?;
    let mut alive = BTreeMap::new();
    for (service, rest, is_odd) in asked {
        unlisted += usize::from(is_odd);
        alive.extend(rest.map(|rest| (service, rest)));
    }
    Ok((alive, unlisted))
}

/// How long the last instance of a service lives unless it is renewed. `None` if there is none.
pub(super) async fn rest_of(
    client: &Client,
    layout: &Layout,
    op: &'static str,
    service: &ServiceName,
) -> Result<Option<Duration>> {
    let keys = layout.keys(service);
    let history = new_history();
    let args = args_of(&keys, &history);
    let mut answer = client.run(op, &ALIVE, &keys.of_service(), &args).await?;
    let is_alive = answer.number::<u64>()? == 1;
    let rest: i64 = answer.number()?;
    Ok(is_alive.then(|| Duration::from_millis(u64::try_from(rest).unwrap_or_default())))
}
