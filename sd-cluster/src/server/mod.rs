//! A small config service: isp-kit's modules in Go, and this crate's, connect to it as they do to isp-config-service.
//!
//! For tests, and for sites of one machine. It keeps configurations with their versions, and variables, in memory or in one SQLite file
//! (feature `server-sqlite`). It tells modules of changes at once, where isp-config-service looks for them twice a second. There is no
//! second instance to take over: modules wait, with what they know, until it is back. With a file it then lists the instances of before until
//! they are back ([`Builder::return_within`]); without one, a reader which comes back first is told of none, until the others are there.
//!
//! ```no_run
//! use sd_cluster::server::ConfigService;
//! use tokio::net::TcpListener;
//!
//! # async fn example() -> sd_core::Result<()> {
//! let service = ConfigService::builder().start().await?;
//! # let listen = || async { TcpListener::bind("127.0.0.1:9001").await.map_err(|error| sd_core::Error::new(sd_core::ErrorKind::Unavailable, "listen").with_source(error)) };
//! service.serve(listen().await?);
//! service.set_config("orders", r#"{"limit":10}"#, None).await?;
//! service.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! The protocol has no passwords: every process that reaches the address can read the configuration of any module, and announce an
//! instance of any. Serve on an address that only modules reach, or over TLS to those who show a certificate ([`ServerTls`]).
//!
//! # What differs from isp-config-service
//! | here | there |
//! |---|---|
//! | a connection with an `Origin` is answered with 403: a page in a browser could read configurations | every page may connect |
//! | a module that is gone without a word is removed three ping periods later, 9 s by default | after minutes, as TCP decides, or by a sweep every 5 minutes |
//! | READY with an address that cannot be dialled, or with the name of another module, is refused | it is stored, and one IPv6 address ends all lists for everyone |
//! | IPv6 addresses are understood, with and without brackets | only with |
//! | values of variables are escaped, `_Var` counts within texts alone, and is an error while no variable is defined | a quote in a value breaks the configuration |
//! | a default configuration with variables that are not defined is not stored | it is |
//! | a default configuration of `null`, or none, is `{}` | an error |
//! | a declaration has at most 1 MiB ([`Limits::declaration_bytes`]) | one module can take the room of all others in the routes |
//! | what an operator writes is checked against the schema with the values of its variables, where a schema is known. `pattern`, `format` and what no generator of modules writes are not looked at | it is checked as it is written, needs a schema, and one that cannot be used counts as fulfilled when it is shown |
//! | a variable is written without a look at schemas: what uses it can be sent, and need not fit any longer | the same |
//! | one configuration for each module, with versions | several, of which one is active |
//! | modules without a connection, a configuration and a schema are forgotten | every name that ever connected stays |
//! | TLS, and certificates of clients, if wanted | neither |
//! | after a restart, instances are listed that were before, for 45 s or until they are back | modules that are back are told of those that are |
//! | the times of connections are those of this process | they are stored |

pub mod admin;
mod instrument;
mod limits;
mod listener;
mod outbox;
mod owner;
mod places;
mod schema;
mod service;
mod session;
mod state;
mod store;
mod throttle;
mod tls;
mod variables;

pub use self::admin::Admin;
pub use self::instrument::{CONNECTIONS, REFUSED};
pub use self::limits::Limits;
pub use self::service::{Builder, ConfigService};
pub use self::state::{
    KnownInstance, KnownModule, StoredConfig, Variable, VariableKind, VariableView,
};
pub use self::tls::ServerTls;
