//! The backend of the example `own_backend` passes the conformance suites, as far as a folder can.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../src/bin/own_backend/backend.rs"]
mod backend;
#[path = "../src/bin/own_backend/codec.rs"]
mod codec;
#[path = "../src/bin/own_backend/config.rs"]
mod config;
#[path = "../src/bin/own_backend/reading.rs"]
mod reading;
#[path = "../src/bin/own_backend/store.rs"]
mod store;
#[path = "../src/bin/own_backend/writing.rs"]
mod writing;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sd_core::port::async_trait;
use sd_core::{Backend, ErrorKind, RecordId, Result, ServiceName};
use sd_testing::{Ability, Fixture};
use tempfile::TempDir;

use crate::backend::{FolderBackend, connect};
use crate::codec::file_name;
use crate::config::FolderConfig;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn of(&self, service: &ServiceName) -> PathBuf {
        self.0
            .path()
            .join(file_name("test", service.as_str()).unwrap())
    }
}

#[async_trait]
impl Fixture for Folder {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        let url = format!("folder://{}?poll=20ms", self.0.path().display());
        Ok(Arc::new(FolderBackend::new(&FolderConfig::from_url(&url)?)))
    }

    fn lacks(&self) -> Vec<Ability> {
        vec![
            Ability::RunOrder,
            Ability::Operators,
            Ability::ReadyOverrides,
            Ability::Expiry,
            Ability::Leases,
            Ability::Sessions,
            Ability::FairElections,
            Ability::StrictElections,
        ]
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn write_garbage(&self, service: &ServiceName) -> Result<()> {
        fs::create_dir_all(self.of(service)).unwrap();
        fs::write(self.of(service).join("garbage"), "no record").unwrap();
        Ok(())
    }

    async fn remove_record(&self, record: &RecordId) -> Result<()> {
        let file = file_name("test", record.id.as_str())?;
        fs::remove_file(self.of(&record.service).join(file)).unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn the_example_of_a_backend_passes_all_reading_cases() {
    sd_testing::reading::run_all(&Folder::new())
        .await
        .expect_passed();
}

#[tokio::test]
async fn the_example_of_a_backend_passes_all_writing_cases() {
    sd_testing::writing::run_all(&Folder::new())
        .await
        .expect_passed();
}

#[test]
fn a_url_that_names_no_folder_or_a_wrong_setting_is_refused_and_says_why() {
    for (url, why) in [
        ("etcd://h", "folder://"),
        ("folder://h/p", "three slashes"),
        ("folder:///", "three slashes"),
        ("folder:///p?poll=1ms", "poll: 1ms is outside"),
        ("folder:///p?pol=1s", "write poll"),
        ("folder:///p?path=/q", "path: is given twice"),
    ] {
        let error = connect(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        let report = error.report().to_string();
        assert!(report.contains(why), "{url}: {report}");
    }
}
