//! Debian packages: installed where a tool is missing, or only unpacked where a program is all we need.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use rustix::process::geteuid;

use crate::command::Run;

/// apt-get refuses to work beside itself, and several servers are installed at the same time.
static APT: Mutex<()> = Mutex::new(());

/// Unpacks `packages` and nothing else into `folder`, one over the other: nothing is installed, no service starts, no root is needed.
pub(crate) fn unpack(packages: &[&str], folder: &Path) -> Result<()> {
    let _apt = APT.lock().unwrap_or_else(PoisonError::into_inner);
    let download = || {
        Run::new("apt-get")
            .arg("download")
            .args(packages)
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
    let archives = archives(folder)?;
    if archives.len() != packages.len() {
        bail!("apt-get downloaded {archives:?} for {packages:?}");
    }
    for archive in archives {
        Run::new("dpkg-deb")
            .arg("-x")
            .args([&archive, folder])
            .succeed()?;
        fs::remove_file(archive)?;
    }
    Ok(())
}

fn archives(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut archives = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "deb") {
            archives.push(path);
        }
    }
    archives.sort();
    Ok(archives)
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
