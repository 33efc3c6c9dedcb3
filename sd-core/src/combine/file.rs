//! A JSON file as a source, read again when it changes.
//!
//! The file is checked once a second. That catches a rewrite in place, a rename over it, and the swap of a symbolic link above
//! it, as Kubernetes does for mounted config maps. It needs no file notifications, so it works on every file system.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};

use super::document::Document;
use super::file_reader::{OP, Reader, Reading};
use super::relay::{Relay, SILENCE_LIMIT, View};
use crate::clock::{BootClock, Clock};
use crate::error::{Error, ErrorKind, Result};
use crate::model::instance::Incarnation;
use crate::model::name::ServiceName;
use crate::model::snapshot::{Revision, Snapshot};
use crate::port::instancer::{Feed, Instancer, Watcher};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A source that is a file: `{"services": {"greeter": [{"address": "10.0.0.7:50051", "zone": "a", "weight": 5}]}}`.
///
/// A record has the keys of an [`Instance`](crate::Instance)'s JSON form. Only `address` is required. The id is the address
/// unless stated; the service is the key above the record. A changed file is read within two seconds. If the file cannot be
/// read, the last set stays and is stale, with path, line and column. Reasons: the file is missing, is not JSON, has unknown
/// top-level keys, or is larger than [`MAX_FILE_BYTES`](super::MAX_FILE_BYTES). A single bad record is skipped and named.
#[derive(Clone, Debug)]
pub struct File {
    reader: Arc<Reader>,
    domain: Arc<str>,
    clock: Arc<dyn Clock>,
}

impl File {
    /// The file at `path`. It need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            reader: Arc::new(Reader::new(path.into())),
            domain: format!("file-{}", Incarnation::random()).into(),
            clock: Arc::new(BootClock),
        }
    }

    /// Sets the clock that measures ages. Default [`BootClock`].
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Checks the file, on a thread where that may block.
    async fn look(&self) -> Result<Reading> {
        let reader = Arc::clone(&self.reader);
        tokio::task::spawn_blocking(move || reader.look())
            .await
            .map_err(|error| Error::new(ErrorKind::Unavailable, OP).with_source(error))
    }

    fn snapshot(&self, service: &ServiceName, document: &Document, version: u64) -> Snapshot {
        let entries = document.entries(service);
        let revision = Revision::new(Arc::clone(&self.domain), version);
        Snapshot::new(
            service.clone(),
            revision,
            self.clock.now(),
            entries.instances,
        )
        .with_skipped(entries.skipped)
        .with_skipped_count(entries.skipped_count)
    }
}

#[async_trait]
impl Instancer for File {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(self.look().await?.document?.services())
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let reading = self.look().await?;
        Ok(self.snapshot(service, &*reading.document?, reading.version))
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        Ok(Box::new(FileWatcher {
            file: self.clone(),
            service: service.clone(),
            look_at: Instant::now(),
            seen: None,
            relay: Relay::new(known),
        }))
    }
}

#[derive(Debug)]
struct FileWatcher {
    file: File,
    service: ServiceName,
    look_at: Instant,
    /// The version of the reading that was reported last.
    seen: Option<u64>,
    relay: Relay,
}

#[async_trait]
impl Watcher for FileWatcher {
    async fn next(&mut self) -> Result<Feed> {
        loop {
            sleep_until(self.look_at).await;
            let reading = self.file.look().await?;
            let now = Instant::now();
            self.look_at = now + LOOK_EVERY;
            if self.seen.replace(reading.version) == Some(reading.version)
                && now < self.relay.repeat_at()
            {
                continue;
            }
            let view = match reading.document {
                Ok(document) => View {
                    set: Some(
                        self.file
                            .snapshot(&self.service, &document, reading.version),
                    ),
                    trouble: None,
                },
                Err(error) => View {
                    set: None,
                    trouble: Some(error),
                },
            };
            if let Some(news) = self.relay.news(view) {
                return Ok(news);
            }
        }
    }

