//! What is written down of each started server, so that any later command can find and end it.
//!
//! `target/servers/shared/<server>/` belongs to `servers up`, `target/servers/run-<pid>/<server>/` to one run of the
//! tests. Each folder holds `record.json`, the server's `data/` and its `log`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::process::ProcessId;
use crate::workspace::Workspace;

const FILE: &str = "record.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// `etcd-3.6`
    pub(crate) server: String,
    pub(crate) url: String,
    pub(crate) program: PathBuf,
    pub(crate) version: String,
    pub(crate) process: ProcessId,
    /// The run that ends it. None: `servers down` does.
    pub(crate) owner: Option<ProcessId>,
}

impl Record {
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        // Renamed into place, so that a reader never sees half of it.
        let partial = folder.join("record.partial");
        fs::write(&partial, serde_json::to_string_pretty(self)?)?;
        fs::rename(partial, folder.join(FILE))?;
        Ok(())
    }

    /// None where nothing was started, or it was ended.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let record = serde_json::from_str(&fs::read_to_string(&file)?)
            .with_context(|| format!("{} is damaged", file.display()))?;
        Ok(Some(record))
    }

    /// The process that should have ended it is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.owner.is_some_and(|owner| !owner.is_alive())
    }

    /// Ends the server and removes its data. The log stays, to show what happened.
    pub(crate) fn end(&self, folder: &Path) -> Result<()> {
        self.process
            .stop()
            .with_context(|| format!("cannot stop {}", self.server))?;
        remove(&folder.join("data"))?;
        fs::remove_file(folder.join(FILE))?;
        Ok(())
    }
}

/// The folder below which all records are.
#[derive(Debug)]
pub(crate) struct Records {
    folder: PathBuf,
    /// Held while servers are started or looked for; it ends with the process.
    _lock: File,
}

impl Records {
    pub(crate) fn lock(workspace: &Workspace) -> Result<Self> {
        let folder = workspace.target.join("servers");
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock()?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    pub(crate) fn shared(&self) -> PathBuf {
        self.folder.join("shared")
    }

    pub(crate) fn of_run(&self, run: ProcessId) -> PathBuf {
        self.folder.join(format!("run-{}", run.pid))
    }

    /// Every record, with its folder.
    pub(crate) fn all(&self) -> Result<Vec<(PathBuf, Record)>> {
        let mut records = Vec::new();
        for group in folders(&self.folder)? {
            records.extend(in_group(&group)?);
        }
        Ok(records)
    }

    /// Ends what killed runs left behind, and removes the logs of runs that are over.
    pub(crate) fn sweep(&self) -> Result<()> {
        for group in folders(&self.folder)? {
            let records = in_group(&group)?;
            for (folder, record) in &records {
                if record.is_abandoned() {
                    eprintln!("ending {}, left by a killed run", record.server);
                    record.end(folder)?;
                }
            }
            if group != self.shared() && records.iter().all(|(_, record)| record.is_abandoned()) {
                remove(&group)?;
            }
        }
        Ok(())
    }
}

fn in_group(group: &Path) -> Result<Vec<(PathBuf, Record)>> {
    let mut records = Vec::new();
    for folder in folders(group)? {
        if let Some(record) = Record::read(&folder)? {
            records.push((folder, record));
        }
    }
    Ok(records)
}

fn folders(of: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(of)? {
        let path = entry?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Removes a folder that may not be there.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}
