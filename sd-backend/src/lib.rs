#![doc = include_str!("../README.md")]

mod rules;
mod secret;
mod servers;
mod term_recorder;
mod tls;
mod url;

pub use crate::rules::Rules;
pub use crate::secret::Secret;
pub use crate::servers::Servers;
pub use crate::term_recorder::TermRecorder;
pub use crate::tls::TlsSettings;
pub use crate::url::RegistryUrl;
