//! The file: read with care, replaced as a whole.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::io::Errno;
use sd_core::{Error, Printable};
use serde::Serialize;
use tracing::warn;

use super::contents::{Contents, Damaged};
use super::stored::{State, Stored};
use super::what_is_lost;

const OP: &str = "open state";
/// The name of the file in a folder.
const FILE_NAME: &str = "registrations.json";
/// What this version writes. It reads no other one.
const VERSION: u32 = 1;
/// What the name of a state ends with whose registrations are about to be withdrawn, if there was no room to write that into it. It counts
/// where there is no other.
const ENDING: &str = "ending";
/// More is neither written nor read. 10 000 registrations with metadata of 1 KiB each are 25 MB.
pub(super) const MOST_BYTES: u64 = 256 * 1024 * 1024;

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
        damaged: Vec<Damaged>,
        /// Why what may stand behind the last of them is lost as well.
        cut: Option<String>,
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

/// What was read, and why the rest was not.
#[derive(Debug)]
struct Parsed {
    state: State,
    damaged: Vec<Damaged>,
    cut: Option<String>,
}

impl Parsed {
    fn is_damaged(&self) -> bool {
        !self.damaged.is_empty() || self.cut.is_some()
    }
}

#[derive(Debug)]
enum Unreadable {
    Damaged(String),
    Newer(u32),
}

impl StateFile {
    /// Takes the file for this agent.
    pub(crate) fn open(path: PathBuf) -> sd_core::Result<Self> {
        let (path, folder) = places(path)?;
        make(&folder)?;
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

    /// Whether [`open`](Self::open) and [`read`](Self::read) could work, and what they would lose. Changes nothing, and asks for no lock.
    pub(crate) fn check(path: PathBuf) -> sd_core::Result<Option<String>> {
        let (path, folder) = places(path)?;
        let written = if folder.exists() {
            folder.as_path()
        } else {
            above(&folder)
        };
        access(written, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| failed(&folder, "cannot be used", &error.into()))?;
        match contents(&path)?.as_deref().map(parse) {
            Some(Err(Unreadable::Newer(version))) => Err(newer(&path, version)),
            Some(Err(Unreadable::Damaged(why))) => Ok(Some(format!(
                "{} is damaged: a start loses all registrations in it, and keeps the file aside: {why}",
                shown(&path)
            ))),
            Some(Ok(parsed)) if parsed.is_damaged() => Ok(Some(format!(
                "{} is damaged: a start goes on with {} registrations, keeps the file aside, and loses {}",
                shown(&path),
                parsed.state.registrations.len(),
                what_is_lost(&parsed.damaged, parsed.cut.is_some())
            ))),
            Some(Ok(_)) | None => Ok(None),
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

    /// What is to be in the file.
    pub(crate) fn encode(state: &State) -> Result<Vec<u8>, String> {
        let written = Written {
            version: VERSION,
            ending: state.ending,
            registrations: &state.registrations,
        };
        serde_json::to_vec(&written).map_err(|error| error.to_string())
    }

    /// Replaces the file: whatever happens meanwhile, it is the old one or the new one. Where that fails, as on a full disk, it is at least
    /// no longer there for the next agent to bring back what is withdrawn: one without registrations is removed, and one whose
    /// registrations end gets the name that says so. `bytes` are the state, encoded.
    pub(crate) fn write(&self, state: &State, bytes: &[u8]) -> Result<(), String> {
        let Err(error) = self.replace(bytes) else {
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

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        if is_too_long(bytes) {
            return Err(io::Error::other(format!(
                "it would have {} bytes, and at most {MOST_BYTES} are read: deregister what is large",
                bytes.len()
            )));
        }
        let new = beside(&self.path, "new");
        // One of an agent that was killed may be there, or a link.
        remove_if_there(&new)?;
        let mut file = private().write(true).create_new(true).open(&new)?;
        file.write_all(bytes)?;
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
    let Some(bytes) = contents(path)? else {
        return Ok(Found::Nothing);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let aside = format!("damaged-{}", now.unwrap_or_default().as_millis());
    let aside = beside(path, &aside);
    let why = match parse(&bytes) {
        Ok(parsed) if !parsed.is_damaged() => return Ok(Found::Whole(parsed.state)),
        Ok(Parsed {
            state,
            damaged,
            cut,
        }) if !state.registrations.is_empty() => {
            // The file itself is replaced and never changed.
            let link = std::fs::hard_link(path, &aside);
            // A copy over another name of the same file would empty it.
            let kept = match link {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    std::fs::copy(path, &aside).map(drop)
                }
                linked => linked,
            };
            kept.map_err(|error| failed(path, "is damaged and cannot be kept aside", &error))?;
            return Ok(Found::PartlyDamaged {
                state,
                damaged,
                cut,
                kept_as: aside,
            });
        }
        Ok(Parsed { damaged, cut, .. }) => {
            let first = damaged.first().map(|damaged| damaged.why.clone());
            cut.or(first).unwrap_or_default()
        }
        Err(Unreadable::Newer(version)) => return Err(newer(path, version)),
        Err(Unreadable::Damaged(why)) => why,
    };
    let moved_to = aside;
    std::fs::rename(path, &moved_to)
        .map_err(|error| failed(path, "is damaged and cannot be moved aside", &error))?;
    Ok(Found::Damaged { why, moved_to })
}

/// The file, and the folder that it is in.
fn places(path: PathBuf) -> sd_core::Result<(PathBuf, PathBuf)> {
    let names_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let path = if names_folder || path.is_dir() {
        path.join(FILE_NAME)
    } else {
        path
    };
    if path.file_name().is_none() {
        let why = format!("{} names no file", shown(&path));
        return Err(Error::invalid_input(OP, why));
    }
    let folder = above(&path).to_owned();
    Ok((path, folder))
}

fn above(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    parent.unwrap_or(Path::new("."))
}

/// Makes a folder that only this user can read, if it is not there. The one above must be: a path with a mistake in it makes nothing.
fn make(folder: &Path) -> sd_core::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists || folder.is_dir() => Ok(()),
        Err(error) => Err(failed(folder, "cannot be created", &error)),
        Ok(()) => Ok(()),
    }
}

/// What is in a file that is there.
fn contents(path: &Path) -> sd_core::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| failed(path, "cannot be opened", &error))?,
    };
    let mut bytes = Vec::new();
    let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(path, "cannot be read", &error))?;
    Ok(Some(bytes))
}

