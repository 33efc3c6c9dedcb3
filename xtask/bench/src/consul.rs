//! Consul: registering, handing over, a large service, and many services, over a real agent.

mod agent;
mod handover;
mod large;
mod many;
mod register;

use std::time::Duration;

use sd_consul::ConsulConfig;
use sd_core::Registry;
use tokio::runtime::Runtime;

use self::agent::Agent;
use crate::plot::{Chart, Group, PlotBar, Scale};
use crate::report::{Bar, Section, Table};
use crate::stats::{Latency, Spread, as_millis};
use crate::{Effort, Result};

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One part of the section.
struct Part {
    text: String,
    bars: Vec<Bar>,
    groups: Vec<Group>,
}

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    let address = address()?;
    let runtime = Runtime::new()?;
    let version = runtime.block_on(Agent::at(&address)?.version())?;
    let parts = [
        register::measure(effort, &runtime, &address)?,
        handover::measure(effort, &runtime, &address)?,
        large::measure(effort, &runtime, &address)?,
        many::measure(effort, &runtime, &address)?,
    ];
    let text: Vec<&str> = parts.iter().map(|part| part.text.trim()).collect();
    let text = format!(
        "Everything against one agent of Consul {version} that is its own server.\n\n{}\n",
        text.join("\n\n")
    );
    let (bars, groups): (Vec<_>, Vec<_>) = parts
        .into_iter()
        .map(|part| (part.bars, part.groups))
        .unzip();
    Ok(Section {
        title: "Consul",
        text,
        bars: bars.into_iter().flatten().collect(),
        charts: vec![Chart {
            name: "consul",
            title: format!("Milliseconds with Consul {version}, median and quartiles"),
            scale: Scale::Linear,
            groups: groups.into_iter().flatten().collect(),
        }],
    })
}

/// Where the agent is.
fn address() -> Result<String> {
    let named = std::env::var("SD_TEST_CONSUL");
    let missing = "SD_TEST_CONSUL must hold the URL of a Consul agent: `cargo xtask bench` starts one and sets it";
    Ok(named.map_err(|_| missing)?)
}

fn config(address: &str) -> ConsulConfig {
    ConsulConfig::new([address]).with_election_prefix("bench/elections")
}

fn connect(address: &str) -> Result<Registry> {
    Ok(sd_consul::connect(config(address))?)
}

/// One row for each contender.
fn table_of<'a>(rows: impl IntoIterator<Item = (&'a str, &'a [Duration])>) -> Table {
    let mut table = Table::new(["contender", "p50", "quartiles", "p99", "longest"]);
    for (name, times) in rows {
        let latency = Latency::of(times.iter().copied());
        let spread = spread(times);
        table.row([
            name.to_owned(),
            format!("{:.2} ms", latency.p50),
            format!("{:.2}–{:.2} ms", spread.quarter, spread.three_quarters),
            format!("{:.2} ms", latency.p99),
            format!("{:.2} ms", latency.longest),
        ]);
    }
    table
}

fn group_of<'a>(label: &str, rows: impl IntoIterator<Item = (&'a str, &'a [Duration])>) -> Group {
    let bars = rows.into_iter().enumerate();
    let bars = bars.map(|(nth, (label, times))| PlotBar {
        label: label.to_owned(),
        ours: nth == 0,
        spread: spread(times),
    });
    Group {
        label: label.to_owned(),
        bars: bars.collect(),
    }
}

fn spread(times: &[Duration]) -> Spread {
    Spread::of(times.iter().copied().map(as_millis))
}
