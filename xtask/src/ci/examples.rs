//! The README's quickstart, and every other example: each ends by itself, with status 0 when what it shows came true.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::ci::Outcome;
use crate::command::Run;
use crate::interrupt;
use crate::servers::{self, Fleet};
use crate::workspace::Workspace;

const QUICKSTART: &str = "quickstart";

/// An example that takes longer hangs. Building is not counted.
const LIMIT: Duration = Duration::from_mins(2);

pub(crate) fn run(workspace: &Workspace) -> Result<Outcome> {
    let Some(package) = workspace.package("examples") else {
        bail!("there is no package `examples`");
    };
    // As the README has it: default features, and so no protoc and no server.
    build(workspace, &["--bin", QUICKSTART])?;
    example(workspace, QUICKSTART, &[])?.succeed()?;

    let servers = servers::chosen(&["etcd-3.6".to_owned()])?;
    let programs = servers::provide_all(workspace, &servers)?;
    let fleet = Fleet::start(workspace, &servers, &programs)?;
    let etcd = fleet.running.first().context("etcd was not started")?;
    let registry = etcd.url.replacen("http://", "etcd://", 1) + "/services";
    build(workspace, &["--features", "etcd", "--bins"])?;
    let over_etcd = example(workspace, QUICKSTART, &["--features", "etcd"])?
        .args(["--", "--registry", &registry])
        .succeed();
    let mut failed = Vec::new();
    if let Err(error) = over_etcd {
        eprintln!("error: {error:#}");
        failed.push("quickstart over etcd");
    }
    for name in package.binaries().filter(|name| *name != QUICKSTART) {
        interrupt::check()?;
        if let Err(error) = example(workspace, name, &["--features", "etcd"])?.succeed() {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(Outcome::Done)
}

fn build(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    workspace
        .cargo("build")?
        .args(["--package", "examples"])
        .args(arguments)
        .succeed()
}

fn example(workspace: &Workspace, name: &str, arguments: &[&str]) -> Result<Run> {
    let command = workspace
        .cargo("run")?
        .args(["--package", "examples", "--bin", name])
        .args(arguments);
    Ok(command.limit(LIMIT))
}
