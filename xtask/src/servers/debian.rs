//! Debian packages: installed where a tool is missing, or only unpacked where a program is all we need.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

use crate::command::Run;

/// apt-get refuses to work beside itself, and several servers are installed at the same time.
static APT: Mutex<()> = Mutex::new(());

/// Unpacks `package` and nothing else into `folder`: nothing is installed, no service starts, no root is needed.
pub(crate) fn unpack(package: &str, folder: &Path) -> Result<()> {
    let _apt = APT.lock().unwrap_or_else(PoisonError::into_inner);
    let download = || {
        Run::new("apt-get")
            .args(["download", package])
            .current_dir(folder)
            .succeed()
    };
    if let Err(error) = download() {
        // A fresh machine has no package lists.
        if !geteuid().is_root() {
            return Err(error.context("apt-get has no package lists? As root: apt-get update"));
        }
        update()?;
        download()?;
    }
    let archive = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .with_context(|| format!("apt-get downloaded no archive of {package}"))?;
    Run::new("dpkg-deb")
        .arg("-x")
        .args([&archive, folder])
        .succeed()?;
    Ok(fs::remove_file(archive)?)
}

/// Installs `package` when we may.
pub(crate) fn install(package: &str) -> Result<()> {
    if !geteuid().is_root() {
        bail!("{package} is missing. As root: apt-get install {package}");
    }
    let _apt = APT.lock().unwrap_or_else(PoisonError::into_inner);
    let install = || {
        Run::new("apt-get")
            .args(["install", "--yes", "--no-install-recommends", package])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .succeed()
    };
    if install().is_err() {
        update()?;
        install()?;
    }
    Ok(())
}

fn update() -> Result<()> {
    Run::new("apt-get").arg("update").succeed()
}
