//! What callers notice when one of two endpoints is broken.

mod broken;

use std::net::SocketAddr;
use std::time::Duration;

use sd_grpc::ChannelConfig;
use tokio::runtime::Runtime;

use crate::calls::{Client, Load, Outcome, Shape};
use crate::channels::{self, OURS};
use crate::fault::broken::{Broken, Fault};
use crate::plot::{Chart, Group, PlotBar, Scale};
use crate::report::{Bar, Section, Table};
use crate::server::ServerProcess;
use crate::stats::{Latency, Spread};
use crate::{Effort, Result};

const IN_FLIGHT: usize = 64;
const DEADLINE: Duration = Duration::from_millis(500);
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(100);
const OURS_IDEMPOTENT: &str = "sd-grpc, idempotent, 100 ms attempts";
/// Our calls must end long before their deadline.
const LIMIT_P99_MILLIS: f64 = 100.0;

/// What became of one contender's calls under one fault.
#[derive(Debug)]
struct Row {
    fault: &'static str,
    contender: &'static str,
    ours: bool,
    outcome: Outcome,
}

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    let calls = effort.pick(10_000, 300);
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let unreachable = unreachable(calls).await?;
        let frozen = frozen(calls).await?;
        Ok(section(calls, &unreachable, &frozen))
    })
}

/// Channels that are built when one of two endpoints is broken already.
async fn unreachable(calls: usize) -> Result<Vec<Row>> {
    let servers = ServerProcess::start(2)?;
    let mut rows = Vec::new();
    for fault in Fault::ALL {
        let broken = Broken::start(fault).await?;
        let mut addresses = servers.addresses.clone();
        if fault != Fault::None {
            addresses[1] = broken.address;
        }
        for client in contenders(&addresses).await? {
            rows.push(row(fault.words(), &client, load(calls, false)).await?);
        }
    }
    Ok(rows)
}

async fn contenders(addresses: &[SocketAddr]) -> Result<[Client; 2]> {
    Ok([
        channels::ours(OURS, addresses, ChannelConfig::default()).await?,
        channels::tonic_balanced(addresses).await?,
    ])
}

/// Channels whose endpoints are connected when one of them freezes.
async fn frozen(calls: usize) -> Result<Vec<Row>> {
    let servers = [ServerProcess::start(1)?, ServerProcess::start(1)?];
    let addresses: Vec<SocketAddr> = servers
        .iter()
        .flat_map(|server| server.addresses.clone())
        .collect();
    let [ours, tonic] = contenders(&addresses).await?;
    let mut config = ChannelConfig::default();
    config.attempt_timeout = Some(ATTEMPT_TIMEOUT);
    let idempotent = channels::ours(OURS_IDEMPOTENT, &addresses, config).await?;
    let mut rows = Vec::new();
    for (client, is_idempotent) in [(ours, false), (idempotent, true), (tonic, false)] {
        let warm = client.run(load(calls / 10, false)).await?;
        if warm.failures() > 0 {
            return Err(format!("calls failed before the fault: {}", warm.codes()).into());
        }
        servers[1].freeze()?;
        let row = row("frozen", &client, load(calls, is_idempotent)).await;
        servers[1].thaw()?;
        rows.push(row?);
    }
    Ok(rows)
}

fn load(calls: usize, idempotent: bool) -> Load {
    Load {
        shape: Shape::Unary,
        calls,
        in_flight: IN_FLIGHT,
        deadline: DEADLINE,
        idempotent,
    }
}

async fn row(fault: &'static str, client: &Client, load: Load) -> Result<Row> {
    Ok(Row {
        fault,
        contender: client.name,
        ours: client.ours,
        outcome: client.run(load).await?,
    })
}

fn section(calls: usize, unreachable: &[Row], frozen: &[Row]) -> Section {
    let mut bars = Vec::new();
    let promised = |row: &&Row| row.ours && row.fault != Fault::None.words();
    for row in unreachable.iter().filter(promised) {
        let failures = u32::try_from(row.outcome.failures()).unwrap_or(u32::MAX);
        let what = |figure| {
            format!(
                "one of two endpoints: {}; {figure} of {calls} calls",
                row.fault
            )
        };
        bars.push(Bar::at_most(
            what("failures"),
            f64::from(failures),
            0.0,
            |count| count.to_string(),
        ));
        bars.push(Bar::at_most(
            what("p99"),
            latency(row).p99,
            LIMIT_P99_MILLIS,
            |millis| format!("{millis:.1} ms"),
        ));
    }
    let text = format!(
        "{METHOD}\n{calls} calls for each row, {IN_FLIGHT} in flight:\n\n{}\n{FROZEN}\n{}",
        table(unreachable),
        table(frozen)
    );
    Section {
        title: "One of two endpoints broken",
        text,
        bars,
        charts: vec![chart(unreachable, frozen)],
    }
}

fn latency(row: &Row) -> Latency {
    Latency::of(row.outcome.times.iter().copied())
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "fault",
        "contender",
        "failed",
        "with",
        "p50 ms",
        "p99 ms",
        "longest ms",
    ]);
    for row in rows {
        let Latency { p50, p99, longest } = latency(row);
        table.row([
            row.fault.to_owned(),
            row.contender.to_owned(),
            row.outcome.failures().to_string(),
            row.outcome.codes(),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            format!("{longest:.2}"),
        ]);
    }
    table
}

fn chart(unreachable: &[Row], frozen: &[Row]) -> Chart {
    let mut groups: Vec<Group> = Vec::new();
    for row in unreachable.iter().chain(frozen) {
        let failures = u32::try_from(row.outcome.failures()).unwrap_or(u32::MAX);
        let calls = u32::try_from(row.outcome.times.len()).unwrap_or(u32::MAX);
        let bar = PlotBar {
            label: row.contender.to_owned(),
            ours: row.ours,
            spread: Spread::of([f64::from(failures) / f64::from(calls) * 100.0]),
        };
        match groups.last_mut() {
            Some(group) if group.label == row.fault => group.bars.push(bar),
            _ => groups.push(Group {
                label: row.fault.to_owned(),
                bars: vec![bar],
            }),
        }
    }
    Chart {
        name: "fault",
        title: "Failed calls with one of two endpoints broken, %".to_owned(),
        scale: Scale::Linear,
        groups,
    }
}

const METHOD: &str = "\
Every row is a new channel, built when the endpoint is already broken, and used at once. Calls have a deadline of 500 ms and are
not marked idempotent: a call is resent only if it was certainly never sent. There is one run and no rounds: what counts is how
many calls fail.
";
const FROZEN: &str = "\
A frozen endpoint differs: both endpoints are connected and have answered calls when the process of one is stopped (SIGSTOP). It may
have executed what was sent to it, so only calls marked idempotent may move to the other endpoint, after an attempt time-out. Of the
other calls, about as many fail as were in flight: each caller meets the frozen endpoint once before it counts as silent.
";
