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
//! #[derive(Clone, Debug, Default, serde::Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct NewDbConfig {
//!     endpoints: Servers,
//!     password: Option<Secret>,
//!     request_timeout: Duration,
//! }
//!
//! impl NewDbConfig {
//!     fn from_url(url: &str) -> Result<Self> {
//!         let url = RULES.url(url, "newdb")?;
//!         let mut config: Self = url.settings()?;
//!         RULES.given_once(&[("endpoints", !config.endpoints.is_empty())])?;
//!         config.endpoints = url.hosts().iter().collect();
//!         config.password = url.password().map(Secret::new);
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
//! let mut config = NewDbConfig::from_url("newdb://:sesame@h1,h2:1234").unwrap();
//! assert!(!format!("{config:?}").contains("sesame"));
//! config.request_timeout = Duration::from_secs(1);
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
