#![doc = include_str!("../README.md")]

mod hint;
mod rules;
mod secret;
mod servers;
mod term_recorder;
mod tls;
mod url;
mod without_input;

pub use crate::hint::{hint_in, hinted, is_other_server, other_server, with_hint};
pub use crate::rules::Rules;
pub use crate::secret::Secret;
pub use crate::servers::Servers;
pub use crate::term_recorder::TermRecorder;
pub use crate::tls::TlsSettings;
pub use crate::url::RegistryUrl;
pub use crate::without_input::without_input;
