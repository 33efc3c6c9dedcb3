//! The agent as a process sees it: all parts put together.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::OptionFuture;
use sd_core::{Events, panics, retry::Backoff};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::api_client::ApiClient;
use super::config::{AgentConfig, DEFAULT_WATCH_PATH, OnLifecycleFailure, RunConfig};
use super::controller::Controller;
use super::error::{AgentError, AgentRunError, LifecycleRunError, Result, Stage};
use super::error_thread::Errors;
use super::event::ConnectionEvent;
use super::exit::{Exit, Serving};
use super::http::HttpClient;
use super::parts::{Client, ErrorHandler, EventSource};
use super::runner::Runner;
use super::service::ServiceHandle;
use super::status::Status;
use super::watch_source::WatchSource;
use crate::wire::ServiceNode;

/// Pauses before the agent is watched again after that has failed for good.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Keeps the services of a process registered at the agent of its host. The [module](super) says how.
///
/// When it is dropped, the agent is watched no more; what is registered stays so. [`run`](Self::run) and [`shutdown`](Self::shutdown)
/// end it in order.
pub struct Agent {
    config: AgentConfig,
    source: Arc<dyn EventSource>,
    controller: Arc<Controller>,
    service: u64,
    run: Mutex<RunConfig>,
    started: Mutex<Option<Started>>,
    stop: CancellationToken,
    /// The handler may be replaced while errors are handled.
    on_error: Arc<Mutex<Option<ErrorHandler>>>,
    _stop_on_drop: DropGuard,
}

struct Started {
    task: Option<JoinHandle<()>>,
    lifecycle: Lifecycle,
}

/// The watching of an agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lifecycle(watch::Receiver<Option<std::result::Result<(), LifecycleRunError>>>);

impl Lifecycle {
    /// Waits until the agent is watched no more, and says why.
    ///
    /// # Errors
    /// It cannot be watched.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn ended(&mut self) -> std::result::Result<(), LifecycleRunError> {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(LifecycleRunError(AgentError::own(
                "the runtime is shutting down",
            ))),
        }
    }
}

/// Asks at `url`, with what `config` says of all addresses.
fn client(url: &str, config: &AgentConfig) -> Result<HttpClient> {
    let mut http = HttpClient::new(url, config.request_timeout)?;
    #[cfg(feature = "tls")]
    if let Some(tls) = &config.tls {
        http = http.with_tls(tls.clone())?;
    }
    if let Some(token) = config.token() {
        http = http.with_token(token)?;
    }
    Ok(http)
}

impl Agent {
    /// Keeps `node` registered at an agent that is asked over HTTP. With the feature `tls`, it reads the files of TLS that `config` names,
    /// and blocks while it does, for no longer than a request may take.
    ///
    /// # Errors
    /// `Invalid` says which field, address or file is wrong.
    pub fn new(node: ServiceNode, config: AgentConfig) -> Result<Self> {
        let config = config.normalized();
        let http = client(&config.base_url, &config)?;
        let source = match config.watch_url.as_str() {
            "" => WatchSource::new(http.clone(), DEFAULT_WATCH_PATH, config.reconnect_interval),
            url => WatchSource::new(client(url, &config)?, "", config.reconnect_interval),
        };
        let client = ApiClient::new(http).with_dialect(config.dialect);
        let source = source.with_silence(config.silence);
        Self::with_parts(node, config, Arc::new(client), Arc::new(source))
    }

