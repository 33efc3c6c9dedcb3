//! One SQLite file. Its process has it alone.

mod checking;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, Row, ToSql, Transaction, params};
use sd_core::{Error, ErrorKind, Printable, Result, brief};
use serde_json::value::RawValue;
use tracing::warn;

use super::{Change, Kept, Store};
use crate::server::state::{Schema, StoredConfig, Variable, VariableKind};

const OPEN: &str = "config service: open its file";
const WRITE: &str = "config service: write its file";

/// In `user_version`. The first layout has no instances.
const LAYOUT: i64 = 2;
const LAYOUT_WITHOUT_INSTANCES: i64 = 1;
/// That of a file without tables.
const NO_LAYOUT: i64 = 0;
/// In `application_id`: `sdcs`, so that no other program's file is taken.
const APPLICATION: i64 = 0x7364_6373;

/// The last one of the year 9999, after which RFC 3339 has no times.
const LAST_MILLIS: u64 = 253_402_300_799_999;

/// Two processes that open a file at once can hold each other up, as each lets the other read and neither write. So each lets go, and tries
/// again at another time.
const ATTEMPTS: u32 = 5;
const PAUSE_MILLIS: RangeInclusive<u64> = 5..=50;

/// Room for what all instances declare, which has 4 MiB at most, and for the tables themselves.
const ROOM_FOR_INSTANCES: u64 = 8 << 20;

