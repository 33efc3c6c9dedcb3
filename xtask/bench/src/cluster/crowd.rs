//! Many modules at one service: its memory, and the time of one change to all.

use std::convert::Infallible;
use std::time::Duration;

use sd_cluster::{ClusterConfig, Received, RemoteConfig};
use sd_core::{Instance, Registry, Subscription};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::PATIENCE;
use super::service::Service;
use crate::election::within;
use crate::ours::ADDRESS;
use crate::part::{Part, group_of, spread};
use crate::process::Memory;
use crate::report::{Bar, Table};
use crate::source::PAUSE;
use crate::stats::Latency;
use crate::{Effort, Error, Result};

const SIZES: [usize; 3] = [250, 500, 1000];
const QUICK_SIZES: [usize; 3] = [25, 50, 100];
const SHARED: &str = "shared";
/// Modules that begin their sessions at the same time.
const AT_ONCE: usize = 50;
/// What each of the largest crowd may need, beside each of the smallest.
const LINEAR: f64 = 2.0;

pub(super) fn measure(effort: Effort, runtime: &Runtime) -> Result<Part> {
    let changes = effort.pick(20, 3);
    let sizes = effort.pick(SIZES, QUICK_SIZES);
    let mut table = Table::new([
        "modules",
        "the service's private memory",
        "for each module",
        "one change to all, p50",
        "quartiles",
        "longest",
        "for each module, p50",
    ]);
    let mut measured = Vec::with_capacity(sizes.len());
    for size in sizes {
        let crowd = runtime.block_on(Crowd::measure(size, changes))?;
        table.row(crowd.row());
        measured.push(crowd);
    }
    let [fewest, .., most] = &measured[..] else {
        return Err("there are no sizes".into());
    };
    let bar = |what: &str, figure: fn(&Crowd) -> f64| {
        let (few, many) = (fewest.size, most.size);
        Bar::at_most(
            format!("{what} for each of {many} modules, beside each of {few}"),
            figure(most) / figure(fewest),
            LINEAR,
            |ratio| format!("{ratio:.2}×"),
        )
    };
    let all = [("sd-cluster's service", most.times.as_slice())];
    Ok(Part {
        text: format!("{METHOD}\n{changes} changes with each number of modules:\n\n{table}"),
        bars: vec![
            bar("memory of the service", Crowd::kibibytes_each),
            bar("time of one change", Crowd::micros_each),
        ],
        groups: vec![group_of(
            &format!("one change → all {} modules", most.size),
            all,
        )],
    })
}

/// What so many modules took.
struct Crowd {
    size: usize,
    /// MiB, without and with the modules.
    empty: f64,
    full: f64,
    times: Vec<Duration>,
}

impl Crowd {
    /// At a service of their own.
    async fn measure(size: usize, changes: usize) -> Result<Self> {
        let service = Service::start()?;
        let empty = Memory::of(service.pid())?.private;
        let mut members = join(&service, size).await?;
        let full = Memory::of(service.pid())?.private;
        let writer = ClusterConfig::new([service.address.to_string()]).with_module("writer");
        let writer = sd_cluster::connect(writer)?;
        let mut times = Vec::with_capacity(changes);
        // The first one makes room for what is sent, and is not counted.
        for nth in 0..=changes {
            let change = one_change(&writer, &mut members);
            let took = within("all modules have a change", change).await??;
            if nth > 0 {
                times.push(took);
            }
        }
        Ok(Self {
            size,
            empty,
            full,
            times,
        })
    }

    fn row(&self) -> [String; 7] {
        let spread = spread(&self.times);
        [
            self.size.to_string(),
            format!("{:.1} MiB, {:.1} without modules", self.full, self.empty),
            format!("{:.1} KiB", self.kibibytes_each()),
            format!("{:.1} ms", spread.median),
            format!("{:.1}–{:.1} ms", spread.quarter, spread.three_quarters),
            format!("{:.1} ms", Latency::of(self.times.iter().copied()).longest),
            format!("{:.0} µs", self.micros_each()),
        ]
    }

    fn each(&self, all: f64) -> f64 {
        u32::try_from(self.size).map_or(f64::NAN, |size| all / f64::from(size))
    }

    fn kibibytes_each(&self) -> f64 {
        self.each((self.full - self.empty) * 1024.0)
    }

    fn micros_each(&self) -> f64 {
        self.each(spread(&self.times).median * 1000.0)
    }
}

/// A module with a configuration, which follows the one that all follow.
struct Member {
    subscription: Subscription,
    _registry: Registry,
}

async fn join(service: &Service, count: usize) -> Result<Vec<Member>> {
    let mut members = Vec::with_capacity(count);
    while members.len() < count {
        let begun = members.len();
        for nth in begun..count.min(begun + AT_ONCE) {
            let receive = async |_: Received<Value>| Ok::<(), Infallible>(());
            let config = ClusterConfig::new([service.address.to_string()])
                .with_module(format!("module-{nth:04}"))
                .with_required_module(SHARED)
                .with_remote_config(RemoteConfig::new(r#"{"workers":4}"#, receive)?);
            let registry = sd_cluster::connect(config)?;
            members.push(Member {
                subscription: registry.subscribe(SHARED)?,
                _registry: registry,
            });
        }
        for member in &members[begun..] {
            member.subscription.wait_until_known(PATIENCE).await?;
        }
    }
    Ok(members)
}

/// From the call of register until the last one has the instance. It is gone for all when this returns.
async fn one_change(writer: &Registry, members: &mut Vec<Member>) -> Result<Duration> {
    let reading = until_all(members, 1);
    // By then all of them wait.
    sleep(PAUSE).await;
    let began = Instant::now();
    let guard = writer.register(Instance::new(SHARED, ADDRESS)?).await?;
    let last = last_of(reading, members).await?;
    let reading = until_all(members, 0);
    guard.deregister().await?;
    last_of(reading, members).await?;
    Ok(last - began)
}

/// Has each member look, until it sees so many hosts.
fn until_all(members: &mut Vec<Member>, hosts: usize) -> JoinSet<Result<(Member, Instant)>> {
    let looking = members.drain(..).map(|mut member| async move {
        while member.subscription.state().snapshot().len() != hosts {
            member.subscription.changed().await?;
        }
        Ok::<_, Error>((member, Instant::now()))
    });
    looking.collect()
}

/// When the last one saw them. Gives the members back.
async fn last_of(
    reading: JoinSet<Result<(Member, Instant)>>,
    members: &mut Vec<Member>,
) -> Result<Instant> {
    let mut last = None;
    for read in reading.join_all().await {
        let (member, at) = read?;
        members.push(member);
        last = last.max(Some(at));
    }
    last.ok_or_else(|| "there are no modules".into())
}

const METHOD: &str = "\
**Many modules.** All are clients of `sd-cluster` in the process of the bench, each with a session of its own, a configuration with its
schema, and a `Subscription` to the same module. They are at a service in a process of its own, whose memory is what the kernel counts as
private, beside what it had before they came. One change is a module that registers: the clock runs until the last of them has its address,
so that it counts what all clients do with it on the same cores. Each side pings each connection all the while.
";
