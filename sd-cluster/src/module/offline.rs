//! A module without a config service: its configuration is in a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sd_backend::FileThread;
use sd_core::{Error, ErrorKind, Result};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::module::health::ConfigHealth;
use crate::module::remote_config::RemoteConfig;

const OP: &str = "cluster: offline configuration";
/// How often the file is read.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a read may take.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// As much as a service could send.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// A module that gets its configuration from a file, once a second if it has changed. For development and tests without a config service.
/// The file holds the module's own configuration, with nothing around it. Ends when it is dropped.
#[derive(Debug)]
pub struct OfflineModule {
    told: watch::Receiver<ConfigHealth>,
    _task: AbortOnDropHandle<()>,
}

impl OfflineModule {
    /// Reads the file, hands the configuration over, and follows the file from then on. Returns when the first configuration is applied.
    ///
    /// # Errors
    /// `NotFound` or `InvalidData` if the file cannot be read, or the configuration is rejected.
    ///
    /// # Cancel safety
    /// A dropped call drops what the receiver does.
    pub async fn start(path: impl Into<PathBuf>, config: RemoteConfig) -> Result<Self> {
        let path: Arc<Path> = path.into().into();
        let files = FileThread::default();
        let json = read(&files, &path).await?;
        let applied = config.apply(&json).await;
        applied.map_err(|reason| {
            let why = format!("{}: {reason}", path.display());
            Error::new(ErrorKind::InvalidData, OP).because(why)
        })?;
        let (tell, told) = watch::channel(ConfigHealth::Applied);
        let task = tokio::spawn(follow(files, path, config, json, tell));
        Ok(Self {
            told,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// What became of the last configuration.
    pub fn health(&self) -> ConfigHealth {
        self.told.borrow().clone()
    }

    /// Waits until another configuration was applied or rejected. Cancel-safe.
    ///
    /// # Errors
    /// `Closed` if the runtime of the module has ended.
    pub async fn changed(&mut self) -> Result<ConfigHealth> {
        let changed = self.told.changed().await;
        changed.map_err(|_| {
            Error::new(ErrorKind::Closed, OP).because("the runtime of the module has ended")
        })?;
        Ok(self.told.borrow_and_update().clone())
    }
}

async fn follow(
    files: FileThread,
    path: Arc<Path>,
    config: RemoteConfig,
    mut last: Vec<u8>,
    tell: watch::Sender<ConfigHealth>,
) {
    let mut is_readable = true;
    loop {
        sleep(LOOK_EVERY).await;
        let json = match read(&files, &path).await {
            Ok(json) => json,
            Err(error) => {
                // Once: an editor may just be writing it.
                if std::mem::take(&mut is_readable) {
                    warn!(error = %error.report(), "the file of the configuration cannot be read");
                }
                continue;
            }
        };
        is_readable = true;
        if json == last {
            continue;
        }
        let outcome = config.apply(&json).await;
        last = json;
        let health = match outcome {
            Ok(()) => {
                info!("a configuration is applied");
                ConfigHealth::Applied
            }
            Err(reason) => {
                warn!(reason, "a configuration is rejected");
                ConfigHealth::Rejected {
                    reason,
                    has_earlier: true,
                }
            }
        };
        tell.send_replace(health);
    }
}

/// What the file holds. A pipe or a device is refused, which may have no end.
async fn read(files: &FileThread, path: &Arc<Path>) -> Result<Vec<u8>> {
    let reading = Arc::clone(path);
    let read = files.run(OP, move || -> std::io::Result<Vec<u8>> {
        use std::io::Read;

        let about = std::fs::metadata(&reading)?;
        let why = if !about.is_file() {
            Some("it is no file")
        } else if about.len() > MOST_BYTES {
            Some("it is larger than 4 MiB, which no service could send")
        } else {
            None
        };
        if let Some(why) = why {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&reading)?;
        file.take(MOST_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let Ok(read) = tokio::time::timeout(READ_WITHIN, read).await else {
        let why = format!("{} was not read within {READ_WITHIN:?}", path.display());
        return Err(Error::new(ErrorKind::Timeout, OP).because(why));
    };
    read?.map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::InvalidData,
        };
        Error::new(kind, OP).because(format!("cannot read {}: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use sd_core::sync::lock;
    use serde_json::Value;

    use super::*;
    use crate::Received;

    type Seen = Arc<Mutex<Vec<Value>>>;

    fn config(seen: &Seen) -> RemoteConfig {
        let seen = Arc::clone(seen);
        RemoteConfig::new("{}", move |received: Received<Value>| {
            let seen = Arc::clone(&seen);
            async move {
                if received.config.get("bad").is_some() {
                    return Err("bad");
                }
                lock(&seen).push((*received.config).clone());
                Ok(())
            }
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_file_is_handed_over_at_once_and_when_it_changes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let seen = Seen::default();
        std::fs::write(file.path(), r#"{ "a": 1 }"#).unwrap();
        let mut module = OfflineModule::start(file.path(), config(&seen))
            .await
            .unwrap();
        assert_eq!(lock(&seen).len(), 1);
        std::fs::write(file.path(), r#"{"bad":1}"#).unwrap();
        let rejected = ConfigHealth::Rejected {
            reason: "bad".to_owned(),
            has_earlier: true,
        };
        assert_eq!(module.changed().await.unwrap(), rejected);
        std::fs::write(file.path(), r#"{"a":2}"#).unwrap();
        assert_eq!(module.changed().await.unwrap(), ConfigHealth::Applied);
        assert_eq!(module.health(), ConfigHealth::Applied);
        assert_eq!(lock(&seen).last().unwrap()["a"], 2);
    }

    #[tokio::test]
    async fn a_file_that_is_missing_no_file_or_no_configuration_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let start = |path: PathBuf| OfflineModule::start(path, config(&Seen::default()));
        let missing = start(folder.path().join("none")).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let is_folder = start(folder.path().to_owned()).await.unwrap_err();
        assert!(is_folder.report().to_string().contains("no file"));
        let garbage = folder.path().join("garbage");
        std::fs::write(&garbage, "hunter2").unwrap();
        let refused = start(garbage).await.unwrap_err().report().to_string();
        assert!(
            refused.contains("garbage: it: ") && !refused.contains("hunter2"),
            "{refused}"
        );
    }
}