const TABLES: &str = "
    CREATE TABLE config (
        module TEXT NOT NULL, version INTEGER NOT NULL, data TEXT NOT NULL, written_at INTEGER NOT NULL,
        PRIMARY KEY (module, version)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE schema (
        module TEXT PRIMARY KEY, version TEXT NOT NULL, data TEXT NOT NULL, written_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE variable (
        name TEXT PRIMARY KEY, kind TEXT NOT NULL, value TEXT NOT NULL, description TEXT NOT NULL, written_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";
const INSTANCES: &str =
    "CREATE TABLE instance (place INTEGER PRIMARY KEY, declaration TEXT NOT NULL) STRICT";

/// An open file.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    /// Absolute.
    path: PathBuf,
    /// What was at the path when it was opened.
    identity: Option<Identity>,
    file: Connection,
}

/// The numbers of a device and of a file on it. Where the system has none, they are 0 while there is a file.
type Identity = (u64, u64);

impl SqliteStore {
    /// Opens a file, which is made if it is not there, and reads all of it. Blocks. The file grows to at most twice `most_bytes` and 8 MiB,
    /// and its log to as much while it is written.
    ///
    /// # Errors
    /// `Conflict` if another process has it, `InvalidData` if it is damaged or another program's, `Unavailable` if it cannot be opened,
    /// `InvalidInput` if the path is empty.
    #[expect(
        clippy::disallowed_methods,
        reason = "on the thread of files, beside the runtime"
    )]
    pub(crate) fn open(path: &Path, most_bytes: usize) -> Result<(Self, Kept)> {
        Self::open_pausing(path, most_bytes, || {
            thread::sleep(Duration::from_millis(fastrand::u64(PAUSE_MILLIS)));
        })
    }

    /// As [`open`](Self::open), with this pause after an attempt that another one has held up.
    fn open_pausing(
        path: &Path,
        most_bytes: usize,
        mut pause: impl FnMut(),
    ) -> Result<(Self, Kept)> {
        let path = &absolute(path)?;
        make_private(path);
        warn_if_public(path);
        for _ in 1..ATTEMPTS {
            match Self::try_open(path, most_bytes) {
                Err(error) if error.kind() == ErrorKind::Conflict => pause(),
                opened => return opened,
            }
        }
        Self::try_open(path, most_bytes)
    }

    fn try_open(path: &Path, most_bytes: usize) -> Result<(Self, Kept)> {
        let file = Connection::open(path).map_err(|error| failed(OPEN, path, &error))?;
        let mut store = Self::of(path, file);
        let kept = store
            .prepare(most_bytes)
            .and_then(|is_ours| is_ours.then(|| store.read(LAYOUT)).transpose());
        let kept = kept.map_err(|error| failed(OPEN, path, &error))?;
        let kept = kept.ok_or_else(|| not_ours(path))?;
        check_json(path, &kept)?;
        Ok((store, kept))
    }

    fn of(path: &Path, file: Connection) -> Self {
        Self {
            path: path.to_owned(),
            identity: identity(path),
            file,
        }
    }

    /// Takes the file for this process, and returns its layout. `None` if it is not ours.
    fn layout(&self) -> rusqlite::Result<Option<i64>> {
        let file = &self.file;
        file.busy_timeout(Duration::ZERO)?;
        file.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        let number = |name: &str| file.pragma_query_one::<i64>(None, name);
        let (application, layout) = (number("application_id")?, number("user_version")?);
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables: i64 = file.query_row(tables, [], |row| row.get(0))?;
        let is_new = (application, layout, tables) == (0, NO_LAYOUT, 0);
        let is_ours =
            application == APPLICATION && (LAYOUT_WITHOUT_INSTANCES..=LAYOUT).contains(&layout);
        Ok((is_new || is_ours).then_some(layout))
    }

    /// False if it is not ours.
    fn prepare(&mut self, most_bytes: usize) -> rusqlite::Result<bool> {
        let Some(layout) = self.layout()? else {
            return Ok(false);
        };
        let file = &mut self.file;
        file.pragma_update(None, "journal_mode", "WAL")?;
        file.pragma_update(None, "synchronous", "NORMAL")?;
        let page: u32 = file.pragma_query_one(None, "page_size")?;
        let most_bytes = u64::try_from(most_bytes).unwrap_or(u64::MAX);
        let pages = most_bytes
            .saturating_mul(2)
            .saturating_add(ROOM_FOR_INSTANCES)
            .div_ceil(u64::from(page.max(1)));
        // More than that SQLite cannot count.
        let pages = u32::try_from(pages).unwrap_or(u32::MAX - 1);
        // It answers with what it has granted.
        file.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        // Takes the lock for good.
        let writing = file.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        if layout == NO_LAYOUT {
            writing.execute_batch(TABLES)?;
            writing.pragma_update(None, "application_id", APPLICATION)?;
        }
        if layout < LAYOUT {
            writing.execute_batch(INSTANCES)?;
            writing.pragma_update(None, "user_version", LAYOUT)?;
        }
        writing.commit()?;
        Ok(true)
    }

    /// Reads a file of this layout.
    fn read(&self, layout: i64) -> rusqlite::Result<Kept> {
        let damage: String = self.file.pragma_query_one(None, "quick_check")?;
        if damage != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(code, Some(brief(damage))));
        }
        let mut kept = Kept::default();
        let configs =
            "SELECT module, version, data, written_at FROM config ORDER BY module, version";
        let mut configs = self.file.prepare(configs)?;
        let mut rows = configs.query([])?;
        while let Some(row) = rows.next()? {
            let config = StoredConfig::new(row.get(1)?, row.get::<_, String>(2)?, time(row, 3)?);
            kept.module(row.get(0)?).configs.push_back(config);
        }
        let schemas = "SELECT module, version, data, written_at FROM schema";
        let mut schemas = self.file.prepare(schemas)?;
        let mut rows = schemas.query([])?;
        while let Some(row) = rows.next()? {
            let schema = Schema {
                version: row.get(1)?,
                data: row.get::<_, String>(2)?.into(),
                written_at: time(row, 3)?,
            };
            kept.module(row.get(0)?).schema = Some(schema);
        }
        let variables = "SELECT name, kind, value, description, written_at FROM variable";
        let mut variables = self.file.prepare(variables)?;
        let mut rows = variables.query([])?;
        while let Some(row) = rows.next()? {
            let variable = Variable {
                kind: VariableKind::of(&row.get::<_, String>(1)?),
                value: row.get(2)?,
                description: row.get(3)?,
                written_at: time(row, 4)?,
            };
            kept.variables.push((row.get(0)?, variable));
        }
        if layout > LAYOUT_WITHOUT_INSTANCES {
            kept.instances = self.read_instances()?;
        }
        Ok(kept)
    }

    fn read_instances(&self) -> rusqlite::Result<Vec<(u64, String)>> {
        let instances = "SELECT place, declaration FROM instance ORDER BY place";
        let mut instances = self.file.prepare(instances)?;
        let mut rows = instances.query([])?;
        let mut listed = Vec::new();
        while let Some(row) = rows.next()? {
            // No place of ours is negative.
            if let Ok(place) = u64::try_from(row.get::<_, i64>(0)?) {
                // What cannot be read is no declaration: it is not listed, and its row goes.
                listed.push((place, row.get(1).unwrap_or_default()));
            }
        }
        Ok(listed)
    }

    fn try_write(&mut self, change: &Change<'_>) -> rusqlite::Result<()> {
        // What an operator was told to be kept survives a power failure.
        let waits_for_disk = matches!(
            change,
            Change::Config {
                is_by_operator: true,
                ..
            } | Change::Variable { .. }
                | Change::VariableGone { .. }
                | Change::ModuleGone { .. }
        );
        let level = if waits_for_disk { "FULL" } else { "NORMAL" };
        self.file.pragma_update(None, "synchronous", level)?;
        let writing = self.file.transaction()?;
        let execute = |sql: &str, values: &[&dyn ToSql]| writing.execute(sql, values).map(drop);
        match change {
            Change::Config {
                module,
                config,
                oldest,
                ..
            } => {
                let sql = "INSERT INTO config (module, version, data, written_at) VALUES (?1, ?2, ?3, ?4)";
                let (version, data) = (config.version(), config.data());
                let at = millis(config.written_at());
                execute(sql, params![module, version, data, at])?;
                let sql = "DELETE FROM config WHERE module = ?1 AND version < ?2";
                execute(sql, params![module, oldest])?;
            }
            Change::Schema { module, schema } => {
                let sql =
                    "INSERT INTO schema (module, version, data, written_at) VALUES (?1, ?2, ?3, ?4)
                    ON CONFLICT (module) DO UPDATE SET version = ?2, data = ?3, written_at = ?4";
                let at = millis(schema.written_at);
                execute(sql, params![module, schema.version, &*schema.data, at])?;
            }
            Change::Variable { name, variable } => {
                let sql = "INSERT INTO variable (name, kind, value, description, written_at) VALUES (?1, ?2, ?3, ?4, ?5)
                    ON CONFLICT (name) DO UPDATE SET kind = ?2, value = ?3, description = ?4, written_at = ?5";
                let (kind, at) = (variable.kind.as_str(), millis(variable.written_at));
                let Variable {
                    value, description, ..
                } = variable;
                execute(sql, params![name, kind, value, description, at])?;
            }
            Change::VariableGone { name } => {
                execute("DELETE FROM variable WHERE name = ?1", params![name])?;
            }
            Change::ModuleGone { module } => {
                execute("DELETE FROM config WHERE module = ?1", params![module])?;
                execute("DELETE FROM schema WHERE module = ?1", params![module])?;
            }
            Change::Listed { come, gone } => {
                for place in gone {
                    let sql = "DELETE FROM instance WHERE place = ?1";
                    execute(sql, params![number(*place)])?;
                }
                insert(&writing, come)?;
            }
            Change::AllListed(all) => {
                execute("DELETE FROM instance", params![])?;
                insert(&writing, all)?;
            }
        }
        writing.commit()
    }
}

