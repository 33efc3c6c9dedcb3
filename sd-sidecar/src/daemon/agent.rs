//! All parts of the agent together: how it starts, is configured again, and ends in order.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use sd_core::Printable;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
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
use super::observer;
pub use super::preparing::{Checked, check};
use super::preparing::{advertised, connect, read_settings, unknown_host};
use super::registrations::{self, How, LAST_WRITE, Leftover, Registrations};
use super::server::Server;
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
        let host = match advertised(config, &registry) {
            Ok((host, _)) => Some(host),
            Err(error) => {
                warn!("{}", unknown_host(&error));
                None
            }
        };
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
