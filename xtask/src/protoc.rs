//! The protobuf compiler, which etcd-client's build script runs, with the .proto files that belong to it.
//!
//! In this order: what `PROTOC` names, one on PATH that works, the one that comes with the crate `protoc-bin-vendored`.
//! For the first two nothing is set, so that `cargo` by hand and cargo from here build the same thing once.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};

use crate::shell::export;

/// Debian's `protobuf-compiler` alone has no such file; that is what a build would stumble over.
const PROBE: &str = "syntax = \"proto3\";\nimport \"google/protobuf/descriptor.proto\";\n";

type Variables = Vec<(&'static str, OsString)>;

/// What to set for a build. Searched for once.
pub(crate) fn variables() -> Result<Variables> {
    static FOUND: OnceLock<Result<Variables, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| search().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

/// `cargo xtask protoc`: the same for a shell.
pub(crate) fn print() -> Result<()> {
    let variables = variables()?;
    if variables.is_empty() {
        eprintln!("nothing to set: the protoc in PROTOC or on PATH works");
    }
    for (name, value) in variables {
        println!("{}", export(name, &value.to_string_lossy()));
    }
    Ok(())
}

fn search() -> Result<Variables> {
    if let Some(named) = std::env::var_os("PROTOC") {
        if compiles_probe(Path::new(&named))? {
            return Ok(Vec::new());
        }
        return Err(anyhow!(
            "PROTOC={} cannot compile an import of google/protobuf/descriptor.proto: set PROTOC_INCLUDE as well, or unset both",
            named.display()
        ));
    }
    if compiles_probe(Path::new("protoc"))? {
        return Ok(Vec::new());
    }
    let protoc = protoc_bin_vendored::protoc_bin_path()
        .context("no working protoc on PATH and none for this platform: set PROTOC")?;
    let include = protoc_bin_vendored::include_path()
        .context("no working protoc on PATH and none for this platform: set PROTOC")?;
    let variables = vec![
        ("PROTOC", protoc.into_os_string()),
        ("PROTOC_INCLUDE", include.into_os_string()),
    ];
    for (name, value) in &variables {
        eprintln!(
            "for every cargo: {}",
            export(name, &value.to_string_lossy())
        );
    }
    Ok(variables)
}

/// It exists and finds the well-known imports, as build scripts call it.
fn compiles_probe(protoc: &Path) -> Result<bool> {
    let folder = std::env::temp_dir().join(format!("xtask-protoc-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("probe.proto"), PROBE)?;
    let mut command = Command::new(protoc);
    command
        .arg("--descriptor_set_out=/dev/null")
        .arg(format!("-I{}", folder.display()));
    if let Some(include) = std::env::var_os("PROTOC_INCLUDE") {
        command.arg("-I").arg(include);
    }
    let status = command
        .arg(folder.join("probe.proto"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    std::fs::remove_dir_all(&folder)?;
    Ok(status.is_ok_and(|status| status.success()))
}