impl Store for SqliteStore {
    fn write(&mut self, change: &Change<'_>) -> Result<()> {
        // The system lets a process write a file that was removed, of which nothing is left when it ends.
        if identity(&self.path) != self.identity {
            return Err(Error::new(ErrorKind::Unavailable, WRITE).because(format!(
                "{} was removed, or another file is in its place: put it back, or start the service again",
                shown(&self.path)
            )));
        }
        self.try_write(change)
            .map_err(|error| failed(WRITE, &self.path, &error))
    }

    fn is_lasting(&self) -> bool {
        true
    }
}

fn insert(writing: &Transaction<'_>, listed: &[(u64, String)]) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO instance (place, declaration) VALUES (?1, ?2)";
    let mut insert = writing.prepare(sql)?;
    for (place, declaration) in listed {
        insert.execute(params![number(*place), declaration])?;
    }
    Ok(())
}

fn number(place: u64) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

/// What modules and operators are sent is JSON, also where another program has written it into the file.
fn check_json(path: &Path, kept: &Kept) -> Result<()> {
    let check = |module: &str, what: String, text: &str| {
        let read = serde_json::from_str::<&RawValue>(text);
        read.map(drop).map_err(|error| {
            // The text of serde's error names a place and no data.
            Error::new(ErrorKind::InvalidData, OPEN).because(format!(
                "{}: {what} of the module {} is no JSON: {error}: mend that row, or remove it",
                shown(path),
                brief(Printable(module))
            ))
        })
    };
    for (module, stored) in &kept.modules {
        for config in &stored.configs {
            let what = format!("version {} of the configuration", config.version());
            check(module, what, config.data())?;
        }
        if let Some(schema) = &stored.schema {
            check(module, "the schema".to_owned(), &schema.data)?;
        }
    }
    Ok(())
}

