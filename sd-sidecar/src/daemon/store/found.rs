//! What is found in a state file, and what becomes of one that is damaged.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sd_core::Error;

use super::contents::Contents;
use super::damage::Damage;
use super::name::{OP, beside, failed, shown};
use super::stored::{State, Stored};

/// What this version writes. It reads no other one.
pub(super) const VERSION: u32 = 1;
/// More is neither written nor read. 10 000 registrations with metadata of 1 KiB each are 25 MB.
pub(super) const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// What was found in the file.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    Whole(State),
    /// Registrations could be read, but not all, or not what stands before them.
    PartlyDamaged {
        state: State,
        damage: Damage,
        kept_as: PathBuf,
    },
    Damaged {
        why: String,
        moved_to: PathBuf,
    },
}

#[derive(Debug)]
enum Unreadable {
    Damaged(String),
    Newer(u32),
}

/// What is in the file at `path`. One that cannot be understood is moved aside.
pub(super) fn read_at(path: &Path) -> sd_core::Result<Found> {
    let Some(bytes) = contents(path)? else {
        return Ok(Found::Nothing);
    };
    let why = match parse(&bytes) {
        Ok((state, damage)) if !damage.is_there() => return Ok(Found::Whole(state)),
        Ok((state, damage)) if !state.is_empty() => {
            let kept_as = keep_aside(path)
                .map_err(|error| failed(path, "is damaged and cannot be kept aside", &error))?;
            return Ok(Found::PartlyDamaged {
                state,
                damage,
                kept_as,
            });
        }
        Ok((_, damage)) => damage.first().unwrap_or_default().to_owned(),
        Err(Unreadable::Newer(version)) => return Err(newer(path, version)),
        Err(Unreadable::Damaged(why)) => why,
    };
    let moved_to = aside(path, SystemTime::now());
    std::fs::rename(path, &moved_to)
        .map_err(|error| failed(path, "is damaged and cannot be moved aside", &error))?;
    Ok(Found::Damaged { why, moved_to })
}

/// Gives the file another name as well: it is replaced, and never changed.
fn keep_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = aside(path, SystemTime::now());
    match std::fs::hard_link(path, &aside) {
        // Where there are none. A copy over another name of the same file would empty it.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            std::fs::copy(path, &aside).map(|_| aside)
        }
        linked => linked.map(|()| aside),
    }
}

/// A name for a damaged file that no file has yet.
fn aside(path: &Path, now: SystemTime) -> PathBuf {
    let now = now.duration_since(UNIX_EPOCH);
    let first = format!("damaged-{}", now.unwrap_or_default().as_millis());
    let more = (2_u32..).map(|at| format!("{first}-{at}"));
    let names = std::iter::once(first.clone()).chain(more);
    let mut names = names.map(|name| beside(path, &name));
    let is_free = |name: &PathBuf| std::fs::symlink_metadata(name).is_err();
    names.find(is_free).unwrap_or_else(|| beside(path, &first))
}

/// What a start would lose of this file.
pub(super) fn check_contents(path: &Path, bytes: &[u8]) -> sd_core::Result<Option<String>> {
    match parse(bytes) {
        Err(Unreadable::Newer(version)) => Err(newer(path, version)),
        Err(Unreadable::Damaged(why)) => Ok(Some(format!(
            "{} is damaged: a start loses all registrations in it, and keeps the file aside: {why}",
            shown(path)
        ))),
        Ok((state, damage)) if damage.is_there() => Ok(Some(format!(
            "{} is damaged: a start goes on with {} registrations, keeps the file aside, and loses {}",
            shown(path),
            state.registrations.len(),
            damage.what_is_lost()
        ))),
        Ok(_) => Ok(None),
    }
}

/// What is in a file that is there. One without a byte is one that something has made for the agent, and has nothing in it.
pub(super) fn contents(path: &Path) -> sd_core::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| failed(path, "cannot be opened", &error))?,
    };
    let mut bytes = Vec::new();
    let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(path, "cannot be read", &error))?;
    Ok((!bytes.is_empty()).then_some(bytes))
}

fn newer(path: &Path, version: u32) -> Error {
    Error::new(sd_core::ErrorKind::Unsupported, OP).because(format!(
        "{} is of version {version}, and this agent understands version {VERSION}: start the newer agent that wrote it, or give this one \
         another file",
        shown(path)
    ))
}

/// What a file says, and what is wrong with it.
fn parse(bytes: &[u8]) -> Result<(State, Damage), Unreadable> {
    if is_too_long(bytes) {
        let why = format!("it has more than {MOST_BYTES} bytes");
        return Err(Unreadable::Damaged(why));
    }
    let Contents {
        version,
        registrations,
        left,
        mut damage,
        ..
    } = Contents::read(bytes);
    let has_list = registrations.is_some();
    let shared = |all: Vec<Stored>| all.into_iter().map(Arc::new).collect();
    let state = State {
        registrations: shared(registrations.unwrap_or_default()),
        left: shared(left),
    };
    let wrong = match version {
        // What is said there counts for nothing.
        _ if damage.head.is_some() => None,
        Some(VERSION) => None,
        Some(newer) if newer > VERSION => return Err(Unreadable::Newer(newer)),
        Some(older) => Some(format!("it is of version {older}, which never was")),
        None => Some("it names no version".to_owned()),
    };
    match wrong {
        // Registrations are told by what they are.
        Some(why) if !state.is_empty() => damage.head = Some(why),
        Some(why) => {
            return Err(Unreadable::Damaged(damage.cut.unwrap_or(why)));
        }
        None if !has_list => {
            let why = damage.first().unwrap_or("it has no list of registrations");
            return Err(Unreadable::Damaged(why.to_owned()));
        }
        None => {}
    }
    Ok((state, damage))
}

pub(super) fn is_too_long(bytes: &[u8]) -> bool {
    u64::try_from(bytes.len()).is_ok_and(|length| length > MOST_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_of_the_same_moment_have_names_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let now = UNIX_EPOCH;
        for name in ["damaged-0", "damaged-0-2", "damaged-0-3"] {
            let free = aside(&path, now);
            assert_eq!(free, beside(&path, name));
            std::fs::write(free, name).unwrap();
        }
    }
}
