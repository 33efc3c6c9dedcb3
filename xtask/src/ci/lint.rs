//! What the compiler and its tools can say without running anything.

use anyhow::{Context, Result};

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

pub(crate) fn msrv(workspace: &Workspace) -> Result<Outcome> {
    let version = workspace
        .packages
        .iter()
        .find_map(|package| package.rust_version.as_deref())
        .context("no package states a rust-version")?;
    Run::new("rustup")
        .args(["run", "--install", version])
        .args([
            "cargo",
            "check",
            "--workspace",
            "--all-targets",
            "--all-features",
        ])
        .shared_envs(crate::protoc::variables()?)
        .current_dir(&workspace.root)
        .succeed()?;
    Ok(Outcome::Done)
}
