//! The options and values of each command.

use std::ffi::OsString;
#[cfg(feature = "config-service")]
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use sd_core::{Error, Instance, InstanceId};
use sd_sidecar::wire::CheckSpec;

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// How long to wait for the registry's answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// What to do with the local agent.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentAct {
    /// Print what the agent holds, and why each registration is as it is
    Status,
    /// Have the agent stop: it deregisters everything, unless --keep or its own configuration says otherwise
    ///
    /// Needs the right `admin`: ask through the Unix socket of the agent as root or as the agent's user, or show a token that has it. Returns
    /// when the agent has begun to stop.
    Stop {
        /// Leave the records at the registry, for the next agent on the same state to continue
        #[arg(long)]
        keep: bool,
    },
}

/// Which agent, and how it is asked. Taken before what to do with it, and after that.
#[derive(Debug, Args)]
pub(crate) struct AtAgent {
    /// Where the agent listens
    #[arg(
        long,
        global = true,
        help = "Where the agent listens: http://host:port, https://host:port or unix:/path",
        value_name = "ADDRESS",
        env = "SDCTL_AGENT",
        default_value = "http://127.0.0.1:15010"
    )]
    pub(crate) agent: String,
    /// A file with the token to show
    #[arg(
        long,
        global = true,
        help = "A file with the token to show [default: the token in SDCTL_AGENT_TOKEN, if that is set]",
        value_name = "FILE"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// The issuers of the agent's certificate
    #[arg(
        long,
        global = true,
        help = "A PEM file with the authorities that may have issued the agent's certificate [default: those that the operating system trusts]",
        value_name = "FILE",
        env = "SDCTL_AGENT_CA"
    )]
    pub(crate) ca: Option<PathBuf>,
    /// The certificate to show
    #[arg(
        long,
        global = true,
        help = "A PEM file with the certificate to show to the agent, with --key",
        value_name = "FILE",
        env = "SDCTL_AGENT_CERT"
    )]
    pub(crate) cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(
        long,
        global = true,
        help = "A PEM file with the key of --cert",
        value_name = "FILE",
        env = "SDCTL_AGENT_KEY"
    )]
    pub(crate) key: Option<PathBuf>,
    /// The name in the agent's certificate
    #[arg(
        long,
        global = true,
        help = "The name that the agent's certificate must be for [default: the host of its address]",
        value_name = "NAME",
        env = "SDCTL_AGENT_SERVER_NAME"
    )]
    pub(crate) server_name: Option<String>,
    /// How long to wait for the agent's answer
    #[arg(long, global = true, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigServiceAct {
    /// List the modules that the service knows, with their instances
    Modules,
    /// Print the configuration of a module
    Get {
        /// The module's name
        module: String,
    },
    /// Write the configuration of a module, which gets it at once
    Set {
        /// The module's name
        module: String,
        /// A file with the configuration as JSON; - for standard input
        file: PathBuf,
        /// Only over this version; 0 where there is none yet
        #[arg(long, value_name = "VERSION")]
        over: Option<u32>,
        /// Also where it does not fit the module's schema
        #[arg(long)]
        force: bool,
    },
    /// Run a config service until Ctrl-C or SIGTERM
    ///
    /// Every process that reaches it can read the configuration of any module, and announce an instance of any: the protocol has no
    /// passwords. Listen only where modules are, or put a proxy in front.
    #[cfg(feature = "config-service")]
    Serve(Serving),
}

/// The config service to run.
#[cfg(feature = "config-service")]
#[derive(Debug, Args)]
pub(crate) struct Serving {
    /// Where to listen for modules, isps://host:port over TLS; can be repeated
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9001", value_parser = for_modules)]
    pub(crate) listen: Vec<ListenAt>,
    /// Where to listen for operators, https://host:port over TLS; one that other hosts reach needs a token
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9003", value_parser = for_operators)]
    pub(crate) operators: ListenAt,
    /// A PEM file with the certificate of the addresses with TLS, read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// A PEM file with the key of that certificate, which other users cannot read
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A PEM file with the authorities that must have issued the certificates of modules and operators there [default: they need none]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// The SQLite file in which configurations and variables are kept, made if it is not there [default: memory, until the end]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// A file with the token of operators
    #[arg(
        long,
        help = "A file with the token of operators, which other users cannot read [default: the token in SDCTL_CONFIG_SERVICE_TOKEN; \
                without one, operators of this host look at modules and do nothing else]",
        value_name = "FILE"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// Only check whether it could start so, and print what counts
    #[arg(long)]
    pub(crate) check: bool,
}

