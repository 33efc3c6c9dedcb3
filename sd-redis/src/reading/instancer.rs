//! Reading: the services, one service once, and the feed of one service.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use redis::Cmd;
use sd_core::port::ServicesWatcher;
use sd_core::{Error, ErrorKind, Instancer, Result, ServiceList, ServiceName, Snapshot, Watcher};

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
        let read = read_list(&self.client, &self.layout, OP).await?;
        let services: Vec<_> = read.alive.into_keys().collect();
        let unlisted = read.odd + read.unknown.len();
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
        let before = self.positions.last(service);
        let (mut set, looked) = read_service(&self.client, OP, service, &keys, None).await?;
        let at = looked.at.after(before.as_ref());
        Ok(set.snapshot(at.revision(), as_of))
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

/// What is known of all services.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Those that have an instance, each with how long its last one lives unless it is renewed.
    pub(super) alive: BTreeMap<ServiceName, Duration>,
    /// Those that could not be asked after: their node is lost, or we may not read them.
    pub(super) unknown: Vec<ServiceName>,
    /// How much else is in the list.
    pub(super) odd: usize,
}

/// Reads the list of services, and asks after each.
///
/// # Errors
/// The list cannot be read, or no service can be asked after.
pub(super) async fn read_list(
    client: &Client,
    layout: &Layout,
    op: &'static str,
) -> Result<Listed> {
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
    let mut listed = Listed {
        odd: names.len() - services.len(),
        ..Listed::default()
    };
    let mut asked = rests_of(client, layout, op, services);
    let (mut has_answered, mut failed) = (false, None);
    while let Some((service, rest)) = asked.next().await {
        has_answered |= rest.is_ok();
        match rest {
            Ok(Some(rest)) => drop(listed.alive.insert(service, rest)),
            Ok(None) => {}
            // Another program has made one of its keys something else.
            Err(error) if error.kind() == ErrorKind::InvalidData => listed.odd += 1,
            Err(error) => {
                listed.unknown.push(service);
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) if !has_answered => Err(error),
        _ => Ok(listed),
    }
}

/// As [`rest_of`], for many services, in the order in which the answers come.
pub(super) fn rests_of<'a>(
    client: &'a Client,
    layout: &'a Layout,
    op: &'static str,
    services: Vec<ServiceName>,
) -> BoxStream<'a, (ServiceName, Result<Option<Duration>>)> {
    let asked = stream::iter(services).map(move |service| async move {
        let rest = rest_of(client, layout, op, &service).await;
        (service, rest)
    });
    asked.buffer_unordered(AT_ONCE).boxed()
}

/// How long the last instance of a service lives unless it is renewed. `None` if there is none.
async fn rest_of(
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
