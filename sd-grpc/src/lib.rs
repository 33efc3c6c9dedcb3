#![doc = include_str!("../README.md")]

mod answer;
mod beginning;
mod builder;
mod call;
mod channel;
mod config;
mod connection;
mod connector;
mod cork;
mod cut;
mod deadline;
mod discover;
mod driver;
mod dump;
pub mod instrument;
mod options;
mod ready_set;
mod replay_budget;
mod request_body;
mod response_body;
mod server;
mod shared;
mod status;
mod subchannel;
mod throttle;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod wire;

pub use crate::builder::ChannelBuilder;
pub use crate::channel::{BalancedChannel, CallFuture};
pub use crate::config::{ChannelConfig, KeepAlive};
pub use crate::connector::{BoxedIo, Connecting, Connector, Dial, Io};
pub use crate::discover::{Discover, Feeder, Key, discover, feed};
pub use crate::dump::{ChannelDump, EndpointDump};
pub use crate::options::{AnsweredBy, AttemptInfo, HashKey, Idempotent, WaitForReady};
pub use crate::server::{
    DEFAULT_DRAIN, DEFAULT_MAX_PENDING_RESETS, DEFAULT_STOP_WITHIN, RunningServer, Server, Services,
};
pub use crate::subchannel::EndpointState;
pub use crate::throttle::RetryThrottle;
#[cfg(feature = "tls")]
pub use crate::tls::ClientTls;
pub use tonic_health::ServingStatus;
