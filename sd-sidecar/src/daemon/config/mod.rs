//! The configuration of the agent: one definition of its keys for files, flags and the environment.

mod file;
mod keys;
mod listen;
mod shown;
mod sources;
pub(crate) mod text;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use self::keys::{KEYS, Key};
pub use self::listen::Listen;
pub use self::shown::Shown;
pub use self::sources::{Source, Sources, Values};
use super::log::filter;
use super::registrations::is_of_one_link;
use crate::wire::in_hours;
use http::Uri;
use sd_backend::{RegistryUrl, Secret};
use sd_core::{Endpoint, Printable, brief};

/// Why a configuration cannot be used, on one line and without a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl From<std::io::Error> for ConfigError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The URL of the registry.
    pub registry: Secret,
    /// The same, as it can be shown.
    pub registry_url: RegistryUrl,
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// The mode of Unix sockets.
    pub socket_mode: u32,
    /// Further names that requests may ask for.
    pub hosts: Vec<String>,
    /// Origins of web pages that may use the agent.
    pub origins: Vec<String>,
    /// The host that others dial, if one is named.
    pub advertise: Option<String>,
    /// Whether loopback addresses may be registered at a registry that others read.
    pub allow_loopback: bool,
    /// The zone.
    pub zone: Option<String>,
    /// The first part of the agent's id.
    pub cluster_name: String,
    /// The environment.
    pub env: String,
    /// Where in Consul the methods of services are told to gateways.
    pub route_prefix: Option<String>,
    /// How long a record outlives the agent.
    pub ttl: Duration,
    /// Where registrations are kept.
    pub state: Option<PathBuf>,
    /// What happens at a stop.
    pub stop: StopConfig,
    /// Whether to deregister what is not registered is an error for clients of go-consul.
    pub strict_deregister: bool,
    /// The file with the tokens.
    pub tokens: Option<PathBuf>,
    /// The files of TLS.
    pub tls: Option<TlsFiles>,
    /// The limits.
    pub limits: Limits,
    /// Whether checks may run programs.
    pub check_commands: bool,
    /// What is logged.
    pub log: LogConfig,
    /// What all of this was made of.
    values: Values,
}

/// What happens at a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopConfig {
    /// Leave the records.
    pub keep: bool,
    /// How long readers see everything as not ready before it goes.
    pub drain: Duration,
    /// How long deregistering may take.
    pub within: Duration,
}

/// The files of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate (chain).
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The issuers of client certificates.
    pub client_ca: Option<PathBuf>,
}

/// How much there may be of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Connections at each address.
    pub connections: usize,
    /// Streams of events.
    pub streams: usize,
    /// Registrations.
    pub registrations: usize,
    /// Requests of one caller in a second.
    pub requests_per_second: u32,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The filter, as of `tracing_subscriber::EnvFilter`.
    pub level: String,
    /// Whether each line is an object.
    pub json: bool,
    /// Whether requests are logged.
    pub access: bool,
}

const LONGEST_BODY: usize = 1024 * 1024;

