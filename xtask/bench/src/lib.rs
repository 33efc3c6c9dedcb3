//! Contenders side by side, and a report. `cargo xtask bench --help` says how to run it.

mod agent;
mod allocations;
mod calls;
mod channels;
mod cluster;
mod consul;
mod cores;
mod counting;
mod earlier;
mod election;
mod environment;
mod fault;
mod go;
mod harness;
mod headings;
mod memory;
mod ours;
mod part;
mod pick;
mod plot;
mod process;
mod redis;
mod register;
mod report;
mod rpc;
mod server;
mod source;
mod stats;
mod stream_service;
mod streams;
mod transport;
mod update;
mod zk;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::report::Section;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Measures contenders side by side and writes a report.
#[derive(Debug, Parser)]
struct Options {
    /// What to measure; everything by default. An earlier report's other sections are kept
    benches: Vec<Bench>,
    /// Few and short rounds: shows that everything runs, and no more
    #[arg(long)]
    quick: bool,
    /// How many rounds, 24 by default
    #[arg(long)]
    rounds: Option<usize>,
    /// Where to write bench.md and its charts
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// What the memory bench starts this program again for
    #[arg(long, hide = true)]
    probe_memory: Option<usize>,
    /// What benches of calls start this program again for
    #[arg(long, hide = true)]
    serve: Option<usize>,
    /// What the election bench starts this program again for
    #[arg(long, hide = true)]
    lead: Option<String>,
    /// What the agent's bench starts this program again for: so many readers
    #[arg(long, hide = true)]
    write_plainly: Option<usize>,
    /// What the agent's bench starts this program again for: an agent
    #[arg(long, hide = true)]
    flood: Option<SocketAddr>,
    /// What the bench of isp modules starts this program again for: a config service
    #[arg(long, hide = true)]
    keep_configs: bool,
    /// What the bench of isp modules starts this program again for: a module at a service, its name, and the module that it follows
    #[arg(long, hide = true, num_args = 3)]
    join_modules: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Nanoseconds and allocations for each pick
    Pick,
    /// Processor time and throughput of unary calls
    Rpc,
    /// Processor time and throughput of streams
    Streams,
    /// Failed calls with one of two endpoints broken
    Fault,
    /// Milliseconds until one change among 10 000 endpoints is published
    Update,
    /// Milliseconds from register to seen, beside the raw client
    Register,
    /// From one leader to the next, beside the Go client; a thousand candidates
    Election,
    /// Consul: register to seen, one leader to the next, large services and many
    Consul,
    /// ZooKeeper: register to seen, one leader to the next, a campaign alone, one change among 5 000
    Zk,
    /// The local agent: register to seen, one change for 1 000 readers, at rest, under a flood of requests
    Agent,
    /// Redis: register to seen, one leader to the next
    Redis,
    /// isp modules: a change until it has arrived, beside isp-kit's client in Go; a thousand modules at a config service
    Cluster,
    /// Memory and time for 100 000 instances
    Memory,
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
struct Effort {
    quick: bool,
    rounds: usize,
}

impl Effort {
    /// `full`, or `quick` in a quick run.
    fn pick<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// The program `bench`.
pub fn main() -> ExitCode {
    status(run(&Options::parse()))
}

/// The program `count-allocations`, given the number of allocations so far in this process.
pub fn count_allocations(counted: fn() -> usize) -> ExitCode {
    status(counting::main(counted))
}

fn status(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if let Some(size) = options.probe_memory {
        return memory::probe(size);
    }
    if let Some(listeners) = options.serve {
        return server::serve(listeners);
    }
    if let Some(address) = &options.lead {
        return election::lead(address);
    }
    if let Some(readers) = options.write_plainly {
        return agent::write_plainly(readers);
    }
    if let Some(address) = options.flood {
        return agent::flood(address);
    }
    if options.keep_configs {
        return cluster::keep_configs();
    }
    if let Some([service, name, followed]) = options.join_modules.as_deref() {
        return cluster::join_modules(service, name, followed);
    }
    let effort = Effort {
        quick: options.quick,
        rounds: options.rounds.unwrap_or(if options.quick { 3 } else { 24 }),
    };
    let measured = environment::moment(options.quick);
    let mut sections = Vec::new();
    for bench in Bench::value_variants() {
        if options.benches.is_empty() || options.benches.contains(bench) {
            eprintln!("measuring {bench:?}");
            sections.push(bench.measure(effort)?);
        }
    }
    let conditions = environment::conditions();
    let from_scratch = options.benches.is_empty();
    report::write(
        &options.out,
        from_scratch,
        &conditions,
        &measured,
        &sections,
    )
}

impl Bench {
    fn measure(self, effort: Effort) -> Result<Section> {
        match self {
            Self::Pick => pick::measure(effort),
            Self::Rpc => rpc::measure(effort),
            Self::Streams => streams::measure(effort),
            Self::Fault => fault::measure(effort),
            Self::Update => update::measure(effort),
            Self::Register => register::measure(effort),
            Self::Election => election::measure(effort),
            Self::Consul => consul::measure(effort),
            Self::Zk => zk::measure(effort),
            Self::Agent => agent::measure(effort),
            Self::Redis => redis::measure(effort),
            Self::Cluster => cluster::measure(effort),
            Self::Memory => memory::measure(effort),
        }
    }
}
