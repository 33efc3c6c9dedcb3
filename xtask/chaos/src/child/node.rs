//! One process with a candidate in each election.

use std::time::Duration;
use std::{io, thread};

use sd_consul::ConsulConfig;
use sd_core::Registry;
use sd_etcd::EtcdConfig;
use sd_redis::{RedisConfig, Topology};
use sd_zk::ZkConfig;
use tokio::sync::watch;

use crate::Result;
use crate::backend::Backend;
use crate::child::journal::Journal;
use crate::child::{Brief, Order, die_with, naive, ours};
use crate::history::{Election, Event};
use crate::operator::{CONSUL_PREFIX, ETCD_PREFIX, REDIS_PREFIX, ZK_PREFIX};
use crate::servers::REDIS_PRIMARY;

/// Runs until its standard input ends, which means that it is not needed any more.
pub(crate) fn run(brief: &Brief) -> Result<()> {
    die_with(brief.parent)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(stand(brief))
}

async fn stand(brief: &Brief) -> Result<()> {
    let journal = Journal::new(&brief.name);
    let orders = orders();
    let ours = |election| {
        // Of its own: candidates of one registry may share a session, and operators end only the sessions of some elections.
        let registry = registry(brief)?;
        let stand = ours::Stand::new(brief, &registry, election, &journal)?;
        Ok::<_, crate::Error>(stand.run(orders.clone()))
    };
    let elections = async {
        tokio::try_join!(
            ours(Election::Plain)?,
            ours(Election::Delayed)?,
            naive::run(brief, &journal, orders.clone()),
        )?;
        journal.tell(Event::Idle);
        std::future::pending::<Result<()>>().await
    };
    tokio::select! {
        ended = elections => ended,
        () = dismissed(orders.clone()) => Ok(()),
    }
}

pub(super) fn registry(brief: &Brief) -> Result<Registry> {
    connect(brief.backend, brief.endpoints.clone(), brief.lock_delay)
}

/// As a service would that wants to notice soon when its server is gone.
pub(crate) fn connect(
    backend: Backend,
    endpoints: Vec<String>,
    lock_delay: Duration,
) -> Result<Registry> {
    const PING: Duration = Duration::from_secs(1);
    Ok(match backend {
        Backend::Etcd => sd_etcd::connect(
            EtcdConfig::new(endpoints)
                .with_election_prefix(ETCD_PREFIX)
                .with_connect_timeout(PING)
                .with_keep_alive(PING, PING),
        )?,
        Backend::Consul => sd_consul::connect(
            ConsulConfig::new(endpoints)
                .with_election_prefix(CONSUL_PREFIX)
                .with_lock_delay(lock_delay)
                .with_connect_timeout(PING)
                .with_request_timeout(2 * PING)
                // So is a feed known to be dead after some seconds.
                .with_wait(5 * PING),
        )?,
        Backend::Redis => {
            let members = endpoints.len();
            let config = RedisConfig::new(endpoints)
                .with_election_prefix(REDIS_PREFIX)
                .with_connect_timeout(PING)
                .with_request_timeout(PING)
                .with_keep_alive_interval(PING);
            // One endpoint is that of a server, several are those of its Sentinels.
            sd_redis::connect(if members > 1 {
                let config = config.with_topology(Topology::Sentinel);
                config.with_primary(REDIS_PRIMARY)
            } else {
                config
            })?
        }
        Backend::Zk => sd_zk::connect(
            ZkConfig::new(endpoints)
                .with_election_prefix(ZK_PREFIX)
                .with_session_timeout(backend.ttl())
                .with_request_timeout(2 * PING),
        )?,
    })
}

/// The orders that come on standard input, read by a thread that may wait there for as long as the process lives. The channel is
/// closed when they end.
pub(super) fn orders() -> watch::Receiver<Order> {
    let (order, orders) = watch::channel(Order::Wander);
    thread::spawn(move || {
        for line in io::stdin().lines() {
            let read = line.map_err(crate::Error::from);
            match read.and_then(|line| Ok(serde_json::from_str(&line)?)) {
                Ok(next) => drop(order.send_replace(next)),
                Err(error) => {
                    tracing::error!(%error, "invalid order");
                    return;
                }
            }
        }
    });
    orders
}

/// Returns when there are no more orders.
pub(super) async fn dismissed(mut orders: watch::Receiver<Order>) {
    while orders.changed().await.is_ok() {}
}
