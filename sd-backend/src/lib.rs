#![doc = include_str!("../README.md")]

mod backend_of;
mod borrowed;
mod close_signal;
mod file_thread;
pub mod gokit;
mod hint;
mod last_read;
mod login;
mod queue_entry;
mod record;
mod rules;
mod secret;
mod servers;
mod setters;
mod shared_connection;
mod term_recorder;
mod tls;
mod tls_setters;
mod url;
mod without_input;

pub use crate::backend_of::backend_of;
pub use crate::close_signal::CloseSignal;
pub use crate::file_thread::FileThread;
pub use crate::hint::{hint_in, hinted, is_other_server, other_server, with_hint};
pub use crate::login::LoginSettings;
pub use crate::queue_entry::{Place, QueueEntry, Queued, Woken};
pub use crate::record::{Owner, Record};
pub use crate::rules::Rules;
pub use crate::secret::Secret;
pub use crate::servers::Servers;
pub use crate::shared_connection::{Connection, SharedConnection, Unanswered};
pub use crate::term_recorder::TermRecorder;
pub use crate::tls::TlsSettings;
pub use crate::url::RegistryUrl;
pub use crate::without_input::without_input;
