//! What a start and a check of the configuration have in common: the registry, the files of tokens and TLS, and the address of this host.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sd_backend::RegistryUrl;
use sd_core::{Address, Endpoint, Error, ErrorKind, Registry, RegistryConfig, advertised_address};
use serde::Deserialize;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::agent::StartError;
use super::config::{Config, ConfigError};
use super::gate::Settings;
use super::registrations;
use super::security::{BrowserRules, Tokens};
use super::store::Store;
use super::tls;

/// Opens the registry without waiting for it, and refuses what every registration would be refused for.
pub(super) fn connect(config: &Config) -> Result<Registry, StartError> {
    let mut registry = RegistryConfig::default();
    registry.registration.ttl = config.ttl;
    registry.registration.withdraw_within =
        (config.stop.within / 4 * 3).max(Duration::from_millis(500));
    let registry = sd_any::connect_with(config.registry.expose(), registry)?;
    if let Some(registrar) = Arc::clone(registry.backend()).registrar() {
        registrations::check_ttl(registrar.limits(), config.ttl)
            .map_err(|why| config.wrong("ttl", why))?;
    }
    if config.route_prefix.is_some()
        && let Some(setting) = hides_instances(&config.registry_url)?
    {
        let why = format!(
            "route_prefix: with {setting} in the registry's URL, the agent does not see all instances of other hosts, and would take their \
             routes back: leave one of the two out"
        );
        return Err(ConfigError::new(why).into());
    }
    if let Some(host) = &config.advertise
        && !config.allow_loopback
        && registrations::is_shared(&registry)
        && registrations::is_loopback(host)
    {
        let why = format!(
            "{host} can only be dialled on this machine, and others read this registry: name another address, or set allow_loopback"
        );
        return Err(config.wrong("advertise", why).into());
    }
    Ok(registry)
}

/// The setting of a URL for Consul with which instances of other hosts may not be seen, if there is one.
fn hides_instances(url: &RegistryUrl) -> sd_core::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Reading {
        consistency: Option<String>,
        filter: Option<String>,
        #[serde(default)]
        tag: Vec<String>,
        nearest: Option<String>,
    }
    let reading: Reading = url.settings()?;
    let may_be_old = |consistency: &String| ["stale", "cached"].contains(&consistency.as_str());
    let consistency = reading.consistency.filter(may_be_old);
    let filters = [
        ("filter", reading.filter.is_some()),
        ("tag", !reading.tag.is_empty()),
        ("nearest", reading.nearest.is_some()),
    ];
    let filter = filters.into_iter().find(|(_, is_set)| *is_set);
    Ok(consistency
        .map(|consistency| format!("consistency={consistency}"))
        .or(filter.map(|(name, _)| name.to_owned())))
}

/// The host that others dial, and where it comes from if it is not configured.
pub(super) fn advertised(
    config: &Config,
    registry: &Registry,
) -> sd_core::Result<(String, &'static str)> {
    if let Some(host) = &config.advertise {
        return Ok((host.clone(), "configuration"));
    }
    // Only the port of what is returned is not ours.
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1));
    let found = advertised_address(any);
    match found.as_ref().map(Endpoint::address) {
        Ok(Address::Tcp { host, .. }) => Ok((host.to_owned(), "default route")),
        // No other host reads it.
        _ if registry.backend().name() == "memory" => {
            Ok((Ipv4Addr::LOCALHOST.to_string(), "no other host reads it"))
        }
        _ => Err(found.err().unwrap_or_else(|| {
            Error::new(ErrorKind::Unavailable, "find the address of this host")
        })),
    }
}

pub(super) fn unknown_host(error: &Error) -> String {
    let why = error.report();
    format!("registrations must name their host, or advertise be set: {why}")
}

/// Reads the files that are named.
pub(super) async fn read_settings(
    config: Config,
    names: Vec<String>,
) -> Result<Settings, ConfigError> {
    let read = move || {
        let names = names.into_iter().chain(config.hosts);
        let tokens = config.tokens.as_deref().map(Tokens::read).transpose();
        let tls = config.tls.as_ref().map(tls::read).transpose();
        // An operator who mends one learns of the other at once.
        let (tokens, tls) = match (tokens, tls) {
            (Err(tokens), Err(tls)) => return Err(ConfigError::new(format!("{tokens}; {tls}"))),
            (tokens, tls) => (tokens?, tls?),
        };
        Ok(Settings {
            tokens,
            tls,
            browsers: BrowserRules::new(&config.listen, names, &config.origins),
            connections: config.limits.connections,
            requests_per_second: config.limits.requests_per_second,
            access_log: config.log.access,
            access: CancellationToken::new(),
            clients: CancellationToken::new(),
        })
    };
    let read = spawn_blocking(read).await;
    read.unwrap_or_else(|error| Err(ConfigError::new(error.to_string())))
}

/// What was found out by a check.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Checked {
    /// What an operator should know, and a start goes on with: what it would lose of a damaged state, a certificate that has expired, that the
    /// address of this host is not known.
    pub notes: Vec<String>,
    /// The address of this host that others dial, and how it was found.
    pub advertised: Option<(String, &'static str)>,
}

/// Checks what a configuration names without starting: the files of tokens and TLS, the settings of the registry's URL and what is to be
/// registered there, and the state on disk. Changes nothing, and disturbs no agent that runs with the same configuration.
///
/// # Errors
/// What cannot be used.
pub async fn check(config: &Config) -> Result<Checked, StartError> {
    let settings = read_settings(config.clone(), Vec::new()).await?;
    let registry = connect(config)?;
    let mut notes: Vec<_> = settings.notes().map(str::to_owned).collect();
    let advertised = advertised(config, &registry)
        .inspect_err(|error| notes.push(unknown_host(error)))
        .ok();
    // Nothing was opened yet that could fail to close.
    let _ = registry.close().await;
    if let Some(state) = &config.state {
        notes.extend(Store::check(state).await?);
    }
    Ok(Checked { notes, advertised })
}
