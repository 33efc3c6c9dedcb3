//! `cargo xtask bench`: runs the package `bench` in release mode, with an etcd of its own.

use anyhow::Result;
use clap::Args;

use crate::servers::{self, Fleet};
use crate::workspace::Workspace;

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
    let fleet = Fleet::start(workspace, &servers, &programs)?;
    workspace
        .cargo("run")?
        .args(["--release", "--package", "bench", "--"])
        .args(&options.arguments)
        .shared_envs(servers::variables(&fleet.running))
        .succeed()
}
