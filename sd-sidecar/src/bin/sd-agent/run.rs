//! From the configuration to the end of the agent.

use std::process::ExitCode;
use std::time::Duration;

use sd_sidecar::daemon::agent::{Daemon, StartError};
use sd_sidecar::daemon::config::{Config, ConfigError, Sources, Values};
use sd_sidecar::daemon::log::LogControl;
use sd_sidecar::daemon::systemd;
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::signals::{Asked, Signals};

/// Two for each half: a host has many other things to do.
const THREADS: usize = 2;

pub(crate) fn run(
    sources: Sources,
    values: Values,
    config: &Config,
) -> Result<ExitCode, StartError> {
    let log = LogControl::start(&config.log)?;
    raise_open_files();
    let agent = runtime("sd-agent")?;
    // Connections have threads of their own, so that a flood of requests leaves the renewals theirs.
    let http = runtime("sd-agent-http")?;
    let running = Running {
        sources,
        values,
        log,
    };
    let ended = agent.block_on(running.run(config, &http));
    // A look-up of a host name may still hang in a thread that nothing can end.
    http.shutdown_background();
    agent.shutdown_background();
    ended
}

fn runtime(name: &'static str) -> Result<Runtime, ConfigError> {
    Ok(Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(16)
        .thread_name(name)
        .enable_all()
        .build()?)
}

struct Running {
    sources: Sources,
    values: Values,
    log: LogControl,
}

impl Running {
    async fn run(mut self, config: &Config, http: &Runtime) -> Result<ExitCode, StartError> {
        // From here on they do not end the process by themselves.
        let mut signals = Signals::listen().map_err(ConfigError::from)?;
        let starting = Daemon::start(config, http.handle());
        let mut daemon = tokio::select! {
            started = starting => started?,
            // Nothing is served yet. What was registered again stays for the next start.
            () = signals.stop() => return Ok(ExitCode::SUCCESS),
        };
        info!(registry = %config.registry_url, version = env!("CARGO_PKG_VERSION"), "ready");
        systemd::ready("ready");
        let watchdog = tokio::spawn(systemd::watchdog(vec![
            tokio::runtime::Handle::current(),
            http.handle().clone(),
        ]));
        let keep = loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::ToStop => break None,
                    Asked::ToReload => self.reload(&mut daemon).await,
                },
                asked = daemon.stop_asked() => break asked.keep,
            }
        };
        info!("stopping");
        let limit = daemon.stops_within() + Duration::from_secs(5);
        let status = tokio::select! {
            left = daemon.stop(keep) => {
                if left.is_empty() {
                    ExitCode::SUCCESS
                } else {
                    error!(registrations = left.len(), "not everything was deregistered");
                    ExitCode::FAILURE
                }
            }
            () = signals.insisted() => {
                warn!("asked to stop again: ending now");
                ExitCode::FAILURE
            }
            () = tokio::time::sleep(limit) => {
                error!("the agent did not stop in time");
                ExitCode::FAILURE
            }
        };
        watchdog.abort();
        Ok(status)
    }

    /// Takes what can be taken of a changed configuration. What is wrong with it leaves everything as it was.
    async fn reload(&mut self, daemon: &mut Daemon) {
        systemd::reloading();
        match self.reloaded(daemon).await {
            Ok(()) => systemd::ready("reloaded"),
            Err(error) => {
                error!(%error, "the configuration was not reloaded: the old one stays");
                systemd::ready(&format!("not reloaded: {error}"));
            }
        }
    }

    async fn reloaded(&mut self, daemon: &mut Daemon) -> Result<(), ConfigError> {
        let (sources, in_effect) = (self.sources.clone(), self.values.clone());
        let read = spawn_blocking(move || {
            let values = sources.read()?;
            // All of it must be right for the next start, and what can be taken now must be right together with what stays.
            Config::new(&values)?;
            let config = Config::new(&in_effect.with_reloaded(&values))?;
            Ok((values, config))
        });
        let (values, config) = read
            .await
            .unwrap_or_else(|error| Err(ConfigError::from(std::io::Error::other(error))))?;
        let read = daemon.read_again(&config).await?;
        self.log.change(&config.log.level)?;
        daemon.reload(read);
        let (taken, later): (Vec<_>, Vec<_>) = self
            .values
            .changed(&values)
            .into_iter()
            .partition(|key| key.reload);
        let names = |keys: Vec<&sd_sidecar::daemon::config::Key>| {
            keys.iter()
                .map(|key| key.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        info!(changed = %names(taken), "reloaded, with the files of tokens and TLS");
        if !later.is_empty() {
            warn!(keys = %names(later), "these take effect at the next start only");
        }
        // The keys for the next start are told again at the next reload: they are still not in effect.
        self.values = self.values.with_reloaded(&values);
        Ok(())
    }
}

/// Connections and streams are open files, of which the usual limit is low.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files cannot be raised");
    }
}
