//! The README's quickstart, embedded and over each backend, and every other example: each ends by itself, with status 0 when what it shows came true.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::ci::outcome::Outcome;
use crate::command::Run;
use crate::interrupt;
use crate::servers::all::chosen;
use crate::servers::fleet::Fleet;
use crate::servers::program::provide_all;
use crate::servers::running::Running;
use crate::workspace::Workspace;

const QUICKSTART: &str = "quickstart";

/// The backends that examples can be run over.
const FEATURES: &str = "etcd,consul";

/// An example that takes longer hangs. Building is not counted.
const LIMIT: Duration = Duration::from_mins(2);

pub(crate) fn run(workspace: &Workspace) -> Result<Outcome> {
    let Some(package) = workspace.package("examples") else {
        bail!("there is no package `examples`");
    };
    // As the README has it: default features, and so no protoc and no server.
    build(workspace, &["--bin", QUICKSTART])?;
    example(workspace, QUICKSTART, &[])?.succeed()?;

    let servers = chosen(&["etcd-3.6".to_owned(), "consul".to_owned()])?;
    let programs = provide_all(workspace, &servers)?;
    let fleet = Fleet::start(workspace, &servers, &programs)?;
    let with_features = ["--features", FEATURES];
    build(workspace, &[&with_features[..], &["--bins"]].concat())?;
    let mut failed = Vec::new();
    for running in &fleet.running {
        interrupt::check()?;
        let backend = running.server.backend();
        let told = example(workspace, QUICKSTART, &with_features)?
            .args(["--", "--registry", &registry(running)])
            .succeed();
        if let Err(error) = told {
            eprintln!("error: {error:#}");
            failed.push(format!("quickstart over {backend}"));
        }
    }
    for name in package.binaries().filter(|name| *name != QUICKSTART) {
        interrupt::check()?;
        if let Err(error) = example(workspace, name, &with_features)?.succeed() {
            eprintln!("error: {error:#}");
            failed.push(name.to_owned());
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(Outcome::Done)
}

/// What an example is told.
fn registry(running: &Running) -> String {
    let backend = running.server.backend();
    let url = running.url.replacen("http", backend, 1);
    match backend {
        "etcd" => url + "/services",
        // Long enough to be seen, and short enough not to be waited for.
        "consul" => url + "?lock_delay=1s",
        _ => url,
    }
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
