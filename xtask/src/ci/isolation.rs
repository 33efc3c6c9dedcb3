//! Who depends on one backend compiles nothing of the others, and nothing of the gRPC channel. A process that talks to its agent compiles
//! no backend at all.

use anyhow::{Result, bail};

use crate::ci::outcome::Outcome;
use crate::workspace::Workspace;

/// Each backend with the crate that speaks to its server.
const BACKENDS: &[(&str, &str)] = &[
    ("sd-cluster", "tungstenite"),
    ("sd-consul", "reqwest"),
    ("sd-dns", "hickory-resolver"),
    ("sd-etcd", "etcd-client"),
    ("sd-redis", "redis"),
    ("sd-zk", "zookeeper-client"),
];

/// What no user of sd-core alone should have to compile.
const HEAVY: &[&str] = &["tonic", "hyper", "h2", "rustls"];

pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    let clients = || BACKENDS.iter().map(|(_, client)| *client);
    let unwanted: Vec<&str> = clients().chain(HEAVY.iter().copied()).collect();
    alone(workspace, "sd-core", &[], &unwanted)?;
    alone(workspace, "sd-backend", &["sd-core"], &unwanted)?;
    for (backend, own) in BACKENDS {
        let others: Vec<&str> = clients().filter(|client| client != own).collect();
        alone(workspace, backend, SHARED, &others)?;
    }
    // By URL, only the backends whose features are on.
    for package in ["sd-any", "sd-sidecar"] {
        let bare = tree(workspace, package, &["--no-default-features"])?;
        expect_none(&bare, package, &clients().collect::<Vec<_>>())?;
    }
    // The agent's client: no backend, no server, no gRPC, and TLS only where it is asked for.
    let backends = || {
        BACKENDS
            .iter()
            .flat_map(|(backend, client)| [*backend, *client])
            .chain(["tonic", "prost", "axum", "sd-any", "sd-election"])
    };
    for (features, unwanted) in [
        ("client", &["rustls", "sd-backend"][..]),
        ("client,tls", &[]),
    ] {
        let client = tree(
            workspace,
            "sd-sidecar",
            &["--no-default-features", &format!("--features={features}")],
        )?;
        let unwanted: Vec<&str> = backends().chain(unwanted.iter().copied()).collect();
        let what = format!("sd-sidecar with the features {features}");
        expect_none(&client, &what, &unwanted)?;
    }
    for (backend, own) in BACKENDS {
        let feature = backend.trim_start_matches("sd-");
        let one = tree(workspace, "sd-any", &[&format!("--features={feature}")])?;
        let others: Vec<&str> = clients().filter(|client| client != own).collect();
        expect_none(&one, "sd-any", &others)?;
    }
    // The quickstart builds with Rust and a C compiler: no client crate, whose build may want more than that.
    let quickstart = tree(workspace, "examples", &["--no-default-features"])?;
    expect_none(&quickstart, "examples", &clients().collect::<Vec<_>>())?;
    Ok(Outcome::Done)
}

/// What every backend is made of.
const SHARED: &[&str] = &["sd-core", "sd-backend"];

/// With all of its features, `package` compiles none of `unwanted`, and of this workspace only itself and `allowed`.
fn alone(workspace: &Workspace, package: &str, allowed: &[&str], unwanted: &[&str]) -> Result<()> {
    let packages = workspace.packages.iter();
    let strangers = packages
        .map(|other| other.name.as_str())
        .filter(|other| *other != package && !allowed.contains(other));
    let unwanted: Vec<&str> = strangers.chain(unwanted.iter().copied()).collect();
    expect_none(
        &tree(workspace, package, &["--all-features"])?,
        package,
        &unwanted,
    )
}

fn tree(workspace: &Workspace, package: &str, features: &[&str]) -> Result<String> {
    workspace
        .cargo("tree")?
        .args(["--package", package])
        .args(features)
        .args(["--edges=normal,build", "--prefix=none", "--format={p}"])
        .output()
}

fn expect_none(tree: &str, package: &str, unwanted: &[&str]) -> Result<()> {
    let found = found(tree, unwanted);
    if !found.is_empty() {
        bail!("{package} compiles {}, which it must not", found.join(", "));
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
