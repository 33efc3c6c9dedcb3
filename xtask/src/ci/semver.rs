//! Whether the versions say what the changes of the public API mean for users.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::ci::outcome::Outcome;
use crate::command::Run;
use crate::tools::Tools;
use crate::workspace::{Package, Workspace};

/// The commit whose public API users have. What breaks it needs the next minor version, as long as the first number is 0. While nothing
/// is published, the commit after such a change may name it here instead.
const BASELINE: &str = "702b5ebc98bed4c96b6aabedc1d6571b990209ba";
const TOOL: &str = "cargo-semver-checks";
const TOOL_VERSION: &str = "0.51.0";

/// Needs the whole history. Compiles the tool at its first run, which takes minutes.
pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    let installed = Tools::open(workspace)?.get(&format!("{TOOL}-{TOOL_VERSION}"), |folder| {
        Run::new("cargo")
            .args(["install", "--locked", "--no-default-features"])
            .args(["--version", TOOL_VERSION, "--root"])
            .arg(folder)
            .arg(TOOL)
            .succeed()
    })?;
    let then = manifests_then(workspace)?;
    let not_compared = workspace
        .packages
        .iter()
        .filter(|package| !package.is_published() || !then.contains(&manifest(workspace, package)))
        .flat_map(|package| ["--exclude", &package.name]);
    Run::new(installed.join("bin").join(TOOL))
        .args(["semver-checks", "--workspace", "--all-features"])
        .args(["--baseline-rev", BASELINE])
        .args(not_compared)
        .current_dir(&workspace.root)
        .shared_envs(crate::protoc::variables()?)
        .succeed()?;
    Ok(Outcome::Done)
}

/// The manifests that the baseline had: a package that came since has nothing that it could break.
fn manifests_then(workspace: &Workspace) -> Result<BTreeSet<String>> {
    let files = Run::new("git")
        .args(["ls-tree", "-r", "--name-only", BASELINE])
        .current_dir(&workspace.root)
        .output()?;
    Ok(files.lines().map(str::to_owned).collect())
}

/// Where a package's manifest lies in the repository.
fn manifest(workspace: &Workspace, package: &Package) -> String {
    let path = &package.manifest_path;
    let path = path.strip_prefix(&workspace.root).unwrap_or(path);
    path.to_string_lossy().into_owned()
}
