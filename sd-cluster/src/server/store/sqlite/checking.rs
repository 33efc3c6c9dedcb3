//! Reading a file without changing it, for a look ahead of the next start.

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use sd_core::Result;

use super::{
    Kept, NO_LAYOUT, OPEN, SqliteStore, absolute, check_json, failed, not_ours, warn_if_public,
};

impl SqliteStore {
    /// Reads all of a file, and changes neither its layout nor anything else. Blocks.
    ///
    /// # Errors
    /// As [`open`](Self::open), and `Unavailable` if the file is not there.
    pub(crate) fn check(path: &Path) -> Result<()> {
        let path = &absolute(path)?;
        warn_if_public(path);
        // Not READ_ONLY: SQLite takes no lock for one process on such a file, and without that lock it leaves files of its log behind.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let file = Connection::open_with_flags(path, flags);
        let file = file.map_err(|error| failed(OPEN, path, &error))?;
        let kept = Self::of(path, file).read_without_writing();
        let kept = kept.map_err(|error| failed(OPEN, path, &error))?;
        check_json(path, &kept.ok_or_else(|| not_ours(path))?)
    }

    /// `None` if it is not ours.
    fn read_without_writing(&self) -> rusqlite::Result<Option<Kept>> {
        self.file.pragma_update(None, "query_only", true)?;
        // A service that was killed leaves a log, which SQLite would move into the file when it closes that. An empty log it removes.
        if log_of(&self.path).exists() {
            let keep_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            self.file.set_db_config(keep_log, true)?;
        }
        match self.layout()? {
            None => Ok(None),
            Some(NO_LAYOUT) => Ok(Some(Kept::default())),
            Some(layout) => self.read(layout).map(Some),
        }
    }
}

/// Where SQLite keeps what is not in the file yet.
fn log_of(file: &Path) -> PathBuf {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sd_core::ErrorKind;

    use super::super::tests::{config, write};
    use super::*;

    /// Names and bytes of all files of a folder.
    fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = paths
            .map(|path| {
                let bytes = fs::read(&path).unwrap();
                (path, bytes)
            })
            .collect();
        files.sort();
        files
    }

    fn layout(path: &Path) -> i64 {
        let file = Connection::open(path).unwrap();
        file.pragma_query_one(None, "user_version").unwrap()
    }

    #[test]
    fn a_check_reads_a_file_of_any_layout_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let check = || {
            let before = files(folder.path());
            let checked = SqliteStore::check(&path);
            assert!(
                files(folder.path()) == before,
                "the check has changed something"
            );
            checked
        };
        let missing = check().unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Unavailable);
        fs::write(&path, "").unwrap();
        check().unwrap();

        let (mut store, _) = SqliteStore::open(&path, 1).unwrap();
        write(&mut store, &config(1, 10)).unwrap();
        let taken = check().unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::Conflict, "{}", taken.report());
        let first = "DROP TABLE instance; PRAGMA user_version = 1";
        store.file.execute_batch(first).unwrap();
        drop(store);
        check().unwrap();
        assert_eq!(layout(&path), 1);

        let (store, _) = SqliteStore::open(&path, 1).unwrap();
        check().unwrap_err();
        drop(store);
        check().unwrap();
        let file = Connection::open(&path).unwrap();
        file.execute("DROP TABLE variable", []).unwrap();
        drop(file);
        let damaged = check().unwrap_err();
        assert_eq!(damaged.kind(), ErrorKind::InvalidData);
        fs::write(
            &path,
            "no database at all, but long enough to look at".repeat(30),
        )
        .unwrap();
        check().unwrap_err();
    }

    #[test]
    fn a_check_reads_what_a_killed_service_has_left_in_its_log_and_leaves_it_there() {
        let folder = tempfile::tempdir().unwrap();
        let (path, killed) = (folder.path().join("file"), folder.path().join("killed"));
        let (mut store, _) = SqliteStore::open(&path, 1).unwrap();
        write(&mut store, &config(1, 10)).unwrap();
        let sql = "UPDATE config SET data = '{planted'";
        store.file.execute(sql, []).unwrap();
        fs::copy(&path, &killed).unwrap();
        fs::copy(log_of(&path), log_of(&killed)).unwrap();
        drop(store);
        let before = files(folder.path());
        let refused = SqliteStore::check(&killed)
            .unwrap_err()
            .report()
            .to_string();
        assert!(refused.contains("is no JSON"), "{refused}");
        assert!(
            files(folder.path()) == before,
            "the check has changed something"
        );
    }
}
