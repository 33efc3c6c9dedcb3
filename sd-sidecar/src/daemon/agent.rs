//! All parts of the agent together: how it starts, is configured again, and ends in order.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use sd_backend::RegistryUrl;
use sd_core::{Address, Printable, Registry, RegistryConfig, advertised_address};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::api::{self, AgentName, ApiConfig, ApiState};
use super::config::{Config, ConfigError, Listen, StopConfig};
pub use super::control::StopRequest;
use super::control::{self, Control, Identity};
use super::gate::{Gate, Settings};
use super::lifecycle::Lifecycle;
use super::listener::Bound;
use super::metrics::Metrics;
use super::registrations::{self, How, LAST_WRITE, Leftover, Registrations};
use super::security::{BrowserRules, Tokens};
use super::server::Server;
use super::store::Store;
use super::{observer, tls};
use crate::checks::Commands;
use crate::systemd;

/// How long streams and requests may take to end at a stop.
const CONNECTIONS_WITHIN: Duration = Duration::from_secs(2);

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The registry's URL cannot be used, or the state on disk cannot.
    #[error("{}", .0.report())]
    Registry(#[from] sd_core::Error),
}

/// A running agent.
#[derive(Debug)]
pub struct Daemon {
    registrations: Registrations,
    gate: Arc<Gate>,
    server: Server,
    lifecycle: watch::Sender<Lifecycle>,
    stop: StopConfig,
    listen: Vec<Listen>,
    names: Vec<String>,
    _observer: AbortOnDropHandle<()>,
}

/// Callers' requests that the agent stop.
#[derive(Debug)]
pub struct StopRequests(mpsc::Receiver<StopRequest>);

impl StopRequests {
    /// Returns when a caller asks the agent to stop.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> StopRequest {
        match self.0.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}

/// What an agent that has stopped has left behind. Nothing, if all went well.
#[derive(Debug)]
#[must_use]
pub struct Stopped {
    /// The registrations that were neither deregistered nor left in order. They expire with their time-to-live.
    pub left: Vec<Leftover>,
    /// Why the state on disk is an older one, with which the next agent goes on: it may bring back what was deregistered.
    pub stale_state: Option<Arc<str>>,
}

/// What a reload may change, read from its files.
#[derive(Debug)]
pub struct Reloaded {
    settings: Settings,
    stop: StopConfig,
}

