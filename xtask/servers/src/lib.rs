//! How the real servers that tests need are started and reached, and whether they serve.

mod consul;
mod etcd;

pub use self::consul::{ConsulProgram, ConsulServer};
pub use self::etcd::{EtcdProgram, EtcdServer};
