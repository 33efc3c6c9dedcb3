//! The file: read with care, replaced as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::io::Errno;
use sd_core::Error;
use sd_core::sync::lock;
use tracing::warn;

use super::found::{Found, MOST_BYTES, VERSION, check_contents, contents, is_too_long, read_at};
use super::name::{OP, above, beside, failed, make, places, shown};
use super::stored::State;
use super::sums;

/// What the name of a state ends with whose registrations are about to be withdrawn, if there was no room to write that into it. It counts
/// where there is no other.
const ENDING: &str = "ending";
/// What the head says if all registrations end, and each one that does.
pub(super) const ENDS: &[u8] = b",\"ending\":true";

/// The file, which one agent has.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    folder: PathBuf,
    /// Held until the agent ends.
    locks: Mutex<Locks>,
}

/// What keeps other agents from the file: the lock of its name, and those of its contents, which may have other names (hard links).
#[derive(Debug)]
struct Locks {
    name: File,
    /// The file that was found: once it is replaced, its other names still have it.
    found: Option<File>,
    /// The file that was written last.
    written: Option<File>,
}

impl StateFile {
    /// Takes the file for this agent.
    pub(crate) fn open(path: PathBuf) -> sd_core::Result<Self> {
        let (path, folder) = places(path)?;
        make(&folder)?;
        let lock_path = beside(&path, "lock");
        let name = private().write(true).create(true).open(&lock_path);
        let name = name.map_err(|error| failed(&lock_path, "cannot be opened", &error))?;
        take(&name, &lock_path, || {
            format!(
                "another agent uses {}: stop it, or give this one another file",
                shown(&path)
            )
        })?;
        let found = match open_there(&path)? {
            None => open_there(&beside(&path, ENDING))?,
            found => found,
        };
        if let Some(found) = &found {
            take(found, &path, || {
                format!(
                    "another agent uses {} under another name, as it is a hard link: stop it, or give this one another file",
                    shown(&path)
                )
            })?;
        }
        let locks = Locks {
            name,
            found,
            written: None,
        };
        Ok(Self {
            path,
            folder,
            locks: Mutex::new(locks),
        })
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
        if let Some(bytes) = contents(&path)? {
            return check_contents(&path, &bytes);
        }
        let path = beside(&path, ENDING);
        match contents(&path)? {
            Some(bytes) => check_contents(&path, &bytes),
            None => Ok(None),
        }
    }

    /// Leaves the file to the next agent.
    pub(crate) fn release(&self) {
        let Locks {
            name,
            found,
            written,
        } = &mut *lock(&self.locks);
        // The one of the name comes last: the next agent asks for it first.
        let contents = [found.take(), written.take()];
        for file in contents.iter().flatten().chain([&*name]) {
            if let Err(error) = flock(file, FlockOperation::Unlock) {
                warn!(file = ?self.path, %error, "a lock of the state could not be released: it ends with this process");
            }
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
            *state = std::mem::take(state).ending();
        }
        Ok(found)
    }

    /// What is to be in the file.
    pub(crate) fn encode(state: &State) -> Result<Vec<u8>, String> {
        let mut bytes = format!("{{\"version\":{VERSION}").into_bytes();
        if state.registrations.is_empty() && !state.left.is_empty() {
            bytes.extend_from_slice(ENDS);
        }
        sums::append(&mut bytes, 0);
        bytes.extend_from_slice(b",\"registrations\":[");
        let registrations = state.registrations.iter().map(|stored| (stored, false));
        let left = state.left.iter().map(|stored| (stored, true));
        for (at, (stored, ends)) in registrations.chain(left).enumerate() {
            if at > 0 {
                bytes.push(b',');
            }
            let begin = bytes.len();
            let appended = stored.append_unclosed(&mut bytes);
            appended.map_err(|error| error.to_string())?;
            if ends {
                bytes.extend_from_slice(ENDS);
            }
            sums::append(&mut bytes, begin);
            bytes.push(b'}');
        }
        bytes.extend_from_slice(b"]}");
        Ok(bytes)
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
        let given_up = if state.is_empty() {
            self.remove()
        } else if state.registrations.is_empty() {
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
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        lock(&self.locks).written = Some(file);
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

/// Takes a lock, or says that `another` agent has it.
fn take(file: &File, path: &Path, another: impl FnOnce() -> String) -> sd_core::Result<()> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            Err(Error::new(sd_core::ErrorKind::Conflict, OP).because(another()))
        }
        Err(error) => Err(failed(path, "cannot be locked", &error.into())),
    }
}

/// A file that is to be locked, if it is there. Some file systems lock only what can be written.
fn open_there(path: &Path) -> sd_core::Result<Option<File>> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    let opened = match opened {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => File::open(path),
        opened => opened,
    };
    match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened
            .map(Some)
            .map_err(|error| failed(path, "cannot be opened", &error)),
    }
}

/// A file that only this user can read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
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
