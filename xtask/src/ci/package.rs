//! Each crate that is published, packed as its users get it.

use anyhow::Result;

use crate::ci::links;
use crate::ci::outcome::Outcome;
use crate::workspace::Workspace;

/// Whether each can be packed, and what its README links to. Takes seconds.
pub(crate) fn pack(workspace: &Workspace) -> Result<Outcome> {
    package(workspace, &["--no-verify"])
}

/// The same, and whether what is packed compiles. Compiles most dependencies once more.
pub(crate) fn compile(workspace: &Workspace) -> Result<Outcome> {
    package(workspace, &[])
}

fn package(workspace: &Workspace, options: &[&str]) -> Result<Outcome> {
    links::check(workspace)?;
    // What is being worked on can be packed, too.
    let command = workspace
        .cargo("package")?
        .args(["--quiet", "--workspace", "--allow-dirty"])
        .args(options);
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
