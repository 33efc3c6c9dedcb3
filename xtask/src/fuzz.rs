//! `cargo xtask fuzz`: has LLVM's fuzzer look for input that does harm to what reads from outside.
//!
//! Only the crates of this workspace are instrumented, so that their dependencies are those of the tests.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use crate::built;
use crate::ci::outcome::Outcome;
use crate::command::Run;
use crate::interrupt;
use crate::workspace::Workspace;

const PACKAGE: &str = "fuzz";
/// How long each target is tried in continuous integration, in seconds.
const BRIEFLY: u32 = 5;
/// How long the fuzzer may look for a mistake that was put in, in seconds.
const PATIENCE: u32 = 60;
/// More of an input would slow the fuzzer down. What has a limit of its own has a smaller one.
const LONGEST_INPUT: u32 = 4096;
/// How long one input may take, in seconds, and how much memory all, in MiB.
const SLOWEST_INPUT: u32 = 20;
const MOST_MEMORY: u32 = 2048;

/// The exit statuses of LLVM's fuzzer when an input does harm.
const TOO_SLOW: i32 = 70;
const TOO_LARGE: i32 = 71;
const CRASHED: i32 = 77;

/// Before the number of inputs that the fuzzer has tried.
const COUNT: &str = "stat::number_of_executed_units:";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to try; everything by default
    targets: Vec<String>,
    /// For how many seconds each
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// Add inputs that reached something new to the corpus
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let fuzzer = Fuzzer::build(workspace)?;
    let all = fuzzer.targets()?;
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(name)) {
        bail!("{unknown:?} is no target: name some of {}", all.join(", "));
    }
    let chosen = if options.targets.is_empty() {
        &all
    } else {
        &options.targets
    };
    for target in chosen {
        fuzzer.fuzz(target, options.seconds)?;
        if options.keep {
            fuzzer.keep(target)?;
        }
    }
    Ok(())
}

/// A short run of everything, after the fuzzer has found each mistake that was put in. One target runs on each core.
pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    let fuzzer = Fuzzer::build(workspace)?;
    let targets = Mutex::new(fuzzer.targets()?);
    let next = || targets.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let check_rest = || -> Result<()> {
        while let Some(target) = next() {
            fuzzer.find_planted(&target)?;
            fuzzer.fuzz(&target, BRIEFLY)?;
        }
        Ok(())
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(check_rest)).collect();
        let panicked = |_| anyhow!("a run of the fuzzer panicked");
        // All of them are waited for, whatever becomes of the first.
        let results: Vec<_> = workers.into_iter().map(ScopedJoinHandle::join).collect();
        let mut results = results.into_iter();
        results.try_for_each(|result| result.map_err(panicked)?)
    })?;
    Ok(Outcome::Done)
}

/// The built program, and where it keeps what it finds.
struct Fuzzer {
    program: PathBuf,
    /// What is committed.
    corpus: PathBuf,
    /// What was found.
    found: PathBuf,
}

impl Fuzzer {
    fn build(workspace: &Workspace) -> Result<Self> {
        let folder = workspace.root.join("xtask").join(PACKAGE);
        let wrapper = folder.join("instrument.sh");
        let program = built::program(workspace, PACKAGE, &wrapper)?;
        Ok(Self {
            program,
            corpus: folder.join("corpus"),
            found: workspace.target.join(PACKAGE),
        })
    }

