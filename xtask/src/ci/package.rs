//! Each crate that is published, packed and compiled as its users get it.

use anyhow::Result;

use crate::ci::outcome::Outcome;
use crate::workspace::Workspace;

pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    let command = workspace.cargo("package")?.args([
        "--quiet",
        "--workspace",
        // What is being worked on can be checked, too.
        "--allow-dirty",
    ]);
    // Cargo would look for what they depend on where we publish.
    let unpublished = workspace
        .packages
        .iter()
        .filter(|package| !package.is_published());
    unpublished
        .fold(command, |command, package| {
            command.args(["--exclude", &package.name])
        })
        .succeed()?;
    Ok(Outcome::Done)
}