    /// Keeps `node` registered with parts of one's own. The addresses of `config` count for nothing then.
    ///
    /// # Errors
    /// `Invalid` says which field is wrong.
    pub fn with_parts(
        node: ServiceNode,
        config: AgentConfig,
        client: Arc<dyn Client>,
        source: Arc<dyn EventSource>,
    ) -> Result<Self> {
        let controller = Arc::new(Controller::new(client));
        let service = controller.add(node)?;
        let stop = CancellationToken::new();
        Ok(Self {
            config: config.normalized(),
            source,
            controller,
            service,
            run: Mutex::default(),
            started: Mutex::default(),
            on_error: Arc::default(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        })
    }

    /// The service that the agent was made with.
    pub fn service(&self) -> ServiceHandle {
        ServiceHandle::new(Arc::clone(&self.controller), self.service)
    }

    /// Keeps another service of this process registered as well.
    ///
    /// # Errors
    /// As [`Controller::add`].
    pub fn add(&self, node: ServiceNode) -> Result<ServiceHandle> {
        let service = self.controller.add(node)?;
        Ok(ServiceHandle::new(Arc::clone(&self.controller), service))
    }

    /// What the services are asked for with.
    pub fn controller(&self) -> &Arc<Controller> {
        &self.controller
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.controller.status()
    }

    /// How it stands, now and after every change.
    pub fn status_changes(&self) -> watch::Receiver<Status> {
        self.controller.status_changes()
    }

    /// The events of the connection from now on. The newest 64 are kept for a listener that is slow.
    pub fn events(&self) -> Events<ConnectionEvent> {
        self.controller.events()
    }

    /// Takes over what `config` sets. What [`run`](Self::run) has begun already goes on as it is.
    pub fn configure_run(&self, config: RunConfig) {
        let mut run = lock(&self.run);
        run.merge(config);
        lock(&self.on_error).clone_from(&run.on_error);
    }

    /// Begins to watch the agent and to register what is wanted, unless that has begun. Outside a tokio runtime it has failed at once.
    pub fn start(&self) -> Lifecycle {
        if Handle::try_current().is_err() {
            let error = AgentError::Invalid(
                "an agent is watched on a tokio runtime: start it there".to_owned(),
            );
            let (_, ended) = watch::channel(Some(Err(LifecycleRunError(error))));
            return Lifecycle(ended);
        }
        let mut started = lock(&self.started);
        let started = started.get_or_insert_with(|| self.spawn());
        started.lifecycle.clone()
    }

    fn spawn(&self) -> Started {
        let handler = Arc::clone(&self.on_error);
        let on_error: ErrorHandler = Arc::new(move |error| {
            let handler = lock(&handler).clone();
            if let Some(handler) = handler {
                handler(error);
            }
        });
        let runner = Runner::new(Arc::clone(&self.source), Arc::clone(&self.controller), None);
        let (outcome, lifecycle) = watch::channel(None);
        let policy = self.config.on_lifecycle_failure;
        let (controller, stop) = (Arc::clone(&self.controller), self.stop.clone());
        let task = tokio::spawn(async move {
            let errors = Errors::new(Some(on_error));
            let ended = watch_agent(&runner, &controller, &errors, policy, &stop).await;
            controller.end_connection();
            outcome.send_replace(Some(ended.map_err(LifecycleRunError)));
        });
        Started {
            task: Some(task),
            lifecycle: Lifecycle(lifecycle),
        }
    }

    /// Watches the agent, does the process's own work, and ends in order once `until` does, or the work: drains, waits for the grace
    /// period or until no call is under way, ends the work, stops watching the agent, deregisters. Each step has its time, and none is
    /// left out because another failed.
    ///
    /// # Errors
    /// All that failed, with the stages.
    ///
    /// # Cancel safety
    /// If the future is dropped, the process's own work ends at once, and the agent is watched until this is dropped.
    pub async fn run(
        &self,
        until: impl Future<Output = ()>,
    ) -> std::result::Result<(), AgentRunError> {
        let mut lifecycle = self.start();
        let serve = lock(&self.run).serve.take();
        let stop_work = CancellationToken::new();
        let mut serving = serve.map(|serve| {
            let stop = stop_work.clone();
            Serving::spawn(async move { serve(stop).await })
        });
        let mut failures = Vec::new();
        let mut until = pin!(until);
        let mut is_watched = true;
        let mut has_ended_itself = false;
        loop {
            tokio::select! {
                () = &mut until => break,
                Some(served) = OptionFuture::from(serving.as_mut()) => {
                    serving = None;
                    has_ended_itself = true;
                    failures.extend(served.err().map(|error| (Stage::Serve, error)));
                    break;
                }
                ended = lifecycle.ended(), if is_watched => {
                    is_watched = false;
                    let failed = ended.is_err() && self.config.on_lifecycle_failure == OnLifecycleFailure::Exit;
                    let is_over = failed || serving.is_none();
                    if is_over {
                        failures.extend(ended.err().map(|LifecycleRunError(error)| (Stage::Lifecycle, error)));
                        break;
                    }
                }
            }
        }
        let mut exit = self.exit(failures);
        exit.drain().await;
        if !has_ended_itself {
            exit.wait_for_calls(serving.as_mut()).await;
        }
        stop_work.cancel();
        exit.end_work(serving).await;
        self.stop_watching().await;
        exit.deregister().await;
        exit.outcome()
    }

    /// Drains, waits for the grace period or until no call is under way, stops watching the agent, deregisters: for a process that runs
    /// its own work without [`run`](Self::run), and ends it afterwards. Without a grace period there is no drain.
    ///
    /// # Errors
    /// All that failed.
    ///
    /// # Cancel safety
    /// If the future is dropped, what is left of it is not done.
    pub async fn shutdown(&self) -> std::result::Result<(), AgentRunError> {
        let mut exit = self.exit(Vec::new());
        exit.drain().await;
        exit.wait_for_calls(None).await;
        self.stop_watching().await;
        exit.deregister().await;
        exit.outcome()
    }

    /// Asks the agent to have others send no more calls, for each service. They go on draining if the agent is restarted. The agent
    /// deregisters them after the grace period, where it keeps to that.
    ///
    /// # Errors
    /// The services that may still get calls, each with the reason.
    pub async fn drain(&self) -> std::result::Result<(), AgentRunError> {
        let drained = self.controller.drain(self.grace_period()).await;
        self.checked(drained)
    }

    /// Asks the agent to take each service out of the registry. No connection that begins later registers them again.
    ///
    /// # Errors
    /// The services that may still be registered, each with the reason.
    pub async fn deregister(&self) -> std::result::Result<(), AgentRunError> {
        let gone = self.controller.deregister().await;
        self.checked(gone)
    }

    fn checked(
        &self,
        done: std::result::Result<(), Vec<AgentError>>,
    ) -> std::result::Result<(), AgentRunError> {
        let mut exit = self.exit(Vec::new());
        exit.note(Stage::AgentShutdown, done);
        exit.outcome()
    }

    fn grace_period(&self) -> Option<Duration> {
        lock(&self.run)
            .grace_period
            .filter(|grace| !grace.is_zero())
            .or(self.config.grace_period)
    }

    fn exit(&self, failures: Vec<(Stage, AgentError)>) -> Exit<'_> {
        let grace = self.grace_period();
        Exit::new(&self.controller, &self.config, grace, &self.run, failures)
    }

