//! How late changes are seen when more services are followed than an agent allows connections.

use std::time::Duration;

use sd_core::{Registry, Subscription};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};

use super::agent::Agent;
use super::{PATIENCE, connect};
use crate::part::{Part, table_of};
use crate::{Effort, Error, Result};

/// Fewer than the queries that may wait at a time, and more. One after the other: together they would exceed what the agent allows.
const SERVICES: [usize; 2] = [50, 500];

pub(super) fn measure(effort: Effort, runtime: &Runtime, address: &str) -> Result<Part> {
    let samples = effort.pick(150, 10);
    let figures = SERVICES
        .into_iter()
        .map(|services| runtime.block_on(follow(address, services, samples)))
        .collect::<Result<Vec<_>>>()?;
    let names = SERVICES.map(|services| format!("{services} services"));
    let rows = names.iter().map(String::as_str);
    let table = table_of(rows.zip(figures.iter().map(Vec::as_slice)));
    Ok(Part {
        text: format!("{METHOD}\n{samples} samples of each:\n\n{table}"),
        bars: Vec::new(),
        groups: Vec::new(),
    })
}

async fn follow(address: &str, services: usize, samples: usize) -> Result<Vec<Duration>> {
    let mut follower = Follower::connect(address, services).await?;
    let mut figures = Vec::with_capacity(samples);
    for _ in 0..samples {
        figures.push(timeout(PATIENCE, follower.sample()).await??);
    }
    follower.registry.close().await?;
    Ok(figures)
}

/// One registry that follows many services.
struct Follower {
    registry: Registry,
    writer: Agent,
    services: Vec<(String, Subscription)>,
}

impl Follower {
    async fn connect(address: &str, services: usize) -> Result<Self> {
        let registry = connect(address)?;
        let named = (0..services).map(|nth| format!("bench-many-{services}-{nth}"));
        let named = named.map(|name| Ok((name.clone(), registry.subscribe(&*name)?)));
        let services = named.collect::<Result<Vec<_>>>()?;
        for (_, subscription) in &services {
            subscription.wait_until_known(PATIENCE).await?;
        }
        Ok(Self {
            registry,
            writer: Agent::at(address)?,
            services,
        })
    }

    async fn sample(&mut self) -> Result<Duration> {
        let nth = fastrand::usize(..self.services.len());
        let (name, subscription) = &mut self.services[nth];
        // At any point of the others' turns.
        sleep(Duration::from_millis(fastrand::u64(15..600))).await;
        let id = format!("{name}:{:016x}", fastrand::u64(..));
        subscription.state_and_mark_seen();
        let began = Instant::now();
        let seen = async {
            while subscription.state().snapshot().is_empty() {
                subscription.changed().await?;
            }
            Ok::<_, Error>(began.elapsed())
        };
        let (seen, ()) = tokio::try_join!(seen, self.writer.register(name, &id))?;
        self.writer.deregister(&id).await?;
        while !subscription.state().snapshot().is_empty() {
            subscription.changed().await?;
        }
        Ok(seen)
    }
}

const METHOD: &str = "\
**Many services.** One registry follows all of them, another client registers an instance of a random one at a random moment, and
the clock runs until the subscription has it. An agent allows 200 connections per address, so sd-consul keeps 128 blocking
queries at a time; further services take turns of half a second each.
";
