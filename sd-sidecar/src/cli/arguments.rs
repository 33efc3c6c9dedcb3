//! The options and values of each command.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use sd_core::{Instance, InstanceId};

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// How long to wait for the registry's answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// The record that an operator means.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The service's name
    pub(crate) service: String,
    /// The instance's id
    pub(crate) id: String,
    /// The run of the instance, as list --json prints it [default: the one that is listed now]
    #[arg(long, value_name = "HEX")]
    pub(crate) incarnation: Option<String>,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// The instance to register.
#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// The service's name
    service: String,
    /// The address that clients dial
    #[arg(
        value_name = "HOST:PORT",
        help = "The address that clients dial: host:port, [ipv6]:port or unix:/path"
    )]
    address: String,
    /// An id that stays the same across restarts [default: the address and a random part]
    #[arg(long)]
    id: Option<String>,
    /// A metadata entry; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    /// A tag; can be repeated
    #[arg(long)]
    tag: Vec<String>,
    /// The zone that the instance runs in
    #[arg(long)]
    zone: Option<String>,
    /// The version of the software
    #[arg(long)]
    version: Option<String>,
    /// Its share of the calls, relative to other instances
    #[arg(long, default_value_t = sd_core::Instance::DEFAULT_WEIGHT, value_parser = number)]
    weight: u16,
    /// Its tier; lower tiers are used first
    #[arg(long, default_value_t = 0, value_parser = number)]
    priority: u16,
    /// How long the record outlives its last renewal, for example 10s; at least 2s on etcd
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
}

/// How many instances to wait for.
#[derive(Debug, Args)]
pub(crate) struct Awaited {
    /// The service's name
    pub(crate) service: String,
    /// How many instances must be ready
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count)]
    pub(crate) count: usize,
    /// How long to wait for them [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

/// What to campaign for, and how.
#[derive(Debug, Args)]
pub(crate) struct Candidacy {
    /// The election's name, for example reports/nightly
    pub(crate) name: String,
    /// The value that observers see for this candidate [default: host name and process id]
    #[arg(long)]
    pub(crate) value: Option<String>,
    /// How long the term outlives its last confirmation
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) ttl: Duration,
    /// How long before the hand-over to tell the command to stop [default: a quarter of the ttl, which is the maximum]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) stop_margin: Option<Duration>,
    /// How long to wait before leading after a leader that did not resign
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) takeover_delay: Duration,
    /// Accept a registry that may have two leaders at once
    #[arg(long)]
    pub(crate) best_effort: bool,
    /// Exit when the first term has ended
    #[arg(long)]
    pub(crate) once: bool,
    /// The command to run while leading
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

impl Wanted {
    /// The instance as it will be registered.
    pub(crate) fn instance(&self) -> sd_core::Result<Instance> {
        let mut instance = Instance::new(&self.service, self.address.as_str())?
            .with_weight(self.weight)
            .with_priority(self.priority);
        if let Some(id) = &self.id {
            instance = instance.with_id(InstanceId::new(id)?);
        }
        if let Some(zone) = &self.zone {
            instance = instance.with_zone(zone);
        }
        if let Some(version) = &self.version {
            instance = instance.with_version(version);
        }
        for tag in &self.tag {
            instance = instance.with_tag(tag);
        }
        for (key, value) in &self.meta {
            instance = instance.with_metadata(key, value);
        }
        Ok(instance)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number with a unit, for example 500ms or 10s"))
}

fn number(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("write a number from 0 to {}", u16::MAX))
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("write a number, at least 1".to_owned()),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write key=value".to_owned()),
    }
}