impl Config {
    /// Checks the values. Opens no file but the state folder's, and no connection.
    ///
    /// # Errors
    /// The first key that cannot be used, and what to write.
    pub fn new(values: &Values) -> Result<Self, ConfigError> {
        let registry = Secret::new(values.text("registry").unwrap_or_default());
        // What an error of the URL says repeats no password.
        let registry_url = RegistryUrl::parse(registry.expose())
            .map_err(|error| values.wrong("registry", error.report()))?;
        let config = Self {
            registry,
            registry_url,
            listen: listen(values)?,
            socket_mode: parsed(values, "socket_mode", mode)?,
            hosts: hosts(values)?,
            origins: origins(values)?,
            advertise: advertise(values)?,
            allow_loopback: parsed(values, "allow_loopback", from_str)?,
            zone: values.text("zone").map(str::to_owned),
            cluster_name: required(values, "cluster_name")?,
            env: required(values, "env")?,
            route_prefix: route_prefix(values)?,
            ttl: parsed(values, "ttl", |text| duration(text, 1, 24 * 3600))?,
            state: values.text("state").map(PathBuf::from).or_else(state_file),
            stop: StopConfig {
                keep: parsed(values, "keep_on_stop", from_str)?,
                drain: parsed(values, "drain", |text| duration(text, 0, 3600))?,
                within: parsed(values, "stop_within", |text| duration(text, 0, 600))?,
            },
            strict_deregister: parsed(values, "strict_deregister", from_str)?,
            tokens: values.text("tokens").map(PathBuf::from),
            tls: tls(values)?,
            limits: Limits {
                body: parsed(values, "limits.body", |text| count(text, LONGEST_BODY))?,
                connections: parsed(values, "limits.connections", |text| count(text, 100_000))?,
                streams: parsed(values, "limits.streams", |text| count(text, 100_000))?,
                registrations: parsed(values, "limits.registrations", |text| count(text, 100_000))?,
                requests_per_second: parsed(values, "limits.requests_per_second", |text| {
                    count(text, 1_000_000).map(|n| u32::try_from(n).unwrap_or(u32::MAX))
                })?,
            },
            check_commands: parsed(values, "checks.commands", from_str)?,
            log: LogConfig {
                level: required(values, "log.level")?,
                json: parsed(values, "log.format", |text| match text {
                    "text" => Ok(false),
                    "json" => Ok(true),
                    _ => Err("expected text or json".to_owned()),
                })?,
                access: parsed(values, "log.access", from_str)?,
            },
            values: values.clone(),
        };
        config.check_together(values)?;
        Ok(config)
    }

    /// What is found out later about the value of `key`, with the place where it was written.
    pub(super) fn wrong(&self, key: &str, why: impl fmt::Display) -> ConfigError {
        self.values.wrong(key, why)
    }

    fn check_together(&self, values: &Values) -> Result<(), ConfigError> {
        let zone = self.zone.as_deref().unwrap_or_default();
        for (key, part) in [("cluster_name", self.cluster_name.as_str()), ("zone", zone)] {
            if part.contains(':') {
                let why = "must not have a colon: the agent's id is cluster_name:zone:host";
                return Err(values.wrong(key, why));
            }
        }
        filter(&self.log.level).map_err(|why| values.wrong("log.level", why))?;
        if self.stop.keep && self.state.is_none() {
            return Err(values.wrong(
                "keep_on_stop",
                "the next agent learns of the records from a file: set state",
            ));
        }
        let is_consul = self.registry.expose().starts_with("consul");
        if self.route_prefix.is_some() && !is_consul {
            return Err(values.wrong(
                "route_prefix",
                "gateways read routes from Consul: set registry to a URL as consul://127.0.0.1:8500",
            ));
        }
        let insecure = parsed(values, "insecure", from_str::<bool>)?;
        for listen in &self.listen {
            if matches!(listen, Listen::Tls(_)) && self.tls.is_none() {
                return Err(values.wrong(
                    "listen",
                    format!("{listen} needs a certificate: set tls.cert and tls.key"),
                ));
            }
            if listen.is_local() {
                continue;
            }
            if self.tokens.is_none() {
                return Err(values.wrong(
                    "listen",
                    format!("{listen} can be reached from other hosts: set tokens, or listen on loopback or a Unix socket"),
                ));
            }
            if matches!(listen, Listen::Tcp(_)) && !insecure {
                return Err(values.wrong(
                    "listen",
                    format!("{listen} would send tokens unencrypted to other hosts: write tls:{listen}, or set insecure"),
                ));
            }
        }
        Ok(())
    }
}

fn parsed<T>(
    values: &Values,
    key: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    parse(values.text(key).unwrap_or_default()).map_err(|why| values.wrong(key, why))
}

fn required(values: &Values, key: &str) -> Result<String, ConfigError> {
    match values.text(key) {
        Some(text) => Ok(text.to_owned()),
        None => Err(values.wrong(key, "must not be empty")),
    }
}

fn from_str<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| "expected true or false".to_owned())
}

fn duration(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
    let parsed = humantime::parse_duration(text);
    match parsed {
        Ok(duration) if (least..=most).contains(&duration) => Ok(duration),
        Ok(_) => Err(format!(
            "expected {} to {}",
            in_hours(least),
            in_hours(most)
        )),
        Err(_) => Err("expected a duration such as 500ms, 10s or 1m".to_owned()),
    }
}

