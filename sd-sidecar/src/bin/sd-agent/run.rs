//! From the configuration to the end of the agent.

use std::io;
use std::ops::ControlFlow;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use sd_sidecar::daemon::agent::{Daemon, StartError, StopRequest, StopRequests, Stopped};
use sd_sidecar::daemon::config::{Config, ConfigError, Sources, Values};
use sd_sidecar::daemon::log::{Filter, LogControl};
use sd_sidecar::{open_files, systemd};
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::signals::{Signalled, Signals};

/// Two for each half: a host has many other things to do.
const THREADS: usize = 2;
/// Far more than look-ups of names and starts of programs can take for a long time, so that files are written all the same.
const BLOCKING_THREADS: usize = 128;
/// How long what still runs at the end may take: the checks, which kill their programs, and programs that are just starting. A look-up of
/// a host name, which nothing can end, is waited for no longer.
const TASKS_WITHIN: Duration = Duration::from_secs(1);
/// How long the files of a reload may take to be read, once for the configuration and once for what it names.
const READ_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn run(
    sources: Sources,
    values: Values,
    config: &Config,
) -> Result<ExitCode, StartError> {
    let log = LogControl::start(&config.log)?;
    open_files::raise();
    let agent = runtime("sd-agent")?;
    // Connections have threads of their own, so that a flood of requests leaves the renewals theirs.
    let http = runtime("sd-agent-http")?;
    let running = Running {
        sources,
        values,
        log,
    };
    let ended = agent.block_on(running.run(config, &http));
    http.shutdown_background();
    // However it ended, no program of a check outlives the agent: each is killed when its task is dropped.
    agent.shutdown_timeout(TASKS_WITHIN);
    ended
}

fn runtime(name: &'static str) -> Result<Runtime, ConfigError> {
    Ok(Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
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
        let (mut daemon, requests) = tokio::select! {
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
        let mut asking = Asking { signals, requests };
        let StopRequest { keep } = loop {
            match asking.next().await {
                Asked::ToStop(how) => break how,
                Asked::ToReload => {
                    let reload = async || self.reload(&mut daemon).await;
                    let reloaded = until_stopped(reload, async || asking.next().await);
                    if let ControlFlow::Break(how) = reloaded.await {
                        break how;
                    }
                }
            }
        };
        info!("stopping");
        let limit = daemon.stops_within() + Duration::from_secs(5);
        let status = tokio::select! {
            Stopped { left, stale_state } = daemon.stop(keep) => {
                if !left.is_empty() {
                    error!(registrations = left.len(), "not everything was deregistered");
                }
                if let Some(why) = &stale_state {
                    error!(%why, "the state on disk is an older one: the next agent may bring back what was deregistered");
                }
                if left.is_empty() && stale_state.is_none() {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                }
            }
            () = asking.signals.insisted() => {
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
            Err(Refused { why, also }) => {
                error!(
                    error = %why,
                    also_not_taken = %also,
                    "not reloaded: nothing of it is taken, neither keys nor files of tokens and TLS, and what was in effect stays"
                );
                systemd::ready(&format!("not reloaded: {why}"));
            }
        }
    }

    async fn reloaded(&mut self, daemon: &mut Daemon) -> Result<(), Refused> {
        let (sources, in_effect) = (self.sources.clone(), self.values.clone());
        let read = spawn_blocking(move || {
            let values = sources.read()?;
            // All of it must be right for the next start, and what can be taken now must be right together with what stays.
            Config::new(&values)?;
            let config = Config::new(&in_effect.with_reloaded(&values))?;
            Ok((values, config))
        });
        let (values, config) = in_time(read)
            .await?
            .unwrap_or_else(|error| Err(ConfigError::from(io::Error::other(error))))?;
        let (taken, later): (Vec<_>, Vec<_>) = self
            .values
            .changed(&values)
            .into_iter()
            .map(|key| (key.name, key.reload))
            .partition(|(_, reload)| *reload);
        let [mut taken, later] = [taken, later].map(|keys| {
            keys.into_iter()
                .map(|(name, _)| name.to_owned())
                .collect::<Vec<_>>()
        });
        let refused = |why: ConfigError| Refused {
            why,
            also: told(&taken),
        };
        let read = in_time(daemon.read_again(&config)).await;
        let read = read.and_then(|read| read).map_err(refused)?;
        let filter = Filter::new(&config.log.level).map_err(refused)?;
        let files = daemon.reload(read);
        // A file says it in more words than its key.
        taken.retain(|key| !files.iter().any(|file| file.starts_with(key.as_str())));
        taken.extend(files);
        let tell = || {
            info!(taken = %told(&taken), "reloaded");
            if !later.is_empty() {
                warn!(keys = %told(&later), "these take effect at the next start only");
            }
        };
        // Once less is logged, this may be too much.
        let is_heard = tracing::enabled!(tracing::Level::INFO);
        if is_heard {
            tell();
        }
        self.log.change(filter);
        if !is_heard {
            tell();
        }
        // The keys for the next start are told again at the next reload: they are still not in effect.
        self.values = self.values.with_reloaded(&values);
        Ok(())
    }
}

/// Why nothing of a changed configuration is taken.
struct Refused {
    why: ConfigError,
    /// The keys that would have been taken otherwise, as far as they are known.
    also: String,
}

impl From<ConfigError> for Refused {
    fn from(why: ConfigError) -> Self {
        Self {
            why,
            also: "unknown".to_owned(),
        }
    }
}

/// What changed, on one line.
fn told(changed: &[String]) -> String {
    if changed.is_empty() {
        return "nothing".to_owned();
    }
    changed.join(", ")
}

/// All that can ask the agent for something. A reload does not hold it, so that none can hold up a stop.
struct Asking {
    signals: Signals,
    requests: StopRequests,
}

/// What a signal or a caller asks for.
enum Asked {
    ToStop(StopRequest),
    ToReload,
}

impl Asking {
    /// Waits for the next one. Cancel-safe.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            signal = self.signals.next() => match signal {
                Signalled::ToStop => Asked::ToStop(StopRequest::default()),
                Signalled::ToReload => Asked::ToReload,
            },
            how = self.requests.next() => Asked::ToStop(how),
        }
    }
}