/// Where the config service listens.
#[cfg(feature = "config-service")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListenAt {
    pub(crate) address: SocketAddr,
    pub(crate) is_tls: bool,
}

/// Which config service, and how it is asked. Taken before what to do with it, and after that.
#[derive(Debug, Args)]
pub(crate) struct AtConfigService {
    /// Where the service listens for operators
    #[arg(
        long,
        global = true,
        help = "Where the service listens for operators: http://host:port or https://host:port",
        value_name = "ADDRESS",
        env = "SDCTL_CONFIG_SERVICE",
        default_value = "http://127.0.0.1:9003"
    )]
    pub(crate) service: String,
    /// A file with the token to show
    #[arg(
        long,
        global = true,
        help = "A file with the token to show [default: the token in SDCTL_CONFIG_SERVICE_TOKEN, if that is set]",
        value_name = "FILE"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// The issuers of the service's certificate
    #[arg(
        long,
        global = true,
        help = "A PEM file with the authorities that may have issued the service's certificate [default: those that the operating system trusts]",
        value_name = "FILE",
        env = "SDCTL_CONFIG_SERVICE_CA"
    )]
    pub(crate) ca: Option<PathBuf>,
    /// The certificate to show
    #[arg(
        long,
        global = true,
        help = "A PEM file with the certificate to show to the service, with --key",
        value_name = "FILE",
        env = "SDCTL_CONFIG_SERVICE_CERT"
    )]
    pub(crate) cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(
        long,
        global = true,
        help = "A PEM file with the key of --cert",
        value_name = "FILE",
        env = "SDCTL_CONFIG_SERVICE_KEY"
    )]
    pub(crate) key: Option<PathBuf>,
    /// The name in the service's certificate
    #[arg(
        long,
        global = true,
        help = "The name that the service's certificate must be for [default: the host of its address]",
        value_name = "NAME",
        env = "SDCTL_CONFIG_SERVICE_SERVER_NAME"
    )]
    pub(crate) server_name: Option<String>,
    /// How long to wait for the service's answer
    #[arg(long, global = true, value_name = "DURATION", default_value = "5s", value_parser = duration)]
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
    /// What must pass for the instance to be registered and ready
    #[arg(
        help = "What must pass for the instance to be registered and ready, for example http:/healthz,interval=5s; can be repeated",
        long,
        value_name = "CHECK",
        value_parser = check
    )]
    pub(crate) check: Vec<CheckSpec>,
    /// How long readers have to send their calls elsewhere before the command is asked to stop [default: 3s with a command, else 0s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) drain_for: Option<Duration>,
    /// How long the command may take to stop before it is killed
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration, requires = "command")]
    pub(crate) stop_within: Duration,
    /// The command to run, which serves at the address
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
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
    /// With the defaults, a service has stopped within the 10 s that container engines wait.
    pub(crate) fn drain_for(&self) -> Duration {
        let default = if self.command.is_empty() { 0 } else { 3 };
        self.drain_for.unwrap_or(Duration::from_secs(default))
    }

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

#[cfg(feature = "config-service")]
fn for_modules(text: &str) -> Result<ListenAt, String> {
    listen_at(text, "isps://", "127.0.0.1:9001, or isps://[::]:9001")
}

#[cfg(feature = "config-service")]
fn for_operators(text: &str) -> Result<ListenAt, String> {
    listen_at(text, "https://", "127.0.0.1:9003, or https://[::]:9003")
}

#[cfg(feature = "config-service")]
fn listen_at(text: &str, scheme: &str, example: &str) -> Result<ListenAt, String> {
    let (address, is_tls) = match text.strip_prefix(scheme) {
        Some(address) => (address, true),
        None => (text, false),
    };
    let address = address
        .parse()
        .map_err(|_| format!("write an IP address with a port, for example {example} for TLS"))?;
    Ok(ListenAt { address, is_tls })
}

fn check(text: &str) -> Result<CheckSpec, String> {
    // Before what may be wrong with it.
    if text.split([':', ',']).next() == Some("ttl") {
        return Err(
            "nothing can tell sdctl that it is well; write another check than ttl".to_owned(),
        );
    }
    text.parse().map_err(|error: Error| cause(&error))
}

/// What is wrong, without where that was found.
fn cause(error: &Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), ToString::to_string)
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
