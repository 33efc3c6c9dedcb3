//! `cargo xtask test`: every test of the workspace, those that need a server once with each version of it.

mod counts;
mod executables;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, anyhow};
use clap::Args;

use self::counts::Counts;
use self::executables::{Executable, Ignored};
use crate::servers::all::{ALL, chosen};
use crate::servers::fleet::Fleet;
use crate::servers::program::{Program, provide_all};
use crate::servers::running::Running;
use crate::servers::server::Server;
use crate::servers::variables;
use crate::shell::export;
use crate::workspace::Workspace;
use crate::{interrupt, peers};

#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Only the tests that need this server
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Only the tests that need no server
    #[arg(long, conflicts_with = "backend")]
    without_servers: bool,
}

/// False when a test failed, which was said then.
///
/// # Errors
/// The tests could not be built, or a server not be started.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let start = Instant::now();
    let servers = match &options.backend {
        _ if options.without_servers => Vec::new(),
        None => ALL.to_vec(),
        Some(backend) => chosen(std::slice::from_ref(backend))?,
    };
    let Prepared {
        executables,
        programs,
        peers,
    } = prepare(workspace, &servers)?;
    let mut counts = Counts::default();
    if options.backend.is_none() {
        plain_tests(workspace, &mut counts)?;
    }
    let mut with = Vec::new();
    if !servers.is_empty() {
        let ignored = executables::ignored(&executables)?;
        let fleet = Fleet::start(workspace, &servers, &programs)?;
        for (index, running) in fleet.running.iter().enumerate() {
            let first_of_backend = !fleet.running[..index]
                .iter()
                .any(|earlier| earlier.server.backend() == running.server.backend());
            let mut told = peers.clone();
            told.extend(variables::of(&fleet.running));
            told.extend(variables::plain(running));
            server_tests(&ignored, &told, running, first_of_backend, &mut counts)?;
            with.push(format!("{} {}", running.server.backend(), running.version));
        }
        for test in &ignored {
            let supplied = |server: &&dyn Server| test.needs(server.backend());
            if !ALL.iter().any(supplied) {
                eprintln!("not run: {}: {}", test.name, test.reason);
            }
        }
    }
    counts.print_failed();
    let with = if with.is_empty() {
        "without servers".to_owned()
    } else {
        format!("with {}", with.join(", "))
    };
    println!("{counts}; {with}; {} s", start.elapsed().as_secs());
    Ok(counts.is_success())
}

/// What the tests with servers need.
struct Prepared {
    executables: Vec<Executable>,
    programs: Vec<Program>,
    /// The variables that name the programs of other projects.
    peers: BTreeMap<String, String>,
}

/// Builds the tests and, beside that, finds or installs the servers and what runs beside ours.
fn prepare(workspace: &Workspace, servers: &[&'static dyn Server]) -> Result<Prepared> {
    std::thread::scope(|scope| {
        let programs = scope.spawn(|| provide_all(workspace, servers));
        let peers = scope.spawn(|| peers::provide(workspace, servers));
        let executables = executables::build(workspace)?;
        let panicked = |_| anyhow!("an installation panicked");
        Ok(Prepared {
            executables,
            programs: programs.join().map_err(panicked)??,
            peers: peers.join().map_err(panicked)??,
        })
    })
}

fn plain_tests(workspace: &Workspace, counts: &mut Counts) -> Result<()> {
    let status = workspace
        .cargo("test")?
        .args(["--workspace", "--all-features", "--no-fail-fast"])
        .each_line(|line| counts.add_line(line))?;
    interrupt::check()?;
    counts.add_status(status);
    Ok(())
}

/// The ignored tests that need this server. Another version than the first is the business of the backend's own package.
fn server_tests(
    ignored: &[Ignored<'_>],
    told: &BTreeMap<String, String>,
    running: &Running,
    first_of_backend: bool,
    counts: &mut Counts,
) -> Result<()> {
    let backend = running.server.backend();
    let own_package = format!("sd-{backend}");
    let is_wanted = |test: &Ignored<'_>| {
        test.needs(backend) && (first_of_backend || test.executable.package == own_package)
    };
    eprintln!("\ntests that need {backend}, with {}", running.version);
    for (name, value) in told {
        eprintln!("{}", export(name, value));
    }
    for tests in ignored.chunk_by(|a, b| std::ptr::eq(a.executable, b.executable)) {
        let wanted: Vec<&str> = tests
            .iter()
            .filter(|test| is_wanted(test))
            .map(|test| test.name.as_str())
            .collect();
        let Some(first) = tests.first().filter(|_| !wanted.is_empty()) else {
            continue;
        };
        let mut command = first.executable.command().arg("--ignored");
        if wanted.len() < tests.len() {
            command = command.arg("--exact").args(&wanted);
        }
        let status = command
            .shared_envs(told.clone())
            .each_line(|line| counts.add_line(line))?;
        interrupt::check()?;
        counts.add_status(status);
        if first_of_backend {
            counts.were_ignored(wanted.len());
        }
    }
    Ok(())
}
