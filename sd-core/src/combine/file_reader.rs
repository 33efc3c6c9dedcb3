//! Reads a file once for all its watchers, and only when it may have changed.

use std::hash::{DefaultHasher, Hasher};
use std::io::{ErrorKind as IoErrorKind, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::document::Document;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

/// The largest file that is read, in bytes: 16 MiB.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

pub(super) const OP: &str = "file: read";

/// A file written less than this before it was read may be written again without its marks changing.
const MARKS_SETTLE_AFTER: Duration = Duration::from_secs(2);

/// The last reading, and whether it is still current. Its calls block.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    /// Locked while the file is read, on a blocking thread; never across an await.
    last: Mutex<Option<Reading>>,
}

/// The outcome of the last read of the file.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Grows whenever the outcome changes.
    pub(super) version: u64,
    pub(super) document: Result<Arc<Document>>,
    /// A hash of the content, if it could be read.
    content: Option<u64>,
    /// The file's marks before it was read. `None` if other content may have the same marks.
    marks: Option<Marks>,
}

/// The metadata that change when a file does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marks {
    modified: SystemTime,
    len: u64,
    identity: (u64, u64),
    changed: (i64, i64),
}

impl Marks {
    fn of(metadata: &std::fs::Metadata) -> std::io::Result<Self> {
        #[cfg(unix)]
        let (identity, changed) = {
            use std::os::unix::fs::MetadataExt;
            (
                (metadata.dev(), metadata.ino()),
                (metadata.ctime(), metadata.ctime_nsec()),
            )
        };
        #[cfg(not(unix))]
        let (identity, changed) = ((0, 0), (0, 0));
        Ok(Self {
            modified: metadata.modified()?,
            len: metadata.len(),
            identity,
            changed,
        })
    }

    fn are_settled(&self) -> bool {
        SystemTime::now()
            .duration_since(self.modified)
            .is_ok_and(|age| age > MARKS_SETTLE_AFTER)
    }
}

impl Reader {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            last: Mutex::default(),
        }
    }

    pub(super) fn look(&self) -> Reading {
        let mut last = lock(&self.last);
        let reading = self.read(last.as_ref());
        *last = Some(reading.clone());
        reading
    }

    fn read(&self, last: Option<&Reading>) -> Reading {
        let version = last.map_or(1, |last| last.version + 1);
        let failed = |error: Error| match last {
            Some(last) if is_same_failure(&last.document, &error) => last.clone(),
            _ => Reading {
                version,
                document: Err(error),
                content: None,
                marks: None,
            },
        };
        let marks = match self.marks() {
            Ok(marks) => marks,
            Err(error) => return failed(error),
        };
        if let Some(last) = last.filter(|last| last.marks.as_ref() == Some(&marks)) {
            return last.clone();
        }
        let bytes = match self.content() {
            Ok(bytes) => bytes,
            Err(error) => return failed(error),
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        let content = Some(hasher.finish());
        let marks = Some(marks).filter(Marks::are_settled);
        if let Some(last) = last.filter(|last| last.content == content) {
            return Reading {
                marks,
                ..last.clone()
            };
        }
        let document = Document::parse(&bytes).map(Arc::new).map_err(|reason| {
            Error::new(ErrorKind::InvalidData, OP).because(format!("{}: {reason}", self.shown()))
        });
        Reading {
            version,
            document,
            content,
            marks,
        }
    }

    fn marks(&self) -> Result<Marks> {
        let metadata = std::fs::metadata(&self.path).map_err(|error| self.io(&error))?;
        // Opening a pipe would wait for its writer.
        if !metadata.is_file() {
            return Err(Error::new(ErrorKind::InvalidData, OP)
                .because(format!("{} is not a file: name a JSON file", self.shown())));
        }
        Marks::of(&metadata).map_err(|error| self.io(&error))
    }

    fn content(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(&self.path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|error| self.io(&error))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::new(ErrorKind::InvalidData, OP).because(format!(
                "{} is larger than the allowed {MAX_FILE_BYTES} bytes",
                self.shown()
            )));
        }
        Ok(bytes)
    }

    fn io(&self, error: &std::io::Error) -> Error {
        let kind = match error.kind() {
            IoErrorKind::NotFound => ErrorKind::NotFound,
            IoErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, OP).because(format!("{}: {error}", self.shown()))
    }

    fn shown(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

fn is_same_failure(last: &Result<Arc<Document>>, error: &Error) -> bool {
    last.as_ref()
        .is_err_and(|last| last.report().to_string() == error.report().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_unless_it_has_been_left_alone_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("services.json");
        std::fs::write(&path, r#"{"services": {}}"#).unwrap();
        let reader = Reader::new(path.clone());
        // A second write within the same tick of the kernel's clock would leave all marks alike.
        assert_eq!(reader.look().marks, None);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let hour = Duration::from_secs(3600);
        for (modified, is_settled) in [
            (SystemTime::now() - hour, true),
            (SystemTime::now() + hour, false),
        ] {
            file.set_modified(modified).unwrap();
            let reading = reader.look();
            assert_eq!((reading.marks.is_some(), reading.version), (is_settled, 1));
        }
    }
}
