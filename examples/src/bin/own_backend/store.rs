//! Files in folders, each read and written as a whole. Knows nothing of discovery.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sd_backend::{CloseSignal, FileThread};
use sd_core::{Error, ErrorKind, Result};
use tokio::time::timeout;

/// What begins like this is ours alone: what is being written, and the lock.
const HIDDEN: char = '.';

/// One folder of folders.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    request_timeout: Duration,
    files: FileThread,
    pub(crate) signal: CloseSignal,
}

/// What becomes of a file.
#[derive(Debug)]
pub(crate) enum Change {
    Stay,
    Write(Vec<u8>),
    Remove,
}

impl Store {
    pub(crate) fn new(root: PathBuf, request_timeout: Duration) -> Self {
        Self {
            root,
            request_timeout,
            files: FileThread::default(),
            signal: CloseSignal::new(),
        }
    }

    /// The folders that hold a file.
    pub(crate) async fn folders(&self, op: &'static str) -> Result<Vec<String>> {
        let root = self.root.clone();
        let list = move || {
            let names = names(&root)?.into_iter();
            let folders = names.filter(|name| holds_files(&root.join(name)));
            Ok(folders.collect())
        };
        self.run(op, list).await
    }

    /// The files in a folder, by their names. None if it is not there.
    pub(crate) async fn read(
        &self,
        op: &'static str,
        folder: &str,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let folder = self.root.join(folder);
        let read = move || {
            let mut found = Vec::new();
            for name in names(&folder)? {
                // One that has gone since was not there.
                if let Some(content) = content(&folder.join(&name))? {
                    found.push((name, content));
                }
            }
            Ok(found)
        };
        self.run(op, read).await
    }

    /// Lets `change` decide what becomes of a file, given what it holds. No other process writes in between. Once begun it is done, also
    /// if the call is dropped, and before all later calls.
    pub(crate) async fn change(
        &self,
        op: &'static str,
        folder: &str,
        file: &str,
        change: impl FnOnce(Option<Vec<u8>>) -> Result<Change> + Send + 'static,
    ) -> Result<()> {
        let (root, folder) = (self.root.clone(), self.root.join(folder));
        let file = folder.join(file);
        let write = move || -> io::Result<Result<()>> {
            fs::create_dir_all(&root)?;
            let lock = File::create(root.join(format!("{HIDDEN}lock")))?;
            flock(&lock, FlockOperation::LockExclusive)?;
            match change(content(&file)?) {
                Err(error) => return Ok(Err(error)),
                Ok(Change::Stay) => {}
                Ok(Change::Remove) => {
                    fs::remove_file(&file)?;
                    // Fails if it holds more.
                    let _ = fs::remove_dir(&folder);
                }
                Ok(Change::Write(content)) => {
                    let begun = root.join(format!("{HIDDEN}begun"));
                    fs::write(&begun, content)?;
                    fs::create_dir_all(&folder)?;
                    // Readers see all of it or nothing.
                    fs::rename(begun, &file)?;
                }
            }
            Ok(Ok(()))
        };
        self.run(op, write).await?
    }

    async fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let limit = self.request_timeout;
        let running = async {
            let done = timeout(limit, self.files.run(op, work)).await;
            let done = done.map_err(|_| {
                Error::new(ErrorKind::Timeout, op).because(format!(
                    "the folder was not read or written within {limit:?}"
                ))
            })??;
            done.map_err(|error| translate(op, error))
        };
        self.signal.unless_closed(op, running).await
    }
}

/// What the operating system says, in our kinds.
fn translate(op: &'static str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::InvalidFilename => ErrorKind::Rejected,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, op).with_source(error)
}

/// What is in a folder, sorted. What is not text is none of ours.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.retain(|name| !name.starts_with(HIDDEN));
    names.sort();
    Ok(names)
}

fn holds_files(folder: &Path) -> bool {
    folder.is_dir() && names(folder).is_ok_and(|names| !names.is_empty())
}

fn content(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}
