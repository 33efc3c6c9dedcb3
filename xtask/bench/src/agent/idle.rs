//! An agent that has nothing to do: what it keeps, and how often it wakes.

use std::time::Duration;

use sd_core::{Instance, RegistrationGuard, Registry};
use sd_etcd::EtcdConfig;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::any_prefix;
use super::caller::Caller;
use super::events::EventStream;
use super::program::Agent;
use crate::election::within;
use crate::ours::ADDRESS;
use crate::part::Part;
use crate::process::{Memory, Meter, Ran};
use crate::report::{Bar, Table};
use crate::stats::Spread;
use crate::{Effort, Error, Result};

const SERVICES: usize = 100;
const LIMIT_MEBIBYTES: f64 = 15.0;
const LIMIT_SHARE: f64 = 0.1;
/// What has just been asked for is over by then. A service is followed for a minute after its last reader.
const SETTLED: Duration = Duration::from_secs(15);
/// More often than idle threads end, whose last part would be missed.
const STEP: Duration = Duration::from_secs(1);

pub(super) fn measure(effort: Effort, runtime: &Runtime, etcd: &str) -> Result<Part> {
    let steps = effort.pick(30, 5);
    let settled = effort.pick(SETTLED, Duration::from_secs(1));
    let mut table = Table::new([
        "what it follows",
        "private memory",
        "of it written to",
        "share of a core",
        "in its busiest second",
        "threads put on a core",
    ]);
    let prefix = any_prefix();
    let others = runtime.block_on(register_each(etcd, &prefix))?;
    let agent = runtime.block_on(Agent::start(etcd, &prefix, &[]))?;
    let mut observe = |what: &str| {
        let idle = runtime.block_on(async {
            sleep(settled).await;
            Idle::observe(agent.pid(), steps).await
        })?;
        table.row(idle.row(what));
        Ok::<_, Error>(idle)
    };
    observe("no service")?;
    runtime.block_on(ask_of_each(&agent))?;
    observe(&format!("{SERVICES} services, of which none is read"))?;
    let streams = runtime.block_on(read_each(&agent))?;
    let read = observe(&format!("{SERVICES} services, each by a stream"))?;
    drop(streams);
    agent.stop()?;
    drop(others);

    let what = format!("an agent at rest, {SERVICES} services followed");
    Ok(Part {
        text: format!("{METHOD}\nOver {steps} s each:\n\n{table}"),
        bars: vec![
            Bar::at_most(
                format!("{what}: private memory"),
                read.memory.private,
                LIMIT_MEBIBYTES,
                |mebibytes| format!("{mebibytes:.1} MiB"),
            ),
            Bar::at_most(
                format!("{what}: share of a core"),
                read.share(),
                LIMIT_SHARE,
                percent,
            ),
        ],
        groups: Vec::new(),
    })
}

fn percent(share: f64) -> String {
    format!("{share:.3} %")
}

/// What an agent at rest takes.
struct Idle {
    memory: Memory,
    seconds: Vec<Ran>,
}

impl Idle {
    async fn observe(pid: u32, steps: usize) -> Result<Self> {
        let mut meter = Meter::of(pid)?;
        let mut seconds = Vec::with_capacity(steps);
        for _ in 0..steps {
            sleep(STEP).await;
            seconds.push(meter.since()?);
        }
        Ok(Self {
            memory: Memory::of(pid)?,
            seconds,
        })
    }

    fn per_second(&self, figure: impl Fn(&Ran) -> f64) -> Vec<f64> {
        let seconds = self.seconds.iter();
        seconds
            .map(|ran| figure(ran) / STEP.as_secs_f64())
            .collect()
    }

    /// Of a core, in per cent.
    fn share(&self) -> f64 {
        mean(&self.shares())
    }

    fn shares(&self) -> Vec<f64> {
        self.per_second(|ran| ran.time.as_secs_f64() * 100.0)
    }

    fn row(&self, what: &str) -> [String; 6] {
        let Memory { private, written } = self.memory;
        let woken = self.per_second(|ran| u32::try_from(ran.times).map_or(f64::NAN, f64::from));
        [
            what.to_owned(),
            format!("{private:.1} MiB"),
            format!("{written:.1} MiB"),
            percent(self.share()),
            percent(Spread::of(self.shares()).highest),
            format!("{:.1}/s", mean(&woken)),
        ]
    }
}

fn mean(figures: &[f64]) -> f64 {
    let count = u32::try_from(figures.len()).map_or(f64::NAN, f64::from);
    figures.iter().sum::<f64>() / count
}

fn service(nth: usize) -> String {
    format!("service-{nth:03}")
}

/// One instance of each service, for as long as what this returns is kept.
async fn register_each(etcd: &str, prefix: &str) -> Result<(Registry, Vec<RegistrationGuard>)> {
    let registry = sd_etcd::connect(EtcdConfig::new([etcd]).with_prefix(prefix))?;
    let mut guards = Vec::with_capacity(SERVICES);
    for nth in 0..SERVICES {
        let instance = Instance::new(service(nth), ADDRESS)?;
        guards.push(registry.register(instance).await?);
    }
    Ok((registry, guards))
}

async fn ask_of_each(agent: &Agent) -> Result<()> {
    let caller = Caller::by_port(agent.address())?;
    for nth in 0..SERVICES {
        let told = caller
            .get(&format!("/v1/services/{}", service(nth)))
            .await?;
        if !told.contains(ADDRESS) {
            return Err(format!("the agent does not know {}: {told}", service(nth)).into());
        }
    }
    Ok(())
}

async fn read_each(agent: &Agent) -> Result<Vec<EventStream>> {
    let mut streams = Vec::with_capacity(SERVICES);
    for nth in 0..SERVICES {
        let path = format!("/v1/services/{}/events", service(nth));
        let mut stream = EventStream::open(agent.address(), &path).await?;
        within("a stream begins", stream.until(ADDRESS)).await??;
        streams.push(stream);
    }
    Ok(streams)
}

const METHOD: &str = "\
**At rest.** An agent without registrations follows 100 services of one instance each, and nothing changes. A service that was asked
for is followed for a minute longer, without a reader; a stream has a heartbeat every 5 s, so that 100 of them are 20 writes each second.
Memory is what the kernel counts as private, with the pages of the program that no other process has mapped. The share of a core is that
of the kernel's figures for each thread, read every second; *threads put on a core* counts wake-ups, and a few threads that were
interrupted.
";
