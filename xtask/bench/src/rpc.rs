//! What a unary call costs its client, by calls in flight.

use std::net::SocketAddr;
use std::time::Duration;

use sd_grpc::ChannelConfig;
use tokio::runtime;

use crate::allocations::{self, Counts, Subject};
use crate::calls::{Client, Load, Outcome, Shape};
use crate::channels::{self, OURS, OURS_ALONE};
use crate::cores::Halves;
use crate::harness::interleave;
use crate::plot::{Chart, Group, PlotBar, Scale, short};
use crate::report::{Bar, Section, Table};
use crate::server::ServerProcess;
use crate::stats::{Latency, Ratio, Spread};
use crate::{Effort, Result};

const ENDPOINTS: usize = 3;
/// Calls in flight, and how many calls one round makes.
const LOADS: [(usize, usize); 3] = [(1, 3_000), (16, 10_000), (64, 20_000)];
const DEADLINE: Duration = Duration::from_secs(5);
const COUNTED: usize = 2_000;

/// Which contenders are compared, by their places in [`contenders`].
const PAIRS: [Pair; 3] = [
    Pair {
        ours: 0,
        theirs: 1,
        bar: Some(Limit::Processor(0.95)),
    },
    Pair {
        ours: 2,
        theirs: 3,
        bar: Some(Limit::Calls(1.0)),
    },
    // Three connections against one: not the same work.
    Pair {
        ours: 0,
        theirs: 3,
        bar: None,
    },
];

#[derive(Clone, Copy, Debug)]
struct Pair {
    ours: usize,
    theirs: usize,
    bar: Option<Limit>,
}

/// What was promised.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// At most so much of the other's processor time.
    Processor(f64),
    /// At least so much of the other's calls in a second.
    Calls(f64),
}

/// What one round of one contender came to.
#[derive(Debug)]
struct Figures {
    micros: f64,
    per_second: f64,
    p50: f64,
    p99: f64,
}

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    let halves = Halves::split()?;
    let servers = halves.place(|| ServerProcess::start(ENDPOINTS))?;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(halves.clients())
        .enable_all()
        .build()?;
    let mut clients = runtime.block_on(contenders(&servers.addresses))?;
    let mut by_load = Vec::new();
    for (in_flight, calls) in LOADS {
        let load = load(effort.pick(calls, calls / 20), in_flight);
        let figures = interleave(&mut clients, effort.rounds, |client| {
            figures(&runtime.block_on(client.run(load))?)
        })?;
        by_load.push((in_flight, figures));
    }
    let addresses: Vec<String> = servers.addresses.iter().map(ToString::to_string).collect();
    let counts = allocations::count(Subject::Rpc, &addresses)?;
    Ok(section(&halves, &clients, &by_load, &counts))
}

async fn contenders(addresses: &[SocketAddr]) -> Result<Vec<Client>> {
    let first = *addresses.first().ok_or("no server")?;
    Ok(vec![
        channels::ours(OURS, addresses, ChannelConfig::default()).await?,
        channels::tonic_balanced(addresses).await?,
        channels::ours(OURS_ALONE, &[first], ChannelConfig::default()).await?,
        channels::tonic(first)?,
    ])
}

fn load(calls: usize, in_flight: usize) -> Load {
    Load {
        shape: Shape::Unary,
        calls,
        in_flight,
        deadline: DEADLINE,
        idempotent: false,
    }
}

fn figures(outcome: &Outcome) -> Result<Figures> {
    if outcome.failures() > 0 {
        return Err(format!("calls failed: {}", outcome.codes()).into());
    }
    let calls = f64::from(u32::try_from(outcome.times.len())?);
    let latency = Latency::of(outcome.times.iter().copied());
    Ok(Figures {
        micros: outcome.processor.as_secs_f64() * 1e6 / calls,
        per_second: calls / outcome.took.as_secs_f64(),
        p50: latency.p50,
        p99: latency.p99,
    })
}

