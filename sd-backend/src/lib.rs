#![doc = include_str!("../README.md")]

mod backend_of;
mod borrowed;
mod changes;
mod close_signal;
mod file_thread;
pub mod gokit;
mod hint;
mod history_name;
mod last_read;
mod login;
mod participations;
mod queue_entry;
mod record;
mod rules;
mod secret;
mod servers;
mod setters;
mod shared_connection;
mod stored_json;
mod term_recorder;
mod tls;
mod tls_setters;
mod told_leader;
mod unread;
mod url;
mod without_input;

pub use crate::backend_of::backend_of;
pub use crate::changes::Changes;
pub use crate::close_signal::CloseSignal;
pub use crate::file_thread::FileThread;
pub use crate::hint::{
    hint_in, hinted, is_other_server, is_out_of_files, is_unreachable, other_server, with_hint,
};
pub use crate::history_name::history_name;
pub use crate::login::LoginSettings;
pub use crate::participations::{ParticipationId, Participations};
pub use crate::queue_entry::{Place, QueueEntry, Queued, Woken};
pub use crate::record::{Owner, Record};
pub use crate::rules::Rules;
pub use crate::secret::Secret;
pub use crate::servers::Servers;
pub use crate::shared_connection::{Connection, SharedConnection, Unanswered};
pub use crate::stored_json::read_json;
pub use crate::term_recorder::TermRecorder;
pub use crate::tls::TlsSettings;
pub use crate::told_leader::ToldLeader;
pub use crate::unread::Unread;
pub use crate::url::RegistryUrl;
pub use crate::without_input::without_input;
