//! For backends: what their configurations have in common. Where the servers are, what must not be shown, how TLS is set up, and
//! the checks of all that, with refusals that name the key.
//!
//! A backend's configuration is a struct of its own, with the keys of its own. It holds [`Servers`] and [`Secret`]s, describes its
//! TLS settings as a [`TlsSettings`], and refuses what is wrong by [`Rules`]:
//!
//! ```
//! use std::time::Duration;
//!
//! use sd_core::Result;
//! use sd_core::config::{Rules, Secret, Servers, TlsSettings};
//!
//! const RULES: Rules = Rules::new("newdb: configuration");
//!
//! #[derive(Clone, Debug, serde::Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct NewDbConfig {
//!     endpoints: Servers,
//!     token: Option<Secret>,
//!     #[serde(with = "humantime_serde")]
//!     request_timeout: Duration,
//! }
//!
//! impl Default for NewDbConfig {
//!     fn default() -> Self {
//!         let request_timeout = Duration::from_secs(5);
//!         Self { endpoints: Servers::default(), token: None, request_timeout }
//!     }
//! }
//!
//! impl NewDbConfig {
//!     fn from_url(url: &str) -> Result<Self> {
//!         let url = RULES.url(url, "newdb")?;
//!         let mut config: Self = url.settings()?;
//!         if url.password().is_some() || !url.path().is_empty() {
//!             return Err(RULES.broken("url", "is newdb://token@host:port, without password and path"));
//!         }
//!         RULES.given_once(&[("endpoints", !config.endpoints.is_empty())])?;
//!         config.endpoints = url.hosts().iter().collect();
//!         config.token = url.username().map(Secret::new);
//!         Ok(config)
//!     }
//!
//!     fn checked(mut self) -> Result<Self> {
//!         self.endpoints.complete(RULES, TlsSettings::default().wanted(), |_tls| 7777)?;
//!         let limits = Duration::from_millis(100)..=Duration::from_mins(1);
//!         RULES.range("request_timeout", self.request_timeout, &limits)?;
//!         Ok(self)
//!     }
//! }
//!
//! let config = NewDbConfig::from_url("newdb://sesame@h1,h2:1234?request_timeout=2s").unwrap();
//! assert!(!format!("{config:?}").contains("sesame"));
//! assert_eq!(config.request_timeout, Duration::from_secs(2));
//! assert_eq!(*config.checked().unwrap().endpoints, ["http://h1:7777", "http://h2:1234"]);
//! ```

mod rules;
mod secret;
mod servers;
mod tls;

pub use self::rules::Rules;
pub use self::secret::Secret;
pub use self::servers::Servers;
pub use self::tls::TlsSettings;
