//! The file: read with care, replaced as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sd_core::{Error, Printable};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use super::stored::{State, Stored};

const OP: &str = "open state";
/// The name of the file in a folder.
const FILE_NAME: &str = "registrations.json";
/// What this version writes. It reads no other one.
const VERSION: u32 = 1;
/// What the name of a state ends with whose registrations are about to be withdrawn, if there was no room to write that into it. It counts
/// where there is no other.
const ENDING: &str = "ending";
/// More is not read. 10 000 registrations with metadata of 1 KiB each are 25 MB.
const MOST_BYTES: u64 = 256 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    folder: PathBuf,
    /// Held until the agent ends.
    lock: File,
}

/// What was found in the file.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    Whole(State),
    /// Not all registrations could be read.
    PartlyDamaged {
        state: State,
        left_out: usize,
        why: String,
        kept_as: PathBuf,
    },
    Damaged {
        why: String,
        moved_to: PathBuf,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ending: bool,
    registrations: &'a [Arc<Stored>],
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Contents {
    /// Not written by older agents.
    #[serde(default)]
    ending: bool,
    registrations: Vec<Value>,
}

/// What was read, and why the rest was not.
#[derive(Debug)]
struct Parsed {
    state: State,
    left_out: usize,
    why: Option<String>,
}

#[derive(Debug)]
enum Unreadable {
    Damaged(String),
    Newer(u32),
}

impl StateFile {
    /// Takes the file for this agent.
    pub(crate) fn open(path: PathBuf) -> sd_core::Result<Self> {
        let path = if path.is_dir() {
            path.join(FILE_NAME)
        } else {
            path
        };
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        if path.file_name().is_none() {
            return Err(Error::invalid_input(
                OP,
                format!("{} names no file", shown(&path)),
            ));
        }
        let lock_path = beside(&path, "lock");
        let lock = private().write(true).create(true).open(&lock_path);
        let lock = lock.map_err(|error| failed(&lock_path, "cannot be opened", &error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, folder, lock }),
            Err(Errno::WOULDBLOCK) => Err(Error::new(sd_core::ErrorKind::Conflict, OP).because(
                format!(
                    "another agent uses {}: stop it, or give this one another file",
                    shown(&path)
                ),
            )),
            Err(error) => Err(failed(&lock_path, "cannot be locked", &error.into())),
        }
    }

    /// Leaves the file to the next agent.
    pub(crate) fn release(&self) {
        if let Err(error) = flock(&self.lock, FlockOperation::Unlock) {
            warn!(file = ?self.path, %error, "the lock of the state could not be released: it ends with this process");
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in the file. One that cannot be understood is moved aside.
    pub(crate) fn read(&self) -> sd_core::Result<Found> {
        match read_at(&self.path)? {
            Found::Nothing => {}
            found => return Ok(found),
        }
        let mut found = read_at(&beside(&self.path, ENDING))?;
        if let Found::Whole(state) | Found::PartlyDamaged { state, .. } = &mut found {
            state.ending = true;
        }
        Ok(found)
    }

    /// Replaces the file: whatever happens meanwhile, it is the old one or the new one. Where that fails, as on a full disk, it is at least
    /// no longer there for the next agent to bring back what is withdrawn: one without registrations is removed, and one whose
    /// registrations end gets the name that says so.
    pub(crate) fn write(&self, state: &State) -> Result<(), String> {
        let Err(error) = self.replace(state) else {
            return Ok(());
        };
        // What was begun takes room of the next attempt.
        let _ = remove_if_there(&beside(&self.path, "new"));
        let given_up = if state.registrations.is_empty() {
            self.remove()
        } else if state.ending {
            self.rename_as_ending()
        } else {
            Err(io::Error::other("it has registrations"))
        };
        given_up.map_err(|_| format!("{} cannot be written: {error}", shown(&self.path)))
    }

    fn replace(&self, state: &State) -> io::Result<()> {
        let written = Written {
            version: VERSION,
            ending: state.ending,
            registrations: &state.registrations,
        };
        let bytes = serde_json::to_vec(&written)?;
        let new = beside(&self.path, "new");
        // One of an agent that was killed may be there, or a link.
        remove_if_there(&new)?;
        let mut file = private().write(true).create_new(true).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        remove_if_there(&beside(&self.path, ENDING))?;
        self.sync_names()
    }

    fn remove(&self) -> io::Result<()> {
        remove_if_there(&self.path)?;
        remove_if_there(&beside(&self.path, ENDING))?;
        self.sync_names()
    }

    /// What is in the file may be older than what is kept, and none of it is to be brought back.
    fn rename_as_ending(&self) -> io::Result<()> {
        match std::fs::rename(&self.path, beside(&self.path, ENDING)) {
            // Renamed before, or never written.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.sync_names()
    }

    /// A name is on disk once its folder is.
    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// What is in the file at `path`. One that cannot be understood is moved aside.
fn read_at(path: &Path) -> sd_core::Result<Found> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(failed(path, "cannot be opened", &error)),
        Ok(file) => {
            let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes);
            read.map_err(|error| failed(path, "cannot be read", &error))?;
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let aside = format!("damaged-{}", now.unwrap_or_default().as_millis());
    let aside = beside(path, &aside);
    let why = match parse(&bytes) {
        Ok(Parsed {
            state, why: None, ..
        }) => return Ok(Found::Whole(state)),
        Ok(Parsed {
            state,
            left_out,
            why: Some(why),
        }) if !state.registrations.is_empty() => {
            // The file itself is replaced and never changed.
            std::fs::hard_link(path, &aside)
                .or_else(|_| std::fs::copy(path, &aside).map(drop))
                .map_err(|error| failed(path, "is damaged and cannot be kept aside", &error))?;
            return Ok(Found::PartlyDamaged {
                state,
                left_out,
                why,
                kept_as: aside,
            });
        }
        Ok(Parsed { why, .. }) => why.unwrap_or_default(),
        Err(Unreadable::Newer(version)) => {
            return Err(
                Error::new(sd_core::ErrorKind::Unsupported, OP).because(format!(
                    "{} is of version {version}, and this agent understands version {VERSION}: start the newer agent that wrote \
                     it, or give this one another file",
                    shown(path)
                )),
            );
        }
        Err(Unreadable::Damaged(why)) => why,
    };
    let moved_to = aside;
    std::fs::rename(path, &moved_to)
        .map_err(|error| failed(path, "is damaged and cannot be moved aside", &error))?;
    Ok(Found::Damaged { why, moved_to })
}

fn parse(bytes: &[u8]) -> Result<Parsed, Unreadable> {
    let damaged = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MOST_BYTES) {
        let why = format!("it has more than {MOST_BYTES} bytes");
        return Err(Unreadable::Damaged(why));
    }
    let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version > VERSION {
        return Err(Unreadable::Newer(version));
    }
    if version < VERSION {
        let why = format!("it is of version {version}, which never was");
        return Err(Unreadable::Damaged(why));
    }
    let contents: Contents = serde_json::from_slice(bytes).map_err(damaged)?;
    let mut parsed = Parsed {
        state: State {
            registrations: Vec::with_capacity(contents.registrations.len()),
            ending: contents.ending,
        },
        left_out: 0,
        why: None,
    };
    for one in contents.registrations {
        match serde_json::from_value::<Stored>(one) {
            Ok(stored) => parsed.state.registrations.push(Arc::new(stored)),
            Err(error) => {
                parsed.left_out += 1;
                parsed.why.get_or_insert(error.to_string());
            }
        }
    }
    Ok(parsed)
}

/// A file that only this user can read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn failed(path: &Path, how: &str, error: &io::Error) -> Error {
    Error::new(sd_core::ErrorKind::Unavailable, OP)
        .because(format!("{} {how}: {error}", shown(path)))
}

/// A path as it can be shown on one line.
fn shown(path: &Path) -> String {
    Printable(&path.to_string_lossy()).to_string()
}
