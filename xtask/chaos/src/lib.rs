//! Elections and discovery under faults, in processes of their own over real servers, and whether they kept what they promise.
//! `cargo xtask chaos --help` says how to run it.

mod backend;
mod check;
mod child;
mod deck;
mod discovery;
mod history;
mod http;
mod kind;
mod link;
mod operator;
mod peers;
mod plan;
mod playing;
mod process;
mod pulse;
mod register;
mod report;
mod round;
mod run;
mod scene;
mod seat;
mod servers;
mod simulate;
mod site;
mod step;
mod story;
mod table;
mod verdict;
mod witness;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;

use crate::backend::Backend;
use crate::child::Brief;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Runs elections or discovery under faults and checks what became of them
#[derive(Debug, Parser)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch on the command line"
)]
struct Options {
    /// The servers to run against
    #[arg(long)]
    backend: Option<Backend>,
    /// How many minutes of faults to inject; the bars for a run to count grow with it
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Run for about a minute, with fixed faults on one release of the server: shows that everything runs
    #[arg(long)]
    quick: bool,
    /// Simulate many schedules in virtual time, without servers, and check that every planted mistake is noticed
    #[arg(long, conflicts_with = "backend")]
    simulate: bool,
    /// How many schedules to simulate; 100 000 by default
    #[arg(long, requires = "simulate")]
    schedules: Option<u64>,
    /// The seed of all random choices; a new one by default. With --simulate: the first schedule, 0 by default; without --schedules,
    /// only this one runs, and all that happens in it is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Also write the report to this folder, as chaos-etcd.md, chaos-discovery-etcd.md and so on
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where to keep the histories and logs of a failed run
    #[arg(long, default_value = "target/chaos")]
    histories: PathBuf,
    /// Keep those of a good run, too
    #[arg(long)]
    keep: bool,
    /// Register and read services instead of holding elections
    #[arg(long, requires = "backend")]
    discovery: bool,
    /// Be an instance of a run
    #[arg(long, hide = true)]
    as_service: Option<String>,
    /// Be a reader of a run
    #[arg(long, hide = true)]
    as_reader: Option<String>,
    /// Be a candidate of a run
    #[arg(long, hide = true)]
    as_node: Option<String>,
    /// Be an observer of a run
    #[arg(long, hide = true)]
    as_observer: Option<String>,
    /// Be killed when this process ends, and become the program that follows
    #[arg(long, hide = true)]
    exec_for: Option<u32>,
    #[arg(last = true, hide = true)]
    program: Vec<String>,
}

/// The program `chaos`.
pub fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with everything behind it.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// False if a promise was broken or the run does not count, which was said then.
fn run(options: &Options) -> Result<bool> {
    if let Some(parent) = options.exec_for {
        child::exec(parent, &options.program)?;
    }
    if let Some(brief) = &options.as_node {
        log_to_stderr();
        return child::run_node(&read(brief)?).map(|()| true);
    }
    if let Some(brief) = &options.as_observer {
        log_to_stderr();
        return child::run_observer(&read(brief)?).map(|()| true);
    }
    if let Some(brief) = &options.as_service {
        log_to_stderr();
        return child::run_service(&read(brief)?).map(|()| true);
    }
    if let Some(brief) = &options.as_reader {
        log_to_stderr();
        return child::run_reader(&read(brief)?).map(|()| true);
    }
    if options.simulate {
        return Ok(simulate::run(options.seed, options.schedules));
    }
    match options.backend {
        Some(backend) if options.discovery => discovery::run(backend, options),
        Some(backend) => run::run(backend, options),
        None => Err(
            "pass --backend etcd, --backend consul, --backend zk, --backend redis or --simulate"
                .into(),
        ),
    }
}

fn read(brief: &str) -> Result<Brief> {
    Ok(serde_json::from_str(brief)?)
}

fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_env_filter(
            "info,sd_core=debug,sd_election=debug,sd_etcd=debug,sd_consul=debug,sd_zk=debug,sd_redis=debug",
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// The same command, killed when this process ends, however it ends.
fn guarded(command: &Command) -> Command {
    // Of this very file, even if it has been replaced since.
    let mut guarded = Command::new("/proc/self/exe");
    guarded
        .args(["--exec-for", &std::process::id().to_string(), "--"])
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        guarded.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => guarded.env(name, value),
            None => guarded.env_remove(name),
        };
    }
    guarded
}
