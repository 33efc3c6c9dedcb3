//! Licences, sources and duplicates, by `deny.toml`.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::ci::outcome::Outcome;
use crate::workspace::Workspace;

pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    let installed = Command::new("cargo-deny")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        return Ok(Outcome::Skipped("cargo-deny is not installed"));
    }
    // Advisories are published at any time and say nothing about the change at hand: the workflow asks for them apart.
    workspace
        .cargo("deny")?
        .args(["check", "bans", "licenses", "sources"])
        .succeed()?;
    Ok(Outcome::Done)
}