/// Reloads, and again if that was asked for meanwhile. Breaks off, with everything as it was, if the agent is asked to stop.
async fn until_stopped(
    mut reload: impl AsyncFnMut(),
    mut asked: impl AsyncFnMut() -> Asked,
) -> ControlFlow<StopRequest> {
    loop {
        let mut again = false;
        let mut reload = pin!(reload());
        loop {
            tokio::select! {
                () = &mut reload => break,
                asked = asked() => match asked {
                    Asked::ToStop(how) => return ControlFlow::Break(how),
                    // The files may have changed since they were read.
                    Asked::ToReload => again = true,
                },
            }
        }
        if !again {
            return ControlFlow::Continue(());
        }
    }
}

/// Waits for files, which may be those of a server that does not answer.
async fn in_time<F: Future>(reading: F) -> Result<F::Output, ConfigError> {
    timeout(READ_WITHIN, reading).await.map_err(|_| {
        let text = format!("the files could not be read within {READ_WITHIN:?}");
        ConfigError::from(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reload_that_hangs_holds_up_no_stop_by_signal_or_caller_and_one_that_is_asked_for_meanwhile_follows()
     {
        let limit = Duration::from_secs(1);
        let how = StopRequest { keep: Some(true) };
        let stopped = until_stopped(async || pending().await, async || Asked::ToStop(how));
        assert_eq!(
            timeout(limit, stopped).await.unwrap(),
            ControlFlow::Break(how)
        );

        let (mut reloads, mut asks) = (0, 0);
        let reload = async || {
            reloads += 1;
            tokio::time::sleep(limit).await;
        };
        let ask = async || {
            asks += 1;
            if asks > 2 {
                pending::<()>().await;
            }
            Asked::ToReload
        };
        assert!(until_stopped(reload, ask).await.is_continue());
        assert_eq!(reloads, 2);

        let waited = in_time(pending::<()>()).await.unwrap_err();
        assert!(waited.to_string().contains("within 10s"), "{waited}");
    }
}