/// Contenders are in the order of [`contenders`].
fn section(
    halves: &Halves,
    clients: &[Client],
    by_load: &[(usize, Vec<Vec<Figures>>)],
    counts: &Counts,
) -> Section {
    let median = |figures: &[Figures], figure: fn(&Figures) -> f64| {
        Spread::of(figures.iter().map(figure)).median
    };
    let mut table = Table::new([
        "in flight",
        "contender",
        "processor µs/call",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "allocations/call",
    ]);
    let mut ratios = Table::new([
        "in flight",
        "ours ÷ theirs",
        "processor time for each call",
        "calls/s",
        "p99",
    ]);
    let mut bars = Vec::new();
    for (in_flight, figures) in by_load {
        for (client, figures) in clients.iter().zip(figures) {
            let allocations = counts.get(client.name).copied().unwrap_or(f64::NAN);
            table.row([
                in_flight.to_string(),
                client.name.to_owned(),
                short(median(figures, |f| f.micros)),
                format!("{:.0}", median(figures, |f| f.per_second)),
                format!("{:.3}", median(figures, |f| f.p50)),
                format!("{:.3}", median(figures, |f| f.p99)),
                short(allocations),
            ]);
        }
        for pair in PAIRS {
            let against = |figure: fn(&Figures) -> f64| {
                Ratio::of(&figures[pair.ours], &figures[pair.theirs], figure)
            };
            let (micros, per_second) = (against(|f| f.micros), against(|f| f.per_second));
            let names = [pair.ours, pair.theirs].map(|nth| clients[nth].name);
            ratios.row([
                in_flight.to_string(),
                names.join(" ÷ "),
                micros.to_string(),
                per_second.to_string(),
                against(|f| f.p99).to_string(),
            ]);
            bars.extend(pair.bar.map(|limit| {
                let what =
                    |figure| format!("{figure}, {in_flight} in flight, {}", names.join(" ÷ "));
                let show = |ratio| format!("{ratio:.2}×");
                match limit {
                    Limit::Processor(limit) => {
                        let what = what("processor time for each call");
                        Bar::at_most(what, micros.median(), limit, show)
                    }
                    Limit::Calls(limit) => {
                        Bar::at_least(what("calls/s"), per_second.median(), limit, show)
                    }
                }
            }));
        }
    }
    let groups = by_load
        .iter()
        .map(|(in_flight, figures)| Group {
            label: format!("{in_flight} in flight"),
            bars: clients
                .iter()
                .zip(figures)
                .map(|(client, figures)| PlotBar {
                    label: client.name.to_owned(),
                    ours: client.ours,
                    spread: Spread::of(figures.iter().map(|f| f.micros)),
                })
                .collect(),
        })
        .collect();
    let chart = Chart {
        name: "rpc",
        title: "Processor time of the client for each unary call, µs".to_owned(),
        scale: Scale::Linear,
        groups,
    };
    let text = format!(
        "{METHOD}\nHere: {} core(s) for the client, {} for the servers.\n\n{table}\nRound by round:\n\n{ratios}",
        halves.clients(),
        halves.servers()
    );
    Section {
        title: "Unary calls",
        text,
        bars,
        charts: vec![chart],
    }
}

/// Allocations for each call, in the program that counts. One thread, one call at a time.
pub(crate) fn count(counted: fn() -> usize, addresses: &[String]) -> Result<Counts> {
    let addresses: Vec<SocketAddr> = addresses
        .iter()
        .map(|address| address.parse())
        .collect::<std::result::Result<_, _>>()?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut counts = Counts::new();
        for client in contenders(&addresses).await? {
            client.run(load(COUNTED, 1)).await?;
            let before = counted();
            let outcome = client.run(load(COUNTED, 1)).await?;
            let allocated = u32::try_from(counted() - before)?;
            if outcome.failures() > 0 {
                return Err(format!("calls failed: {}", outcome.codes()).into());
            }
            let calls = f64::from(u32::try_from(COUNTED)?);
            counts.insert(client.name.to_owned(), f64::from(allocated) / calls);
        }
        Ok(counts)
    })
}

const METHOD: &str = "\
Unary calls of 16 bytes to three tonic servers on loopback. A plain channel has only one endpoint, and is compared with ours over
that one: several connections spread what one connection would send in a single write. The servers run in one other process on the
other half of the cores; the clients have one worker thread for each core of their half. Each call has a deadline of 5 s, which
every contender enforces; each sends a user agent, obeys flow control, and decodes the same message. Ours runs with its default
settings: resending of what was never sent, deadlines over the whole call, detection of silent endpoints by time-outs. Processor
time is that of the whole client process, by its clock. Allocations are counted in a program of their own, one call at a time, and
include those of the connection's tasks. Not measured: TLS, real networks, large messages, more cores than these.
";
