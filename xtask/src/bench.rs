//! `cargo xtask bench`: runs the package `bench` in release mode, with an etcd, a Consul, a ZooKeeper and a Valkey of its own, and with
//! the programs that it measures or compares with.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::peers::{self, Alone};
use crate::servers::all::chosen;
use crate::servers::fleet::Fleet;
use crate::servers::program::provide_all;
use crate::servers::{go, variables};
use crate::tools::Tools;
use crate::workspace::Workspace;

/// The elections of Go clients: the folder and program, the Go that its go.mod asks for, and where the bench program finds it.
const GO_PROGRAMS: [(&str, &str, &str); 2] = [
    ("go-election", "1.26.0", "SD_BENCH_GO_ELECTION"),
    ("go-lock", "1.23.8", "SD_BENCH_GO_LOCK"),
];

/// The server beside which Curator's latch is measured.
const ZOOKEEPER: &str = "zookeeper-3.9";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Arguments for the bench program; `-- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let servers = ["etcd-3.6", "consul", ZOOKEEPER, "valkey-9.1"].map(str::to_owned);
    let servers = chosen(workspace, &servers)?;
    let programs = provide_all(workspace, &servers)?;
    let build = workspace.cargo("build")?;
    build.args(["--release", "--package", "bench"]).succeed()?;
    let agent = build_agent(workspace)?;
    let go_programs = build_go_programs(workspace)?;
    let curator = peers::provide(workspace, &chosen(workspace, &[ZOOKEEPER.to_owned()])?)?;
    let isp_kit = Alone::of("cluster").context("no peers of sd-cluster")?;
    let isp_kit = isp_kit.provide(workspace)?;
    let fleet = Fleet::start(workspace, &servers, &programs)?;
    workspace
        .cargo("run")?
        .args(["--release", "--package", "bench", "--"])
        .args(&options.arguments)
        .shared_envs([agent])
        .shared_envs(go_programs)
        .shared_envs(curator)
        .shared_envs(isp_kit)
        .shared_envs(variables::of(&fleet.running))
        .succeed()
}

/// The local agent, with the features that its users get and not those of the bench. Returns the variable that names it.
fn build_agent(workspace: &Workspace) -> Result<(&'static str, PathBuf)> {
    let build = workspace.cargo("build")?;
    build
        .args(["--release", "--package", "sd-sidecar", "--bin", "sd-agent"])
        .succeed()?;
    Ok(("SD_BENCH_AGENT", workspace.target.join("release/sd-agent")))
}

/// Built each time: Go's own cache makes that quick. Returns the variables that name them.
fn build_go_programs(workspace: &Workspace) -> Result<Vec<(String, String)>> {
    let tools = Tools::open(workspace)?;
    let mut variables = Vec::new();
    for (name, oldest_go, variable) in GO_PROGRAMS {
        let source = workspace.root.join("xtask/bench").join(name);
        let program = workspace.target.join(name);
        go::build(&tools, &source, oldest_go, &program)?;
        let program = program.to_string_lossy().into_owned();
        variables.push((variable.to_owned(), program));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrapper_modules_ask_for_the_same_go() {
        let modules = [
            include_str!("../bench/go-election/go.mod"),
            include_str!("../bench/go-lock/go.mod"),
        ];
        for ((name, oldest_go, _), go_mod) in GO_PROGRAMS.into_iter().zip(modules) {
            assert!(go_mod.contains(&format!("\ngo {oldest_go}\n")), "{name}");
        }
    }
}