fn newer(path: &Path, version: u32) -> Error {
    Error::new(sd_core::ErrorKind::Unsupported, OP).because(format!(
        "{} is of version {version}, and this agent understands version {VERSION}: start the newer agent that wrote it, or give this one \
         another file",
        shown(path)
    ))
}

fn parse(bytes: &[u8]) -> Result<Parsed, Unreadable> {
    if is_too_long(bytes) {
        let why = format!("it has more than {MOST_BYTES} bytes");
        return Err(Unreadable::Damaged(why));
    }
    let (contents, cut) = Contents::read(bytes);
    let version = match (contents.version, cut.as_ref()) {
        (Some(version), _) => version,
        (None, Some(why)) => return Err(Unreadable::Damaged(why.clone())),
        (None, None) => return Err(Unreadable::Damaged("it names no version".to_owned())),
    };
    if version > VERSION {
        return Err(Unreadable::Newer(version));
    }
    if version < VERSION {
        let why = format!("it is of version {version}, which never was");
        return Err(Unreadable::Damaged(why));
    }
    let Some(registrations) = contents.registrations else {
        let why = cut.unwrap_or_else(|| "it has no list of registrations".to_owned());
        return Err(Unreadable::Damaged(why));
    };
    Ok(Parsed {
        state: State {
            registrations: registrations.into_iter().map(Arc::new).collect(),
            ending: contents.ending,
        },
        damaged: contents.damaged,
        cut,
    })
}

fn is_too_long(bytes: &[u8]) -> bool {
    u64::try_from(bytes.len()).is_ok_and(|length| length > MOST_BYTES)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_next_agent_would_not_read_is_not_written_and_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let file = StateFile::open(path.clone()).unwrap();
        let state = StateFile::encode(&State::default()).unwrap();
        file.replace(&state).unwrap();
        let long = vec![0; usize::try_from(MOST_BYTES).unwrap() + 1];
        let refused = file.replace(&long).unwrap_err().to_string();
        assert!(
            refused.contains("268435457 bytes") && refused.contains("deregister"),
            "{refused}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), state);
        assert!(matches!(file.read(), Ok(Found::Whole(_))));
    }
}