    fn silence_limit(&self) -> Duration {
        SILENCE_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::combine::MAX_FILE_BYTES;
    use crate::combine::switched::{seen, service, subscribe, until};
    use crate::feed::subscription::Subscription;

    fn content(ids: &[&str]) -> String {
        let records: Vec<_> = ids
            .iter()
            .map(|id| format!(r#"{{"address": "h:1", "id": "{id}"}}"#))
            .collect();
        format!(r#"{{"services": {{"s": [{}]}}}}"#, records.join(","))
    }

    struct Folder {
        folder: tempfile::TempDir,
    }

    impl Folder {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { folder }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("services.json")
        }

        fn write(&self, content: &str) {
            std::fs::write(self.path(), content).unwrap();
        }

        fn watch(&self) -> Subscription {
            subscribe(Arc::new(File::new(self.path())))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rewritten_file_is_read_again_and_what_left_it_is_not_held() {
        let folder = Folder::new();
        folder.write(&content(&["a", "b", "c", "d"]));
        let mut services = folder.watch();
        until(&mut services, "a b c d live").await;
        let written_at = Instant::now();
        folder.write(&content(&["a"]));
        until(&mut services, "a live").await;
        assert!(written_at.elapsed() <= Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rename_over_the_file_is_seen() {
        let folder = Folder::new();
        folder.write(&content(&["a"]));
        let mut services = folder.watch();
        until(&mut services, "a live").await;
        let new = folder.folder.path().join("new.json");
        std::fs::write(&new, content(&["b"])).unwrap();
        std::fs::rename(&new, folder.path()).unwrap();
        until(&mut services, "b live").await;
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_swapped_link_to_the_folder_of_the_file_is_seen() {
        use std::os::unix::fs::symlink;
        let folder = Folder::new();
        let root = folder.folder.path();
        for (version, id) in [("v1", "a"), ("v2", "b")] {
            std::fs::create_dir(root.join(version)).unwrap();
            std::fs::write(root.join(version).join("x.json"), content(&[id])).unwrap();
        }
        symlink(root.join("v1"), root.join("data")).unwrap();
        let mut services = subscribe(Arc::new(File::new(root.join("data/x.json"))));
        until(&mut services, "a live").await;
        symlink(root.join("v2"), root.join("data-new")).unwrap();
        std::fs::rename(root.join("data-new"), root.join("data")).unwrap();
        until(&mut services, "b live").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_file_keeps_the_last_set_and_says_where_until_it_is_mended() {
        let folder = Folder::new();
        folder.write(&content(&["a"]));
        let mut services = folder.watch();
        until(&mut services, "a live").await;
        folder.write("{\n  \"services\": oops");
        let state = until(&mut services, "a stale").await;
        let reason = state.status().error().unwrap().report().to_string();
        assert!(
            reason.contains("services.json: ") && reason.contains("line 2 column"),
            "{reason}"
        );
        std::fs::remove_file(folder.path()).unwrap();
        let state = services.changed().await.unwrap();
        assert_eq!(state.status().error().unwrap().kind(), ErrorKind::NotFound);
        folder.write(&content(&["a"]));
        until(&mut services, "a live").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_appears_later_is_read_then() {
        let folder = Folder::new();
        let mut services = folder.watch();
        let state = services.changed().await.unwrap();
        assert_eq!(seen(&state), "initializing");
        assert_eq!(state.status().error().unwrap().kind(), ErrorKind::NotFound);
        folder.write(&content(&["a"]));
        until(&mut services, "a live").await;
    }

    #[tokio::test]
    async fn an_oversized_file_and_a_folder_are_refused() {
        let folder = Folder::new();
        let file = std::fs::File::create(folder.path()).unwrap();
        file.set_len(MAX_FILE_BYTES + 1).unwrap();
        for (path, reason) in [
            (folder.path(), "larger than"),
            (folder.folder.path().to_owned(), "not a file"),
        ] {
            let error = File::new(path).list(&service()).await.unwrap_err();
            assert!(error.report().to_string().contains(reason), "{error:?}");
        }
    }

    #[tokio::test]
    async fn an_unreadable_record_is_named_and_the_revision_grows_with_each_change_only() {
        let folder = Folder::new();
        folder.write(r#"{"services": {"s": [{"address": "h:1"}, {"address": "h"}], "empty": []}}"#);
        let file = File::new(folder.path());
        let first = file.list(&service()).await.unwrap();
        assert_eq!((first.len(), first.skipped().len()), (1, 1));
        assert_eq!(file.services().await.unwrap(), [service()]);
        let again = file.list(&service()).await.unwrap();
        assert_eq!(again.revision(), first.revision());
        folder.write(&content(&["a"]));
        let changed = file.list(&service()).await.unwrap();
        assert!(changed.revision() > first.revision());
    }
}
