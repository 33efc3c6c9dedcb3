//! For tests of backends and of the machinery: a TCP proxy that breaks connections, and real servers that can be killed and
//! frozen.
//!
//! Nothing here is for production. It is public so that every backend, also one outside of this workspace, can be held to the
//! same contracts.

mod environment;
mod etcd_server;
mod port;
mod server_process;
mod tcp_proxy;

pub use self::environment::required_env;
pub use self::etcd_server::{EtcdProgram, EtcdServer};
pub use self::port::free_port;
pub use self::server_process::{ServerProcess, ServerProgram};
pub use self::tcp_proxy::{Direction, Fault, ProxyCounts, TcpProxy};
