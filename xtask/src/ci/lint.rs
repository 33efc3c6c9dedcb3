//! What the compiler and its tools can say without running anything.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::ci::outcome::Outcome;
use crate::command::Run;
use crate::workspace::Workspace;

pub(crate) fn format(workspace: &Workspace) -> Result<Outcome> {
    workspace
        .cargo("fmt")?
        .args(["--all", "--check"])
        .succeed()?;
    Ok(Outcome::Done)
}

pub(crate) fn clippy(workspace: &Workspace) -> Result<Outcome> {
    // Not by RUSTFLAGS, with which every dependency would be compiled once more.
    workspace
        .cargo("clippy")?
        .args(["--workspace", "--all-targets", "--all-features"])
        .args(["--", "-D", "warnings"])
        .succeed()?;
    Ok(Outcome::Done)
}

pub(crate) fn doc(workspace: &Workspace) -> Result<Outcome> {
    // `--examples` documents nothing here, but makes cargo take the features that the dev-dependencies ask for, and with
    // them all that Clippy has checked already.
    workspace
        .cargo("doc")?
        .args(["--workspace", "--no-deps", "--all-features"])
        .args(["--lib", "--bins", "--examples"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .succeed()?;
    Ok(Outcome::Done)
}

/// The crates that are published, without their tests, whose dependencies may ask for more.
pub(crate) fn msrv(workspace: &Workspace) -> Result<Outcome> {
    let published = || workspace.packages.iter().filter(|one| one.is_published());
    let versions: BTreeSet<&str> = published()
        .filter_map(|package| package.rust_version.as_deref())
        .collect();
    for version in versions {
        let of_this = published()
            .filter(|package| package.rust_version.as_deref() == Some(version))
            .flat_map(|package| ["--package", &package.name]);
        Run::new("rustup")
            .args(["run", "--install", version])
            .args(["cargo", "check", "--all-features"])
            .args(of_this)
            .shared_envs(crate::protoc::variables()?)
            .current_dir(&workspace.root)
            .succeed()?;
    }
    Ok(Outcome::Done)
}