fn not_ours(path: &Path) -> Error {
    Error::new(ErrorKind::InvalidData, OPEN).because(format!(
        "{} is not a file of this program, or one of a newer version: name another one",
        shown(path)
    ))
}

/// SQLite takes names such as `:memory:` and `file:…` for something else than a file. No absolute path is such a name.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Error::invalid_input(OPEN, format!("the file {}: {error}", shown(path))))
}

/// Which file is at a path. `None` if there is none.
fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let identity = {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev(), metadata.ino())
    };
    #[cfg(not(unix))]
    let identity = {
        drop(metadata);
        (0, 0)
    };
    Some(identity)
}

/// Warns if other users can read a file.
fn warn_if_public(path: &Path) {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(path)
        && std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
    {
        let file = shown(path);
        warn!(
            file,
            "other users can read the file of the config service, which may hold secrets: take their rights away with chmod 600"
        );
    }
}

/// Makes a file that only its user reads, if there is none: secrets are in it. SQLite gives its log the same mode.
fn make_private(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // SQLite tells why a file cannot be opened. One that is there keeps its mode, which its operator has chosen.
    let _ = options.open(path);
}

/// A time that can be shown: what is out of bounds is the nearest bound.
fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<SystemTime> {
    let millis: i64 = row.get(column)?;
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or_default().min(LAST_MILLIS));
    Ok(UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH))
}

fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn shown(path: &Path) -> String {
    Printable(&path.display().to_string()).to_string()
}

