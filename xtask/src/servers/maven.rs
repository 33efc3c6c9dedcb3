//! Artifacts from Maven Central, by way of Apache Ivy: one archive of Debian's, which knows by itself where Maven Central is and checks
//! what it downloads.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::command::Run;
use crate::servers::{debian, java};
use crate::tools::Tools;

/// Puts what `module`, an `ivy.xml`, names and what that depends on into `folder`, as `<artifact>-<version>.jar`.
pub(crate) fn retrieve(tools: &Tools, module: &Path, folder: &Path) -> Result<()> {
    let ivy = tools.get("ivy-debian", |folder| debian::unpack(&["ivy"], folder))?;
    let cache = folder.join("cache");
    // What was published on this machine is no business of ours.
    let user = format!("-Divy.default.ivy.user.dir={}", cache.display());
    let pattern = folder.join("[artifact]-[revision].[ext]");
    Run::new(java::runtime(tools)?)
        .arg(user)
        .arg("-jar")
        .arg(ivy.join("usr/share/java/ivy.jar"))
        .args(["-warn", "-confs", "default", "-ivy"])
        .arg(module)
        .arg("-cache")
        .arg(&cache)
        .arg("-retrieve")
        .arg(pattern)
        .succeed()?;
    Ok(fs::remove_dir_all(cache)?)
}
