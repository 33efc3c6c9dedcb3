//! Whose servers a run is over, and what follows from that.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::witness::Question;

/// Servers of one make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Backend {
    Etcd,
    Consul,
    Zk,
    Redis,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Consul => "consul",
            Self::Zk => "zk",
            Self::Redis => "redis",
        }
    }

    /// Of all candidates of a run.
    pub(crate) fn ttl(self) -> Duration {
        match self {
            // Whole seconds, as etcd grants them.
            Self::Etcd | Self::Redis => Duration::from_secs(3),
            // The shortest that Consul grants.
            Self::Consul => Duration::from_secs(10),
            // A client takes a server for gone that is silent for two fifths of it, so it is not shorter than a busy machine needs.
            Self::Zk => Duration::from_secs(4),
        }
    }

    /// How long a server keeps what is not renewed, in times-to-live.
    pub(crate) fn ttls_until_expiry(self) -> u32 {
        match self {
            Self::Etcd | Self::Zk | Self::Redis => 1,
            Self::Consul => 2,
        }
    }

    /// How long a server lists a process that was killed, as one that is ready: its time-to-live, and how often the server looks.
    pub(crate) fn record_gone_within(self) -> Duration {
        match self {
            Self::Etcd | Self::Consul | Self::Zk | Self::Redis => {
                self.ttl() + Duration::from_secs(1)
            }
        }
    }

    /// What its servers answer to any client while they serve.
    pub(crate) fn question(self) -> Question {
        match self {
            Self::Etcd => Question::Http("/version"),
            Self::Consul => Question::Http("/v1/status/leader"),
            Self::Zk => Question::ZooKeeper,
            Self::Redis => Question::Redis,
        }
    }

    /// How its clients are told where a server is.
    pub(crate) fn endpoint(self, server: SocketAddr) -> String {
        match self {
            Self::Etcd | Self::Consul => format!("http://{server}"),
            Self::Zk | Self::Redis => server.to_string(),
        }
    }
}
