#![doc = include_str!("../README.md")]

mod answer;
mod beginning;
mod builder;
mod call;
mod channel;
mod config;
mod connect_line;
mod connection;
mod connection_task;
mod connector;
mod cut;
mod deadline;
mod descriptors;
mod discover;
mod driver;
mod dump;
mod durations;
mod ejection;
mod event;
mod frames;
mod happy_eyeballs;
mod incoming;
pub mod instrument;
mod labels;
mod member;
mod members;
mod observed;
mod options;
mod permit;
mod ping;
mod pump;
mod readiness;
mod ready_set;
mod replay_budget;
mod request_body;
mod resolution;
mod response_body;
mod server;
mod server_status;
mod shared;
mod shared_list;
mod silence;
mod status;
mod subchannel;
mod target;
mod throttle;
mod timers;
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
pub use crate::labels::CallLabels;
pub use crate::options::{AnsweredBy, AttemptInfo, HashKey, Idempotent, WaitForReady};
pub use crate::readiness::Readiness;
pub use crate::server::{
    DEFAULT_DRAIN, DEFAULT_MAX_PENDING_RESETS, DEFAULT_STOP_WITHIN, RunningServer, Server, Services,
};
pub use crate::subchannel::EndpointState;
pub use crate::throttle::RetryThrottle;
#[cfg(feature = "tls")]
pub use crate::tls::ClientTls;
pub use tonic_health::ServingStatus;