fn count(text: &str, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=most).contains(&n) => Ok(n),
        _ => Err(format!("expected a number from 1 to {most}")),
    }
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("expected an octal mode such as 0660".to_owned()),
    }
}

fn listen(values: &Values) -> Result<Vec<Listen>, ConfigError> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|why: String| values.wrong("listen", why))
    };
    let listen: Vec<Listen> = values
        .list("listen")
        .iter()
        .map(parse)
        .collect::<Result<_, _>>()?;
    if listen.is_empty() {
        return Err(values.wrong("listen", "name at least one address"));
    }
    if let Some(twice) = (1..listen.len()).find(|at| listen[..*at].contains(&listen[*at])) {
        return Err(values.wrong("listen", format!("{} is listed twice", listen[twice])));
    }
    Ok(listen)
}

fn hosts(values: &Values) -> Result<Vec<String>, ConfigError> {
    let hosts = values.list("hosts");
    for host in hosts {
        check_host(host).map_err(|why| values.wrong("hosts", why))?;
    }
    Ok(hosts.to_vec())
}

/// Refuses what is no name or address of a host.
fn check_host(host: &str) -> Result<(), String> {
    let shown = Printable(&brief(host)).to_string();
    if host.contains("://") || host.parse::<SocketAddr>().is_ok() || has_port(host) {
        return Err(format!(
            "{shown:?} is more than a host: write a name or an IP address, without scheme and port"
        ));
    }
    // An endpoint says what a host is, and refuses those that no other process can dial.
    match Endpoint::tcp(host, 1) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.report().to_string()),
    }
}

fn has_port(host: &str) -> bool {
    let parts = host.rsplit_once(':');
    parts.is_some_and(|(name, port)| !name.contains(':') && port.parse::<u16>().is_ok())
}

fn origins(values: &Values) -> Result<Vec<String>, ConfigError> {
    let origins = values.list("origins");
    for origin in origins {
        let is_origin = origin.parse::<Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.path_and_query().is_none_or(|path| path == "/")
                && !origin.ends_with('/')
        });
        if !is_origin {
            return Err(values.wrong(
                "origins",
                "expected an origin such as https://admin.example.org, without a path",
            ));
        }
    }
    Ok(origins.to_vec())
}

fn advertise(values: &Values) -> Result<Option<String>, ConfigError> {
    let Some(host) = values.text("advertise") else {
        return Ok(None);
    };
    check_host(host).map_err(|why| values.wrong("advertise", why))?;
    if is_of_one_link(host) {
        let why = format!(
            "{host} is link-local, and others cannot dial it without a zone: name another address"
        );
        return Err(values.wrong("advertise", why));
    }
    Ok(Some(host.to_owned()))
}

/// The folder of keys. As a path it would lead into that of another service, or be all keys.
fn route_prefix(values: &Values) -> Result<Option<String>, ConfigError> {
    let Some(folder) = values.list("route_prefix").last() else {
        return Ok(None);
    };
    let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
    if folder.trim_matches('/').split('/').all(is_name) {
        return Ok(Some(folder.clone()));
    }
    let why = "expected a folder of keys, as routes or gateway/routes, whose parts are not empty, . or ..";
    Err(values.wrong("route_prefix", why))
}

fn tls(values: &Values) -> Result<Option<TlsFiles>, ConfigError> {
    let path = |key| values.text(key).map(PathBuf::from);
    match (path("tls.cert"), path("tls.key"), path("tls.client_ca")) {
        (None, None, None) => Ok(None),
        (Some(cert), Some(key), client_ca) => Ok(Some(TlsFiles {
            cert,
            key,
            client_ca,
        })),
        (cert, key, _) => {
            let set = match (cert, key) {
                (Some(_), _) => "tls.cert",
                (None, Some(_)) => "tls.key",
                (None, None) => "tls.client_ca",
            };
            let why = "tls.cert and tls.key are set together, and tls.client_ca only with them";
            Err(values.wrong(set, why))
        }
    }
}

/// Where systemd says that a service keeps its state.
fn state_file() -> Option<PathBuf> {
    let folders = std::env::var_os("STATE_DIRECTORY")?;
    let first = std::env::split_paths(&folders).next()?;
    (!first.as_os_str().is_empty()).then(|| Path::new(&first).join("registrations.json"))
}

#[cfg(test)]
mod tests;
