//! Virtual environments, for what PyPI carries.

use std::path::Path;

use anyhow::Result;

use crate::command::Run;
use crate::servers::debian;

/// Makes a virtual environment in `folder` with `requirement` in it: `name==version`.
pub(crate) fn install(requirement: &str, folder: &Path) -> Result<()> {
    let create = || {
        Run::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(folder)
            .succeed()
    };
    // Debian's python3 comes without venv, and a small Debian without python3.
    if create().is_err() {
        debian::install("python3-venv")?;
        create()?;
    }
    Run::new(folder.join("bin/python3"))
        .args(["-m", "pip", "install", "--quiet", requirement])
        .succeed()
}