impl Daemon {
    /// Starts: opens the registry without waiting for it, binds the addresses, registers what is on disk, and then serves. Connections are
    /// driven by `http`, and everything else by the runtime that this is called on, so that no flood of requests delays a renewal. Also
    /// gives the requests to stop, which must be heard whatever else is done with the agent.
    ///
    /// # Errors
    /// What cannot be used of the configuration, its files, the state on disk and the addresses. Nothing is registered then.
    pub async fn start(config: &Config, http: &Handle) -> Result<(Self, StopRequests), StartError> {
        let registry = connect(config)?;
        let host = host(config, &registry);
        let names: Vec<String> = host.iter().cloned().chain(host_name()).collect();
        let settings = read_settings(config.clone(), names.clone()).await?;
        warn_of(&settings);
        let mut bound = Vec::new();
        for listen in &config.listen {
            let (listen, mode) = (listen.clone(), config.socket_mode);
            let task = http.spawn(async move { Bound::bind(&listen, mode).await });
            bound.push(
                task.await
                    .map_err(|error| ConfigError::new(error.to_string()))??,
            );
        }
        let listen: Vec<Listen> = bound.iter().map(|bound| bound.listen.clone()).collect();

        let in_consul = registrations::Identity {
            cluster: config.cluster_name.clone(),
            env: config.env.clone(),
            zone: config.zone.clone().unwrap_or_default(),
            host_ip: host.clone().unwrap_or_default(),
            run_id: uuid::Uuid::now_v7().to_string(),
            started_at: SystemTime::now(),
            routes: config.route_prefix.clone(),
        };
        let identity = identity(config, &in_consul, host.clone(), &listen);
        let wanted = registrations::Settings {
            advertised_host: host,
            zone: config.zone.clone(),
            allow_loopback: config.allow_loopback,
            commands: if config.check_commands {
                Commands::Allowed
            } else {
                Commands::Refused
            },
            most_registrations: config.limits.registrations,
            identity: Some(in_consul),
            ..registrations::Settings::default()
        };
        let registrations = match &config.state {
            Some(state) => Registrations::open(registry.clone(), wanted, state).await?,
            None => Registrations::with_settings(registry.clone(), wanted),
        };

        let (lifecycle, told) = watch::channel(Lifecycle::Starting);
        let (ask_to_stop, stop_asked) = mpsc::channel(1);
        let api_config = ApiConfig {
            most_body_bytes: config.limits.body,
            most_streams: config.limits.streams,
            strict_deregister: config.strict_deregister,
            ..ApiConfig::default()
        };
        let name = AgentName {
            id: identity.agent_id.clone(),
            run_id: identity.agent_run_id.clone(),
        };
        let state = ApiState::new(registrations.clone(), told.clone(), api_config).with_name(name);
        let control = Control {
            identity: Arc::new(identity),
            registrations: registrations.clone(),
            api: state.clone(),
            lifecycle: told,
            metrics: Metrics::of_this_process(),
            stop: ask_to_stop,
        };
        let router: Router = api::router(state).merge(control::router(control));
        let gate = Arc::new(Gate::new(
            router,
            Handle::current(),
            settings,
            config.limits.body,
        ));
        let server = Server::new(Arc::clone(&gate));
        {
            let _on = http.enter();
            for bound in bound {
                info!(address = %bound.listen, "listening");
                server.serve(bound);
            }
        }
        lifecycle.send_replace(Lifecycle::Running);
        let observer = observer::observe(registrations.clone(), registry, lifecycle.clone());
        let daemon = Self {
            registrations,
            gate,
            server,
            lifecycle,
            stop: config.stop,
            listen,
            names,
            _observer: AbortOnDropHandle::new(tokio::spawn(observer)),
        };
        Ok((daemon, StopRequests(stop_asked)))
    }

    /// Where it listens, with the ports that the system chose.
    pub fn listen(&self) -> &[Listen] {
        &self.listen
    }

    /// What it has registered.
    pub fn registrations(&self) -> &Registrations {
        &self.registrations
    }

    /// Reads what a reload may change. Nothing changes before [`reload`](Self::reload).
    ///
    /// # Errors
    /// Each file that cannot be used.
    pub async fn read_again(&self, config: &Config) -> Result<Reloaded, ConfigError> {
        Ok(Reloaded {
            settings: read_settings(config.clone(), self.names.clone()).await?,
            stop: config.stop,
        })
    }

    /// Goes on with what was read again. Says which files of tokens and TLS hold something else than before, and of tokens what.
    pub fn reload(&mut self, read: Reloaded) -> Vec<String> {
        let changed = self.gate.settings().changed_files(&read.settings);
        warn_of(&read.settings);
        self.gate.change(read.settings);
        self.stop = read.stop;
        changed
    }

    /// How long [`stop`](Self::stop) takes at most.
    pub fn stops_within(&self) -> Duration {
        CONNECTIONS_WITHIN + self.stop.drain + self.stop.within + 2 * LAST_WRITE
    }

