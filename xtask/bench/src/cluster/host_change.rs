//! From a module that joins or leaves to those that follow it.

use std::time::Duration;

use sd_cluster::ClusterConfig;
use sd_core::{Instance, Registry};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::comparing::compare;
use super::module::{Module, now};
use super::service::Service;
use crate::harness::interleave;
use crate::ours::ADDRESS;
use crate::part::Part;
use crate::source::PAUSE;
use crate::{Effort, Result};

pub(super) fn measure(effort: Effort, runtime: &Runtime, service: &Service) -> Result<Part> {
    let samples = effort.pick(300, 20);
    let followed = ["followed-in-rust", "followed-in-go"];
    let mut modules = runtime.block_on(Module::both(service.address, followed))?;
    let writer = ClusterConfig::new([service.address.to_string()]).with_module("writer");
    let writer = sd_cluster::connect(writer)?;
    let figures = interleave(&mut modules, samples, |module| {
        runtime.block_on(sample(&writer, module))
    })?;
    let of = |which: fn(&Sample) -> Duration| {
        let figures = figures
            .iter()
            .map(|samples| samples.iter().map(which).collect());
        figures.collect::<Vec<Vec<Duration>>>()
    };
    let joined = compare(
        "a module registers → a follower has it",
        &of(|one| one.joined),
    );
    let left = compare("a module leaves → a follower has it", &of(|one| one.left));
    Ok(Part {
        text: format!(
            "{METHOD}\n{samples} samples of each. A module registers:\n\n{}\n{}\n\nIt leaves:\n\n{}\n{}\n",
            joined.table, joined.ratio, left.table, left.ratio
        ),
        bars: vec![joined.bar, left.bar],
        groups: vec![joined.group, left.group],
    })
}

struct Sample {
    joined: Duration,
    left: Duration,
}

async fn sample(writer: &Registry, module: &mut Module) -> Result<Sample> {
    sleep(PAUSE).await;
    let began = now();
    let guard = writer
        .register(Instance::new(module.followed, ADDRESS)?)
        .await?;
    let joined = module.hosts(1).await?.saturating_sub(began);
    sleep(PAUSE).await;
    let began = now();
    guard.deregister().await?;
    let left = module.hosts(0).await?.saturating_sub(began);
    Ok(Sample { joined, left })
}

const METHOD: &str = "\
**A module joins and leaves.** A client of `sd-cluster` registers an instance and withdraws it 15 ms later, and a module follows it: in Rust
with a `Subscription`, in Go with what isp-kit calls an upgrader of hosts. The clock runs from the call of register, which first opens a
connection, or of deregister, until the follower has the list.
";
