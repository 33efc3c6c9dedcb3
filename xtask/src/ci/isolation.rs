//! Who depends on one backend compiles nothing of the others, and nothing of the gRPC channel.

use anyhow::{Result, bail};

use crate::ci::Outcome;
use crate::workspace::Workspace;

/// Each backend with the crate that speaks to its server.
const BACKENDS: &[(&str, &str)] = &[("sd-etcd", "etcd-client")];

/// What no user of sd-core alone should have to compile.
const HEAVY: &[&str] = &["tonic", "hyper", "h2", "rustls"];

pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    let clients = BACKENDS.iter().map(|(_, client)| *client);
    let unwanted: Vec<&str> = clients.chain(HEAVY.iter().copied()).collect();
    check_tree(workspace, "sd-core", &unwanted)?;
    for (backend, _) in BACKENDS {
        let others = BACKENDS.iter().filter(|(other, _)| other != backend);
        let unwanted: Vec<&str> = others.map(|(_, client)| *client).collect();
        check_tree(workspace, backend, &unwanted)?;
    }
    Ok(Outcome::Done)
}

fn check_tree(workspace: &Workspace, package: &str, unwanted: &[&str]) -> Result<()> {
    let tree = workspace
        .cargo("tree")?
        .args(["--package", package, "--all-features"])
        .args([
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .output()?;
    let ours = workspace
        .packages
        .iter()
        .map(|package| package.name.as_str());
    let strangers = ours.filter(|name| *name != package && *name != "sd-core");
    let unwanted: Vec<&str> = strangers.chain(unwanted.iter().copied()).collect();
    let found = found(&tree, &unwanted);
    if !found.is_empty() {
        bail!("{package} compiles {}", found.join(", "));
    }
    Ok(())
}

/// Those of `names` that are in the tree, whose lines are `name version ...`.
fn found<'a>(tree: &str, names: &[&'a str]) -> Vec<&'a str> {
    let is_in_tree = |name: &str| {
        let mut lines = tree.lines();
        lines.any(|line| line.split(' ').next() == Some(name))
    };
    let names = names.iter().copied();
    names.filter(|name| is_in_tree(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_found_by_its_whole_name() {
        let tree = "sd-etcd v0.1.0 (/w/sd-etcd)\nhyper-util v0.1.21\ntonic v0.14.9 (*)\n";
        assert_eq!(found(tree, &["hyper", "tonic", "sd-grpc"]), ["tonic"]);
    }
}