    /// Each has a corpus.
    fn targets(&self) -> Result<Vec<String>> {
        let folders = fs::read_dir(&self.corpus).context("cannot read the corpus")?;
        let names = folders.map(|folder| Ok(folder?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn fuzz(&self, target: &str, seconds: u32) -> Result<()> {
        let found = self.folder(target, "corpus")?;
        let harm = self.folder(target, "harm")?;
        let tried = self.command(target, &harm, seconds);
        // The fuzzer writes to the first folder.
        let output = output_of(tried.arg(&found).arg(self.corpus.join(target)))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            let inputs = said.lines().find_map(|line| line.strip_prefix(COUNT));
            eprintln!(
                "{target}: {} inputs in {seconds} s",
                inputs.unwrap_or("?").trim()
            );
            return Ok(());
        }
        eprintln!("{said}");
        let Some(what) = harm_of(output.status) else {
            bail!("the fuzzer of {target} failed: {}", output.status);
        };
        bail!(
            "an input does harm to {target}: {what}. It is in {}. To try it again: SD_FUZZ_TARGET={target} {} FILE",
            harm.display(),
            self.program.display()
        )
    }

    fn find_planted(&self, target: &str) -> Result<()> {
        let found = self.folder(target, "planted")?;
        // What an earlier run found proves nothing of this one.
        fs::remove_dir_all(&found)?;
        let found = self.folder(target, "planted")?;
        let new = self.folder(target, "planted-corpus")?;
        let tried = self.command(target, &found, PATIENCE);
        let tried = tried.env("SD_FUZZ_PLANTED", "1");
        let output = output_of(tried.arg(&new).arg(self.corpus.join(target)))?;
        if output.status.success() {
            bail!("the mistake that was put into {target} was not found in {PATIENCE} s");
        }
        if output.status.code() != Some(CRASHED) {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
            let what = harm_of(output.status).unwrap_or("the fuzzer failed");
            bail!(
                "instead of the mistake that was put into {target}: {what} ({})",
                output.status
            );
        }
        let mut files = fs::read_dir(&found)?.collect::<Result<Vec<_>, _>>()?;
        files.retain(|file| file.file_name().to_string_lossy().starts_with("crash-"));
        let Some(input) = files.pop() else {
            bail!("{target} crashed, but the fuzzer kept no input");
        };
        // Without the mistake it does no harm, or another one was found.
        let program = Run::new(&self.program).env("SD_FUZZ_TARGET", target);
        let again = output_of(program.arg(input.path()))?;
        if !again.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&again.stderr));
            bail!(
                "{} does harm to {target}, also without the mistake that was put in",
                input.path().display()
            );
        }
        eprintln!("{target}: the mistake that was put in was found");
        Ok(())
    }

    /// Adds to the corpus the inputs that reach what none of it reaches. It takes none out.
    fn keep(&self, target: &str) -> Result<()> {
        let found = self.folder(target, "corpus")?;
        let merge = Run::new(&self.program).env("SD_FUZZ_TARGET", target);
        let merge = merge.args(["-merge=1", "-verbosity=0"]);
        merge.arg(self.corpus.join(target)).arg(found).succeed()
    }

    fn command(&self, target: &str, found: &Path, seconds: u32) -> Run {
        Run::new(&self.program)
            .env("SD_FUZZ_TARGET", target)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={LONGEST_INPUT}"))
            .arg(format!("-timeout={SLOWEST_INPUT}"))
            .arg(format!("-rss_limit_mb={MOST_MEMORY}"))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .args(["-verbosity=0", "-print_final_stats=1"])
    }

    fn folder(&self, target: &str, name: &str) -> Result<PathBuf> {
        let folder = self.found.join(name).join(target);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }
}

/// What an input has done, as the fuzzer tells by its exit status. `None` if it was no input.
fn harm_of(status: ExitStatus) -> Option<&'static str> {
    match status.code()? {
        TOO_SLOW => Some("it takes too long"),
        TOO_LARGE => Some("it takes too much memory"),
        CRASHED => Some("it crashes"),
        _ => None,
    }
}

/// Runs it to its end without showing what it says.
fn output_of(run: Run) -> Result<Output> {
    let (child, _forwarding) = run.start_piped()?;
    let output = child.wait_with_output()?;
    // What was stopped says nothing of its inputs.
    interrupt::check()?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_what_an_input_did_is_taken_for_harm() {
        let exited = |code: i32| harm_of(ExitStatus::from_raw(code << 8));
        assert_eq!(exited(70), Some("it takes too long"));
        assert_eq!(exited(71), Some("it takes too much memory"));
        assert_eq!(exited(77), Some("it crashes"));
        assert_eq!(exited(1), None);
        let killed = ExitStatus::from_raw(9);
        assert_eq!(harm_of(killed), None);
    }
}
