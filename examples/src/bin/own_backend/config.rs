//! The settings, and what they must satisfy.

use std::path::PathBuf;
use std::time::Duration;

use sd_backend::Rules;
use sd_core::Result;
use serde::Deserialize;

const RULES: Rules = Rules::new("folder: configuration");

/// Where the folder is, and how it is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FolderConfig {
    path: PathBuf,
    #[serde(with = "humantime_serde")]
    poll: Duration,
    #[serde(with = "humantime_serde")]
    request_timeout: Duration,
}

impl Default for FolderConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            poll: Duration::from_millis(200),
            request_timeout: Duration::from_secs(5),
        }
    }
}

impl FolderConfig {
    /// The settings in a URL: `folder:///var/lib/services?poll=1s`.
    pub(crate) fn from_url(url: &str) -> Result<Self> {
        let url = RULES.url(url, &["folder"])?;
        let mut config: Self = url.settings()?;
        RULES.given_once(&[("path", !config.path.as_os_str().is_empty())])?;
        if !url.hosts().is_empty() || url.path().len() < 2 {
            return Err(RULES.broken("url", "must be folder:///path, with three slashes"));
        }
        config.path = url.path().into();
        config.checked()
    }

    fn checked(self) -> Result<Self> {
        let seconds = |least, most| Duration::from_millis(least)..=Duration::from_secs(most);
        RULES.range("poll", self.poll, &seconds(10, 60))?;
        RULES.range("request_timeout", self.request_timeout, &seconds(100, 60))?;
        Ok(self)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// How often feeds look for changes.
    pub(crate) fn poll(&self) -> Duration {
        self.poll
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }
}
