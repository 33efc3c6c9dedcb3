//! For tests of backends and of what is built on them: what every backend must do ([`reading`], [`writing`], [`electing`]) and
//! survive ([`faults`]), sources whose answers are written in advance, a TCP proxy that breaks connections, an HTTP proxy that
//! answers for its server, real servers that can be killed and frozen, and programs of other projects.
//!
//! Nothing here is for production. It is public so that every backend, also one outside of this workspace, can be held to the
//! same contracts:
//!
//! ```no_run
//! # async fn example(fixture: &dyn sd_core::testing::Fixture) {
//! use sd_core::testing::{electing, reading, writing};
//!
//! reading::run_all(fixture).await.expect_passed_but_skipped(&[]);
//! writing::run_all(fixture).await.expect_passed_but_skipped(&[]);
//! electing::run_all(fixture).await.expect_passed_but_skipped(&[]);
//! # }
//! ```

mod case;
mod consul_server;
pub mod electing;
mod environment;
mod etcd_server;
pub mod faults;
mod fixture;
mod follower;
mod http_message;
mod http_proxy;
mod peer;
mod port;
pub mod reading;
mod scene;
mod scripted_backend;
mod scripted_instancer;
mod scripted_registrar;
mod server_process;
pub mod standings;
mod tcp_proxy;
mod waiting;
pub mod writing;

pub use self::case::{Case, Failure, Outcome, SuiteReport};
pub use self::consul_server::{ConsulProgram, ConsulServer};
pub use self::environment::required_env;
pub use self::etcd_server::{EtcdProgram, EtcdServer};
pub use self::fixture::Fixture;
pub use self::http_proxy::{HttpProxy, HttpRequest, HttpRule, HttpState};
pub use self::peer::Peer;
pub use self::port::free_port;
pub use self::scripted_backend::ScriptedBackend;
pub use self::scripted_instancer::{Opening, ScriptedInstancer};
pub use self::scripted_registrar::{Answer, Call, Op, ScriptedRegistrar};
pub use self::server_process::{ServerProcess, ServerProgram};
pub use self::tcp_proxy::{Direction, Fault, ProxyCounts, TcpProxy};
pub use self::waiting::{LONG, event, eventually, is_live_with, is_stale, until};
