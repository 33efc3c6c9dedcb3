//! Where installed programs are kept: one folder for each, named by its version, so that the second run is instant.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// Names another folder than `target/tools`.
const VARIABLE: &str = "SD_TOOLS_CACHE";

/// The folder of all programs.
#[derive(Debug)]
pub(crate) struct Tools {
    folder: PathBuf,
}

impl Tools {
    pub(crate) fn open(workspace: &Workspace) -> Result<Self> {
        let folder = match std::env::var_os(VARIABLE) {
            Some(named) => std::path::absolute(named)?,
            None => workspace.target.join("tools"),
        };
        Self::at(folder)
    }

    fn at(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// The folder of the program `name`. When it is not there yet, `make` fills an empty one, which takes its name only
    /// once it is whole: a run that is killed on the way leaves nothing that looks finished. Other runs that want the
    /// same program wait.
    pub(crate) fn get(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let whole = self.folder.join(name);
        // The lock ends with the process that holds it, however that ends.
        let lock = File::create(self.folder.join(format!(".{name}.lock")))?;
        lock.lock()?;
        if !whole.is_dir() {
            self.remove_partial(name)?;
            // Named after us: a build that outlived its killed xtask must not write into ours.
            let partial = format!("{}{}", partial_prefix(name), std::process::id());
            let partial = self.folder.join(partial);
            fs::create_dir(&partial)?;
            make(&partial).with_context(|| format!("cannot install {name}"))?;
            fs::rename(&partial, &whole)?;
        }
        Ok(whole)
    }

    /// What others left half done; no other run works on it, because we hold the lock.
    fn remove_partial(&self, name: &str) -> Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(&partial_prefix(name))
            {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

fn partial_prefix(name: &str) -> String {
    format!(".{name}.partial-")
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    /// An empty cache that is removed afterwards.
    struct Cache(PathBuf);

    impl Cache {
        fn new(name: &str) -> Self {
            let name = format!("xtask-tools-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn tools(&self) -> Tools {
            Tools::at(self.0.clone()).unwrap()
        }
    }

    impl Drop for Cache {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_program_is_made_once() {
        let cache = Cache::new("once");
        let make = |folder: &Path| Ok(fs::write(folder.join("program"), "1")?);
        let folder = cache.tools().get("p-1", make).unwrap();
        assert_eq!(fs::read_to_string(folder.join("program")).unwrap(), "1");
        let again = cache.tools().get("p-1", |_| bail!("made twice")).unwrap();
        assert_eq!(again, folder);
    }

    #[test]
    fn what_failed_half_way_is_made_again() {
        let cache = Cache::new("half");
        let failed = cache.tools().get("p-1", |folder| {
            fs::write(folder.join("half"), "")?;
            bail!("no network")
        });
        assert!(failed.is_err());
        let folder = cache.tools().get("p-1", |_| Ok(())).unwrap();
        assert!(!folder.join("half").exists());
        let left = fs::read_dir(&cache.0).unwrap();
        let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "the program and its lock: {names:?}");
    }

    #[test]
    fn two_who_want_the_same_make_it_once() {
        let cache = Cache::new("both");
        let makes = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    cache.tools().get("p-1", |_| {
                        makes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        Ok(())
                    })
                });
            }
        });
        assert_eq!(makes.into_inner(), 1);
    }
}
