#![doc = include_str!("../README.md")]

mod case;
pub mod electing;
mod environment;
pub mod faults;
mod fixture;
mod follower;
mod http_message;
mod http_proxy;
pub mod operating;
mod peer;
mod port;
pub mod reading;
mod scene;
mod scripted_backend;
mod scripted_instancer;
mod scripted_registrar;
mod server_group;
mod server_process;
pub mod standings;
mod tcp_proxy;
mod waiting;
pub mod writing;

pub use self::case::{Case, Failure, Outcome, SuiteReport};
pub use self::environment::required_env;
pub use self::fixture::Fixture;
pub use self::http_proxy::{HttpProxy, HttpRequest, HttpRule, HttpState};
pub use self::peer::Peer;
pub use self::port::free_port;
pub use self::scripted_backend::ScriptedBackend;
pub use self::scripted_instancer::{Opening, ScriptedInstancer};
pub use self::scripted_registrar::{Answer, Call, Op, ScriptedRegistrar};
pub use self::server_group::ServerGroup;
pub use self::server_process::{ServerProcess, ServerProgram};
pub use self::tcp_proxy::{Direction, Fault, ProxyCounts, TcpProxy};
pub use self::waiting::{LONG, event, eventually, is_live_with, is_stale, until};
