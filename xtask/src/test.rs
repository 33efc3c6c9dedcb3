//! `cargo xtask test`: every test of the workspace, those that need a server once with each version of it.

mod busy;
mod counts;
mod ignored;
mod times;

use std::num::NonZero;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;

use self::busy::is_busy;
use self::counts::Counts;
use self::ignored::Ignored;
use self::times::Times;
use crate::built::{self, Executable};
use crate::peers::{self, ALONE, Alone, Variables};
use crate::servers::all::chosen;
use crate::servers::fleet::Fleet;
use crate::servers::program::{Program, provide_all};
use crate::servers::running::Running;
use crate::servers::server::Server;
use crate::servers::variables;
use crate::shell::export;
use crate::side_by_side::{self, Job};
use crate::workspace::Workspace;

/// A test program that takes longer hangs.
const LIMIT: Duration = Duration::from_mins(20);

/// How many test programs run for each core; in each, libtest runs as many tests at a time as there are cores. Together they use a third
/// of a core for each program, so that two leave a third of every core to what has to be on time.
const FOR_EACH_CORE: usize = 2;

/// The package whose tests show that servers start.
const HOW_SERVERS_START: &str = "server-programs";

#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Only the tests that need this server; `grpc` or `cluster`: those beside peers of sd-grpc or sd-cluster
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Only the tests that need no server
    #[arg(long, conflicts_with = "backend")]
    without_servers: bool,
    /// How many test programs run at a time; by default two per core
    #[arg(long, value_name = "NUMBER")]
    at_once: Option<usize>,
}

/// One test program to be run, and how many tests it runs that are ignored where none is asked for.
type Planned = (Job, usize);

/// What failed, with the beginning of what each said; it has been printed.
///
/// # Errors
/// The tests could not be built, or a server could not be started.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<Vec<String>> {
    let start = Instant::now();
    let (servers, alone) = match &options.backend {
        _ if options.without_servers => (Vec::new(), Vec::new()),
        None => (chosen(workspace, &[])?, ALONE.iter().collect()),
        Some(backend) => match Alone::of(backend) {
            Some(alone) => (Vec::new(), vec![alone]),
            None => (
                chosen(workspace, std::slice::from_ref(backend))?,
                Vec::new(),
            ),
        },
    };
    let Prepared {
        executables,
        programs,
        peers,
        alone,
    } = prepare(workspace, &servers, &alone)?;
    busy::check(&executables)?;
    let built = start.elapsed();

    // Those with servers wait most, and go first.
    let mut planned = Vec::new();
    let fleet = Fleet::start(workspace, &servers, &programs)?;
    let ignored = ignored::all(if servers.is_empty() && alone.is_empty() {
        &[]
    } else {
        &executables
    })?;
    for (index, running) in fleet.running.iter().enumerate() {
        let first_of_backend = !fleet.running[..index]
            .iter()
            .any(|earlier| earlier.server.backend() == running.server.backend());
        let mut told = peers.clone();
        told.extend(variables::of(&fleet.running));
        told.extend(variables::plain(running));
        planned.extend(server_tests(&ignored, &told, running, first_of_backend));
    }
    for (alone, told) in &alone {
        eprintln!("\ntests beside {}", alone.title);
        let is_wanted = |test: &Ignored<'_>| test.needs(alone.name);
        planned.extend(ignored_tests(&ignored, told, alone.title, is_wanted));
    }
    let by_default = chosen(workspace, &[])?;
    for test in &ignored {
        let supplied = |server: &&dyn Server| test.needs(server.backend());
        let is_alone = ALONE.iter().any(|alone| test.needs(alone.name));
        if !by_default.iter().chain(&servers).any(supplied) && !is_alone {
            eprintln!("not run: {}: {}", test.name, test.reason);
        }
    }
    if options.backend.is_none() {
        planned.extend(plain_tests(workspace, &executables)?);
    }

    let at_once = options.at_once.unwrap_or_else(by_cores);
    let (mut counts, mut times) = (Counts::default(), Times::default());
    let (jobs, elsewhere): (Vec<Job>, Vec<usize>) = planned.into_iter().unzip();
    let ended = |index: usize, title: &str, captured| {
        counts.add(title, &captured);
        counts.are_run_elsewhere(elsewhere[index]);
        times.add(title, &captured);
    };
    side_by_side::run(jobs, at_once, ended)?;

    println!("\n{times} instead of {at_once} at a time");
    let failures = counts.failures();
    for failure in &failures {
        println!("{failure}");
    }
    let with = fleet.running.iter();
    let with = with.map(|running| format!("{} {}", running.server.backend(), running.version));
    let with = match with.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "without servers".to_owned(),
        with => format!("with {with}"),
    };
    let (all, built) = (start.elapsed().as_secs(), built.as_secs());
    println!("{counts}; {with}; {all} s, {built} s of them to build");
    Ok(failures)
}