    /// Waits for the answer of what is under way, so that nothing is registered afterwards.
    async fn stop_watching(&self) {
        self.stop.cancel();
        let task = lock(&self.started)
            .as_mut()
            .and_then(|started| started.task.take());
        if let Some(task) = task {
            // A panic has been told by its hook.
            let _ = task.await;
        }
    }
}

/// Watches the agent until that ends, or `policy` has a failure end it.
async fn watch_agent(
    runner: &Runner,
    controller: &Controller,
    errors: &Errors,
    policy: OnLifecycleFailure,
    stop: &CancellationToken,
) -> Result<()> {
    let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        // A source or a client of one's own may panic.
        let run = panics::caught("watch the agent", async {
            Ok(runner.run_telling(errors, stop).await)
        });
        let error = match run.await {
            Ok(Ok(())) if stop.is_cancelled() => return Ok(()),
            Ok(Ok(())) => AgentError::WatchStreamClosed,
            Ok(Err(error)) => error,
            Err(panicked) => AgentError::Registry(panicked),
        };
        controller.end_connection();
        controller.record_error(&error);
        tracing::warn!(%error, "the agent cannot be watched");
        if policy == OnLifecycleFailure::Exit {
            return Err(error);
        }
        errors.tell(error);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(pauses.next_delay()) => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("config", &self.config)
            .field("controller", &self.controller)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