fn failed(op: &'static str, path: &Path, error: &rusqlite::Error) -> Error {
    let damaged = (
        ErrorKind::InvalidData,
        "it is damaged: put a copy of it in its place, or remove it, and modules send their defaults again",
    );
    // What is there can have no such value.
    let is_no_value = matches!(
        error,
        rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    );
    let (kind, what) = match error.sqlite_error_code() {
        _ if is_no_value => damaged,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Conflict,
            "another process has it open: stop that one, or name another file",
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged,
        // SQLite does not understand a statement: a table or a column is not there.
        Some(ErrorCode::Unknown) if op == OPEN => damaged,
        Some(ErrorCode::DiskFull) => (
            ErrorKind::Unavailable,
            "the disk or the space of this service is full: make room",
        ),
        _ => (ErrorKind::Unavailable, "see what the system says"),
    };
    Error::new(kind, op).because(format!(
        "{}: {}: {what}",
        shown(path),
        brief(Printable(&error.to_string()))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn config(version: u32, bytes: usize) -> StoredConfig {
        let data = format!("\"{}\"", "x".repeat(bytes));
        StoredConfig::new(version, data, SystemTime::now())
    }

    pub(super) fn write(store: &mut SqliteStore, config: &StoredConfig) -> Result<()> {
        store.write(&Change::Config {
            module: "a",
            config,
            oldest: 1,
            is_by_operator: true,
        })
    }

    #[test]
    fn a_full_disk_fails_the_write_alone_and_what_was_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (mut store, _) = SqliteStore::open(&path, 1).unwrap();
        write(&mut store, &config(1, 10)).unwrap();
        let full = write(&mut store, &config(2, 8 << 20)).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::Unavailable);
        let report = full.report().to_string();
        assert!(report.contains("full"), "{report}");
        write(&mut store, &config(3, 10)).unwrap();
        drop(store);
        let (_, kept) = SqliteStore::open(&path, 1).unwrap();
        let configs = kept.modules["a"].configs.iter();
        assert_eq!(
            configs.map(StoredConfig::version).collect::<Vec<_>>(),
            [1, 3]
        );
    }

    #[test]
    fn instances_take_no_room_of_configurations() {
        let folder = tempfile::tempdir().unwrap();
        let most_bytes = 1 << 20;
        let (mut store, _) = SqliteStore::open(&folder.path().join("file"), most_bytes).unwrap();
        let most = vec![(1, "x".repeat(4 << 20))];
        store.write(&Change::AllListed(most)).unwrap();
        write(&mut store, &config(1, most_bytes)).unwrap();
    }

    #[test]
    fn one_that_was_held_up_by_another_that_lets_go_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        // Has the lock of a reader, as one has that is about to take that of a writer.
        let other = Connection::open(&path).unwrap();
        other
            .pragma_update(None, "locking_mode", "EXCLUSIVE")
            .unwrap();
        let tables = "SELECT count(*) FROM sqlite_schema";
        other.query_row(tables, [], |_| Ok(())).unwrap();
        let mut other = Some(other);
        let lets_go = || drop(other.take());
        let opened = SqliteStore::open_pausing(&path, 1, lets_go);
        opened.unwrap();
        assert!(other.is_none(), "it was not held up");
    }

    #[test]
    fn of_two_that_open_a_new_file_at_once_one_has_it() {
        for _ in 0..3 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            let begin = std::sync::Barrier::new(2);
            let open = || {
                begin.wait();
                SqliteStore::open(&path, 1)
            };
            let (one, other) = thread::scope(|scope| {
                let other = scope.spawn(open);
                (open(), other.join().unwrap())
            });
            let refused = match (one, other) {
                (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
                (one, other) => panic!("{one:?} {other:?}"),
            };
            assert_eq!(refused.kind(), ErrorKind::Conflict, "{}", refused.report());
        }
    }

    #[test]
    fn a_version_that_no_configuration_has_is_damage() {
        for version in [-1, i64::from(u32::MAX) + 1] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            let (mut store, _) = SqliteStore::open(&path, 1).unwrap();
            write(&mut store, &config(1, 10)).unwrap();
            let sql = "UPDATE config SET version = ?1";
            store.file.execute(sql, [version]).unwrap();
            drop(store);
            let refused = SqliteStore::open(&path, 1).unwrap_err();
            let report = refused.report().to_string();
            assert_eq!(refused.kind(), ErrorKind::InvalidData, "{report}");
            assert!(report.contains("it is damaged"), "{report}");
        }
    }

    #[test]
    fn a_file_without_one_of_its_tables_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (store, _) = SqliteStore::open(&path, 1).unwrap();
        store.file.execute("DROP TABLE variable", []).unwrap();
        drop(store);
        let refused = SqliteStore::open(&path, 1).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_row_that_is_no_json_is_refused_with_its_place_and_nothing_of_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let change = |sql: &str| {
            let (mut store, _) = SqliteStore::open(&path, 1).unwrap();
            write(&mut store, &config(7, 10)).unwrap();
            store.file.execute(sql, []).unwrap();
        };
        for (sql, place) in [
            (
                "UPDATE config SET data = '{planted' WHERE version = 7",
                "version 7 of the configuration of the module a is no JSON",
            ),
            (
                "INSERT INTO schema VALUES ('a', '1', 'planted', 0)",
                "the schema of the module a is no JSON",
            ),
        ] {
            change(sql);
            let refused = SqliteStore::open(&path, 1).unwrap_err();
            let report = refused.report().to_string();
            assert_eq!(refused.kind(), ErrorKind::InvalidData, "{report}");
            assert!(
                report.contains(place) && !report.contains("planted"),
                "{report}"
            );
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_file_of_the_first_layout_gets_what_it_lacks_and_keeps_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (mut store, _) = SqliteStore::open(&path, 1).unwrap();
        write(&mut store, &config(1, 10)).unwrap();
        let first = "DROP TABLE instance; PRAGMA user_version = 1";
        store.file.execute_batch(first).unwrap();
        drop(store);
        let (mut store, kept) = SqliteStore::open(&path, 1).unwrap();
        assert_eq!(kept.modules["a"].configs.len(), 1);
        let come = vec![(3, "{}".to_owned()), (5, "[]".to_owned())];
        let gone = vec![3];
        store
            .write(&Change::Listed {
                come: come.clone(),
                gone: Vec::new(),
            })
            .unwrap();
        let come = Vec::new();
        store.write(&Change::Listed { come, gone }).unwrap();
        drop(store);
        let (_, kept) = SqliteStore::open(&path, 1).unwrap();
        assert_eq!(kept.instances, [(5, "[]".to_owned())]);
    }

    #[test]
    fn an_instance_that_cannot_be_read_keeps_no_service_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (mut store, _) = SqliteStore::open(&path, 1).unwrap();
        let all = vec![(3, "{}".to_owned()), (5, "{}".to_owned())];
        store.write(&Change::AllListed(all)).unwrap();
        let sql = "UPDATE instance SET declaration = CAST(x'ff' AS TEXT) WHERE place = 3";
        store.file.execute(sql, []).unwrap();
        drop(store);
        let (_, kept) = SqliteStore::open(&path, 1).unwrap();
        assert_eq!(kept.instances, [(3, String::new()), (5, "{}".to_owned())]);
    }

    #[test]
    fn a_path_is_that_of_a_file_whatever_it_is_called() {
        for name in [":memory:", "file:x?mode=memory"] {
            let path = absolute(Path::new(name)).unwrap();
            assert!(path.is_absolute() && path.ends_with(name), "{path:?}");
        }
        let refused = SqliteStore::open(Path::new(""), 1).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn nothing_counts_as_written_into_a_file_that_is_no_longer_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let aside = folder.path().join("aside");
        let (mut store, _) = SqliteStore::open(&path, 1).unwrap();
        std::fs::rename(&path, &aside).unwrap();
        let gone = write(&mut store, &config(1, 10)).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Unavailable);
        std::fs::write(&path, "").unwrap();
        let replaced = write(&mut store, &config(1, 10)).unwrap_err();
        assert!(replaced.report().to_string().contains("put it back"));
        std::fs::rename(&aside, &path).unwrap();
        write(&mut store, &config(1, 10)).unwrap();
    }

    #[test]
    fn times_that_cannot_be_shown_are_the_nearest_that_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (mut store, _) = SqliteStore::open(&path, 1).unwrap();
        write(&mut store, &config(1, 10)).unwrap();
        for (millis, shown) in [
            (i64::MAX, "9999-12-31T23:59:59.999000000Z"),
            (i64::MIN, "1970-01-01T00:00:00.000000000Z"),
        ] {
            let sql = "UPDATE config SET written_at = ?1";
            store.file.execute(sql, [millis]).unwrap();
            let kept = store.read(LAYOUT).unwrap();
            let at = kept.modules["a"].configs[0].written_at();
            let at = humantime::format_rfc3339_nanos(at);
            assert_eq!(at.to_string(), shown);
        }
    }
}
