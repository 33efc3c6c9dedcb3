//! Whose servers a run is over, and what follows from that.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Servers of one make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Backend {
    Etcd,
    Consul,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Consul => "consul",
        }
    }

    /// Of all candidates of a run.
    pub(crate) fn ttl(self) -> Duration {
        match self {
            // Whole seconds, as etcd grants them.
            Self::Etcd => Duration::from_secs(3),
            // The shortest that Consul grants.
            Self::Consul => Duration::from_secs(10),
        }
    }

    /// How long a server keeps what is not renewed, in times-to-live.
    pub(crate) fn ttls_until_expiry(self) -> u32 {
        match self {
            Self::Etcd => 1,
            Self::Consul => 2,
        }
    }

    /// How long a server lists a process that was killed, as one that is ready: its time-to-live, and how often the server looks.
    pub(crate) fn record_gone_within(self) -> Duration {
        match self {
            Self::Etcd | Self::Consul => self.ttl() + Duration::from_secs(1),
        }
    }

    /// What its servers answer to any client by HTTP, whatever their state.
    pub(crate) fn question(self) -> &'static str {
        match self {
            Self::Etcd => "/version",
            Self::Consul => "/v1/status/leader",
        }
    }
}
