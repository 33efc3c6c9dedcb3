//! `cargo xtask chaos`: runs the package `chaos`, with the programs of both etcd releases, which it starts and breaks itself, or
//! in virtual time.

use anyhow::Result;
use clap::Args;

use crate::servers;
use crate::workspace::Workspace;

/// Needs no server, but a compiler that takes its time.
const SIMULATE: &str = "--simulate";

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Handed to the chaos program; `--help` says what it takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let run = workspace.cargo("run")?;
    let run = run.args(["--release", "--package", "chaos", "--"]);
    let run = run.args(&options.arguments);
    if options
        .arguments
        .iter()
        .any(|argument| argument == SIMULATE)
    {
        return run.succeed();
    }
    let servers = servers::chosen(&["etcd".to_owned()])?;
    let programs = servers::provide_all(workspace, &servers)?;
    run.shared_envs(servers::program_variables(&servers, &programs))
        .succeed()
}
