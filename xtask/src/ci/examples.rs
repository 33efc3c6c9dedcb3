//! The README's quickstart, embedded and over each backend, and every other example: each ends by itself, with status 0 when what it shows came true.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::built::{self, Binary};
use crate::ci::outcome::Outcome;
use crate::command::Run;
use crate::servers::all::chosen;
use crate::servers::fleet::Fleet;
use crate::servers::program::provide_all;
use crate::servers::running::Running;
use crate::side_by_side::{self, Job};
use crate::workspace::{Package, Workspace};

const PACKAGE: &str = "examples";
const QUICKSTART: &str = "quickstart";

/// An example that takes longer hangs.
const LIMIT: Duration = Duration::from_mins(2);

/// Each of them starts servers and clients of its own, and then mostly shows and waits.
const AT_ONCE: usize = 3;

/// Runs the programs that were built for the tests. That the quickstart also compiles with its default features, as the README has
/// it, is what the step of each feature alone shows.
pub(crate) fn run(workspace: &Workspace) -> Result<Outcome> {
    let package = workspace.package(PACKAGE);
    let package = package.with_context(|| format!("the workspace has no package `{PACKAGE}`"))?;
    let built = built::build(workspace, &["--test", QUICKSTART])?.programs;

    let servers = ["etcd-3.6", "consul", "zookeeper-3.9", "valkey"].map(str::to_owned);
    let servers = chosen(workspace, &servers)?;
    let programs = provide_all(workspace, &servers)?;
    let fleet = Fleet::start(workspace, &servers, &programs)?;
    let mut failed = Vec::new();
    let jobs = jobs(workspace, package, &built, &fleet.running)?;
    side_by_side::run(jobs, AT_ONCE, |_, title, captured| {
        if !captured.is_success() {
            failed.push(title.to_owned());
        }
    })?;
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(Outcome::Done)
}

/// The quickstart over each server, and every program with what it does by itself.
fn jobs(
    workspace: &Workspace,
    package: &Package,
    built: &[Binary],
    servers: &[Running],
) -> Result<Vec<Job>> {
    let job = |title: String, name: &str, arguments: &[&str]| {
        let mut all = built.iter().filter(|one| one.package == PACKAGE);
        let program = all.find(|one| one.name == name);
        let program = program.with_context(|| format!("{name} was not built"))?;
        let command = Run::new(&program.path).current_dir(&workspace.root);
        Ok(Job {
            title,
            command: command.args(arguments),
            busy: false,
            limit: LIMIT,
        })
    };
    let over_server = servers.iter().map(|running| {
        let title = format!("{QUICKSTART} over {}", running.server.backend());
        job(title, QUICKSTART, &["--registry", &registry(running)])
    });
    let embedded = package
        .binaries()
        .map(|name| job(name.to_owned(), name, &[]));
    over_server.chain(embedded).collect()
}

/// What an example is told.
fn registry(running: &Running) -> String {
    let backend = running.server.backend();
    let url = running.url.replacen("http", backend, 1);
    match backend {
        "etcd" => url + "/services",
        // Long enough to be seen, and short enough not to be waited for.
        "consul" => url + "?lock_delay=1s",
        // As long as the servers of the story ask for.
        "zk" => format!("zk://{url}?session_timeout=8s"),
        _ => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_run_and_one_that_was_not_built_is_missed() {
        let json = r#"{"workspace_root":"/w","target_directory":"/t","packages":[
            {"name":"examples","id":"e","version":"0.1.0","manifest_path":"/w/e/Cargo.toml","rust_version":null,"features":{},
             "targets":[{"name":"quickstart","kind":["bin"]},{"name":"watch","kind":["bin"]},{"name":"quickstart","kind":["test"]}]}]}"#;
        let workspace: Workspace = serde_json::from_str(json).unwrap();
        let binary = |name: &str| Binary {
            package: PACKAGE.to_owned(),
            name: name.to_owned(),
            path: format!("/t/{name}").into(),
        };
        let package = workspace.package(PACKAGE).unwrap();
        let jobs = |built: &[Binary]| jobs(&workspace, package, built, &[]);
        let both = jobs(&[binary("watch"), binary("quickstart")]).unwrap();
        let commands: Vec<String> = both.iter().map(|job| job.command.to_string()).collect();
        assert_eq!(commands, ["cd /w && /t/quickstart", "cd /w && /t/watch"]);
        let error = jobs(&[binary("quickstart")]).unwrap_err();
        assert_eq!(error.to_string(), "watch was not built");
    }
}