fn by_cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get) * FOR_EACH_CORE
}

/// What the tests with servers need.
struct Prepared {
    executables: Vec<Executable>,
    programs: Vec<Program>,
    /// The variables that name the programs of other projects.
    peers: Variables,
    /// The same for those that no server is needed for.
    alone: Vec<(&'static Alone, Variables)>,
}

/// Builds the tests and, beside that, finds or installs the servers and what runs beside ours.
fn prepare(
    workspace: &Workspace,
    servers: &[&'static dyn Server],
    alone: &[&'static Alone],
) -> Result<Prepared> {
    std::thread::scope(|scope| {
        let programs = scope.spawn(|| provide_all(workspace, servers));
        let peers = scope.spawn(|| peers::provide(workspace, servers));
        let alone = scope.spawn(|| {
            let alone = alone.iter();
            let alone = alone.map(|alone| Ok((*alone, alone.provide(workspace)?)));
            alone.collect::<Result<Vec<_>>>()
        });
        let executables = built::build(workspace, &[])?.tests;
        let panicked = |_| anyhow!("an installation panicked");
        Ok(Prepared {
            executables,
            programs: programs.join().map_err(panicked)??,
            peers: peers.join().map_err(panicked)??,
            alone: alone.join().map_err(panicked)??,
        })
    })
}

/// The tests that are not ignored, and those in documentation, which only cargo can build.
fn plain_tests(workspace: &Workspace, executables: &[Executable]) -> Result<Vec<Planned>> {
    let in_documentation = Job {
        title: "documentation".to_owned(),
        command: workspace.cargo("test")?.args([
            "--doc",
            "--workspace",
            "--all-features",
            "--no-fail-fast",
        ]),
        busy: true,
        limit: LIMIT,
    };
    let programs = executables.iter().map(|executable| Job {
        title: executable.title(),
        command: executable.command(),
        busy: is_busy(executable),
        limit: LIMIT,
    });
    let jobs = programs.chain([in_documentation]);
    Ok(jobs.map(|job| (job, 0)).collect())
}

/// The ignored tests that need this server. Another version than the first is the business of the backend's own package, and of the one
/// that starts it, as far as versions can differ in what a test shows.
fn server_tests(
    ignored: &[Ignored<'_>],
    told: &Variables,
    running: &Running,
    first_of_backend: bool,
) -> Vec<Planned> {
    let (backend, version) = (running.server.backend(), running.version);
    let packages = [&running.server.package(), HOW_SERVERS_START];
    let is_wanted = |test: &Ignored<'_>| {
        let is_for_all = packages.contains(&&*test.executable.package);
        test.needs(backend) && (first_of_backend || is_for_all && !test.needs_any_version())
    };
    eprintln!("\ntests that need {backend}, with {version}");
    let jobs = ignored_tests(ignored, told, &format!("{backend} {version}"), is_wanted);
    // Another version runs them once more.
    let counted = |(job, wanted)| (job, if first_of_backend { wanted } else { 0 });
    jobs.into_iter().map(counted).collect()
}

/// The wanted ones of the ignored tests, which are told these variables.
fn ignored_tests(
    ignored: &[Ignored<'_>],
    told: &Variables,
    with: &str,
    is_wanted: impl Fn(&Ignored<'_>) -> bool,
) -> Vec<Planned> {
    for (name, value) in told {
        eprintln!("{}", export(name, value));
    }
    let mut planned = Vec::new();
    for tests in ignored.chunk_by(|a, b| std::ptr::eq(a.executable, b.executable)) {
        let wanted = tests.iter().filter(|test| is_wanted(test));
        let wanted: Vec<&str> = wanted.map(|test| test.name.as_str()).collect();
        let Some(first) = tests.first().filter(|_| !wanted.is_empty()) else {
            continue;
        };
        let executable = first.executable;
        let mut command = executable.command().arg("--ignored");
        if wanted.len() < tests.len() {
            command = command.arg("--exact").args(&wanted);
        }
        let job = Job {
            title: format!("{} with {with}", executable.title()),
            command: command.shared_envs(told),
            busy: is_busy(executable),
            limit: LIMIT,
        };
        planned.push((job, wanted.len()));
    }
    planned
}
