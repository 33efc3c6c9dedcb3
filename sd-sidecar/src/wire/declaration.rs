//! What a process wants to have registered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sd_core::{Endpoint, InstanceId, ServiceName};
use serde::{Deserialize, Serialize};

use super::CheckSpec;

/// The body of `POST /v1/registrations`: one instance as its process wants others to see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// The service.
    pub service: ServiceName,
    /// Where others dial the instance: `host:port`, `[ipv6]:port` or `unix:/path`. Either this or `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Endpoint>,
    /// The port at the address that the agent advertises for its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The instance's id. By default one that the agent makes, the same for an identical declaration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<InstanceId>,
    /// The run of an application that declares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppInstance>,
    /// The instance's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its zone. By default the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its weight. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Its tier, the lowest is called first. Default 0.
    #[serde(default)]
    pub priority: u16,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// Its metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Whether it wants calls, if its checks pass as well. Default true.
    #[serde(default = "yes")]
    pub ready: bool,
    /// How long its record outlives an agent that is gone. By default the agent's.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "humantime_serde"
    )]
    pub ttl: Option<Duration>,
    /// What is checked of it. All must pass for it to be ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckSpec>,
}

fn yes() -> bool {
    true
}

/// One run of one application, as the reference system's clients name themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppInstance {
    /// The application. 255 bytes at most.
    pub app_id: String,
    /// Its run. 255 bytes at most.
    pub app_instance_id: String,
}
