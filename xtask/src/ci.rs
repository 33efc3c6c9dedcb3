//! `cargo xtask ci`: what has to pass, step by step, and each step alone.

mod budget;
mod deny;
mod examples;
mod features;
mod instructions;
mod isolation;
mod links;
mod lint;
pub(crate) mod outcome;
mod package;
mod semver;

use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Subcommand;

use self::budget::Budget;
use self::outcome::Outcome;
use crate::workspace::Workspace;
use crate::{fuzz, interrupt, test};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All steps of continuous integration, in order
    Ci,
    /// Formatting and Clippy, warnings as errors
    Lint,
    /// The documentation, warnings as errors
    Doc,
    /// Each crate alone, with no feature and with each one; what a backend must not compile
    Features,
    /// The quickstart, embedded and over etcd, Consul, ZooKeeper and Redis, and every other example
    Examples,
    /// How many instructions a unary call takes, beside tonic's channel
    Instructions,
    /// The crates that are published, packed and compiled as their users get them
    Package,
    /// Each crate compiled with the oldest Rust that it supports; needs rustup
    Msrv,
    /// Whether the versions say what the changes of the public API mean for users
    Semver,
}

type Step = fn(&Workspace) -> Result<Outcome>;

const FORMAT: (&str, Step) = ("format", lint::format);
const CLIPPY: (&str, Step) = ("clippy", lint::clippy);
const DOC: (&str, Step) = ("documentation", lint::doc);
const DENY: (&str, Step) = ("licences and sources", deny::check);
const ISOLATION: (&str, Step) = ("isolation of backends", isolation::check);
const FEATURES: (&str, Step) = ("every feature alone", features::check_each);
const PACK: (&str, Step) = ("packages", package::pack);
const PACKAGE: (&str, Step) = ("compiled packages", package::compile);
const TEST: (&str, Step) = ("tests", tests);
const EXAMPLES: (&str, Step) = ("examples", examples::run);
const FUZZ: (&str, Step) = ("hostile input", fuzz::check);
const INSTRUCTIONS: (&str, Step) = ("instructions of a call", instructions::count);
const SEMVER: (&str, Step) = ("public API", semver::check);
const MSRV: (&str, Step) = ("oldest supported Rust", lint::msrv);

impl Command {
    /// False when a step failed, which was said then.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<bool> {
        let steps: &[(&str, Step)] = match self {
            // What is quick and fails often goes first.
            Self::Ci => &[
                FORMAT,
                CLIPPY,
                DOC,
                DENY,
                ISOLATION,
                PACK,
                TEST,
                FUZZ,
                EXAMPLES,
                INSTRUCTIONS,
                FEATURES,
            ],
            Self::Lint => &[FORMAT, CLIPPY],
            Self::Doc => &[DOC],
            Self::Features => &[ISOLATION, FEATURES],
            Self::Examples => &[EXAMPLES],
            Self::Instructions => &[INSTRUCTIONS],
            Self::Package => &[PACKAGE],
            Self::Msrv => &[MSRV],
            Self::Semver => &[SEMVER],
        };
        let start = Instant::now();
        let success = run_all(workspace, steps)?;
        if matches!(self, Self::Ci) {
            println!("{}", Budget(start.elapsed()));
        }
        Ok(success)
    }
}

/// Goes on after a failure, so that one run shows all there is to mend.
fn run_all(workspace: &Workspace, steps: &[(&str, Step)]) -> Result<bool> {
    let mut lines = Vec::new();
    let mut success = true;
    for (name, step) in steps {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let result = step(workspace);
        interrupt::check()?;
        if let Err(error) = &result {
            success = false;
            eprintln!("error: {error:#}");
        }
        let line = Line {
            name,
            result,
            duration: start.elapsed(),
        };
        eprintln!("== {line}");
        lines.push(line);
    }
    println!();
    for line in &lines {
        println!("{line}");
    }
    // A log is often kept by its end alone.
    for line in &lines {
        if let Err(error) = &line.result {
            println!("\n{}: {error:#}", line.name);
        }
    }
    Ok(success)
}

struct Line<'a> {
    name: &'a str,
    result: Result<Outcome>,
    duration: Duration,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.result {
            Ok(Outcome::Done) => "ok",
            Ok(Outcome::Skipped(_)) => "skipped",
            Err(_) => "FAILED",
        };
        let (seconds, name) = (self.duration.as_secs(), self.name);
        write!(f, "{word:<8} {seconds:>4} s  {name}")?;
        if let Ok(Outcome::Skipped(why)) = self.result {
            write!(f, " ({why})")?;
        }
        Ok(())
    }
}

/// The README's test command.
fn tests(workspace: &Workspace) -> Result<Outcome> {
    let failures = test::run(workspace, &test::Options::default())?;
    if !failures.is_empty() {
        bail!("{} failed\n{}", failures.len(), failures.join("\n"));
    }
    Ok(Outcome::Done)
}