    /// Stops: streams end, connections end, then everything is deregistered, or left if `keep` or else the configuration says so.
    /// Gives what is not as it should be then.
    pub async fn stop(self, keep: Option<bool>) -> Stopped {
        let keep = keep.unwrap_or(self.stop.keep);
        let begin = Instant::now();
        systemd::stopping(self.stops_within());
        self.lifecycle.send_replace(Lifecycle::Stopping);
        let noting = async {
            // This process may be killed at any moment from here on.
            if !keep {
                self.registrations.note_end().await;
            }
        };
        tokio::join!(noting, self.server.stop(CONNECTIONS_WITHIN));
        info!(took = ?begin.elapsed(), "connections have ended");
        let how = if keep { How::Keep } else { How::Deregister };
        if !keep && !self.stop.drain.is_zero() {
            self.registrations.drain_all(self.stop.drain).await;
        }
        let left = self.registrations.close(how, self.stop.within).await;
        for one in &left {
            warn!(record = ?one.record, why = %Printable(&one.why), "not in order at the stop: it expires with its time-to-live");
        }
        info!(took = ?begin.elapsed(), left = left.len(), ?how, "registrations have ended");
        let stale_state = self.registrations.state_trouble().borrow().clone();
        Stopped { left, stale_state }
    }
}

/// Opens the registry without waiting for it, and refuses what every registration would be refused for.
fn connect(config: &Config) -> Result<Registry, StartError> {
    let mut registry = RegistryConfig::default();
    registry.registration.ttl = config.ttl;
    registry.registration.withdraw_within =
        (config.stop.within / 4 * 3).max(Duration::from_millis(500));
    let registry = sd_any::connect_with(config.registry.expose(), registry)?;
    if let Some(registrar) = Arc::clone(registry.backend()).registrar() {
        let limits = registrar.limits();
        if !limits.ttl.contains(&config.ttl) {
            let text = humantime::format_duration;
            let why = format!(
                "{} is none that this registry takes: write {} to {}",
                text(config.ttl),
                text(*limits.ttl.start()),
                text(*limits.ttl.end())
            );
            return Err(config.wrong("ttl", why).into());
        }
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

fn identity(
    config: &Config,
    agent: &registrations::Identity,
    host: Option<String>,
    listen: &[Listen],
) -> Identity {
    Identity {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        agent_id: agent.agent_id(),
        agent_run_id: agent.run_id.clone(),
        started_at: humantime::format_rfc3339_seconds(agent.started_at).to_string(),
        registry: config.registry_url.to_string(),
        host,
        zone: config.zone.clone(),
        env: config.env.clone(),
        keeps_state: config.state.is_some(),
        listen: listen.iter().map(ToString::to_string).collect(),
    }
}

/// The host that others dial.
fn host(config: &Config, registry: &Registry) -> Option<String> {
    if config.advertise.is_some() {
        return config.advertise.clone();
    }
    // Only the port of what is returned is not ours.
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1));
    match advertised_address(any) {
        Ok(endpoint) => match endpoint.address() {
            Address::Tcp { host, .. } => Some((*host).to_owned()),
            _ => None,
        },
        // No other host reads it.
        Err(_) if registry.backend().name() == "memory" => Some(Ipv4Addr::LOCALHOST.to_string()),
        Err(error) => {
            warn!(error = %error.report(), "registrations must name their host, or advertise be set");
            None
        }
    }
}

/// Tells an operator what is not right about files that are taken all the same.
fn warn_of(settings: &Settings) {
    for note in settings.notes() {
        warn!("{note}");
    }
}

fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    (!name.is_empty()).then_some(name)
}

async fn read_settings(config: Config, names: Vec<String>) -> Result<Settings, ConfigError> {
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

/// Checks what a configuration names without starting: the files of tokens and TLS, the settings of the registry's URL and what is to be
/// registered there, and the state on disk. Changes nothing, and disturbs no agent that runs with the same configuration. Says what a start
/// would lose of a damaged state.
///
/// # Errors
/// What cannot be used.
pub async fn check(config: &Config) -> Result<Option<String>, StartError> {
    read_settings(config.clone(), Vec::new()).await?;
    let registry = connect(config)?;
    // Nothing was opened yet that could fail to close.
    let _ = registry.close().await;
    match &config.state {
        Some(state) => Ok(Store::check(state).await?),
        None => Ok(None),
    }
}
