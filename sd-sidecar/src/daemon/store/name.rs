//! Which file a path means: the one that a symbolic link leads to, so that the link stays and all agents that are given it have one file.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use sd_core::{Error, Printable};

pub(super) const OP: &str = "open state";
/// The name of the file in a folder.
const FILE_NAME: &str = "registrations.json";
/// As many as Linux follows.
const MOST_LINKS: usize = 40;

/// The file, and the folder that it is in.
pub(super) fn places(path: PathBuf) -> sd_core::Result<(PathBuf, PathBuf)> {
    let names_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let path = if names_folder || path.is_dir() {
        path.join(FILE_NAME)
    } else {
        path
    };
    let path = followed(&path).map_err(|error| failed(&path, "cannot be looked for", &error))?;
    if path.file_name().is_none() {
        let why = format!("{} names no file", shown(&path));
        return Err(Error::invalid_input(OP, why));
    }
    let folder = above(&path).to_owned();
    Ok((path, folder))
}

/// Where a symbolic link leads, also if no file is there yet.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match std::fs::read_link(&path) {
            Ok(target) => path = above(&path).join(target),
            Err(error) => {
                let is_no_link = [ErrorKind::InvalidInput, ErrorKind::NotFound];
                return if is_no_link.contains(&error.kind()) {
                    Ok(path)
                } else {
                    Err(error)
                };
            }
        }
    }
    Err(Errno::LOOP.into())
}

pub(super) fn above(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    parent.unwrap_or(Path::new("."))
}

/// Makes a folder that only this user can read, if it is not there. The one above must be: a path with a mistake in it makes nothing.
pub(super) fn make(folder: &Path) -> sd_core::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists || folder.is_dir() => Ok(()),
        Err(error) => Err(failed(folder, "cannot be created", &error)),
        Ok(()) => Ok(()),
    }
}

/// The name of a file that belongs to the one at `path`.
pub(super) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

pub(super) fn failed(path: &Path, how: &str, error: &io::Error) -> Error {
    Error::new(sd_core::ErrorKind::Unavailable, OP)
        .because(format!("{} {how}: {error}", shown(path)))
}

/// A path as it can be shown on one line.
pub(super) fn shown(path: &Path) -> String {
    Printable(&path.to_string_lossy()).to_string()
}
