//! `cargo xtask bench`: runs the package `bench` in release mode, with an etcd of its own.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::servers::{self, Fleet, go};
use crate::tools::Tools;
use crate::workspace::Workspace;

/// The Go that `bench/go-election/go.mod` asks for.
const OLDEST_GO: &str = "1.26.0";
/// Where the bench program finds the Go client's election.
const GO_ELECTION: &str = "SD_BENCH_GO_ELECTION";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Handed to the bench program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let servers = servers::chosen(&["etcd-3.6".to_owned()])?;
    let programs = servers::provide_all(workspace, &servers)?;
    let build = workspace.cargo("build")?;
    build.args(["--release", "--package", "bench"]).succeed()?;
    let go_election = build_go_election(workspace)?;
    let fleet = Fleet::start(workspace, &servers, &programs)?;
    workspace
        .cargo("run")?
        .args(["--release", "--package", "bench", "--"])
        .args(&options.arguments)
        .env(GO_ELECTION, &go_election.to_string_lossy())
        .shared_envs(servers::variables(&fleet.running))
        .succeed()
}

/// Built each time: Go's own cache makes that quick.
fn build_go_election(workspace: &Workspace) -> Result<PathBuf> {
    let source = workspace.root.join("xtask/bench/go-election");
    let program = workspace.target.join("go-election");
    go::build(&Tools::open(workspace)?, &source, OLDEST_GO, &program)?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrapper_module_asks_for_the_same_go() {
        let go_mod = include_str!("../bench/go-election/go.mod");
        assert!(go_mod.contains(&format!("\ngo {OLDEST_GO}\n")));
    }
}
