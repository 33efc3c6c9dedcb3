//! The service as its owner holds it.

use std::net::SocketAddr;
#[cfg(feature = "server-sqlite")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sd_backend::FileThread;
use sd_core::{Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::info;

use super::admin::{self, Admin};
use super::limits::Limits;
use super::listener::Acceptor;
use super::owner::Owner;
use super::places::Places;
use super::session::Host;
use super::state::{Author, KnownModule, State, StoredConfig, Variable, VariableView};
use super::store::Place;
use super::tls::ServerTls;
use crate::etp::connection::Times;
use crate::etp::in_flight::InFlight;
use crate::protocol::declaration::{BackendDeclaration, MetricsAutodiscovery};

const START: &str = "config service: start";
const READ: &str = "config service: read";

const PING_EVERY: Duration = Duration::from_secs(3);
/// Pings that may stay without any sign of life, and one period more in which the last answer may come.
const PERIODS: u32 = 3;

/// The longest pause of a client of this crate, 30 s, and the time in which it connects and registers.
const RETURN_WITHIN: Duration = Duration::from_secs(45);

/// Settings of a [`ConfigService`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    limits: Limits,
    ping_every: Duration,
    return_within: Duration,
    place: Place,
}

impl Builder {
    /// Sets what is let in and kept at most.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the time from one ping to the next. 3 s by default, at least 100 ms. A module of which nothing comes for three of them is
    /// removed.
    pub fn ping_every(mut self, every: Duration) -> Self {
        self.ping_every = every;
        self
    }

    /// Sets how long instances that were listed when the service ended are listed after it was started again, unless they are back before.
    /// They are known from the file. 45 s by default: clients of this crate pause for 30 s at most, and then connect and register.
    pub fn return_within(mut self, within: Duration) -> Self {
        self.return_within = within;
        self
    }

    /// Keeps configurations, schemas and variables in an SQLite file, which is made if it is not there, and which instances are listed.
    /// This process has it alone. By default all is gone with the process.
    #[cfg(feature = "server-sqlite")]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.place = Place::File(path.into());
        self
    }

    /// Reads the file, if there is one, and starts the service. Nothing is listened to yet.
    ///
    /// # Errors
    /// `InvalidInput` for settings that cannot work; `Conflict` if another process has the file, `InvalidData` if it is damaged,
    /// `Unavailable` if it cannot be opened.
    ///
    /// # Cancel safety
    /// A dropped call starts nothing, but may leave a new, empty file.
    pub async fn start(self) -> Result<ConfigService> {
        self.check_settings()?;
        let limits = self.limits.clone();
        let (place, most) = (self.place, limits.stored_bytes);
        // Beside the runtime: a file can hang.
        let files = FileThread::default();
        let opened = files.run(START, move || place.open(most)).await?;
        let (store, kept) = opened?;
        let places = Places::new(limits.connections, limits.connections_per_peer);
        let in_flight = InFlight::new(limits.in_flight_bytes, limits.in_flight_bytes_per_peer);
        let state = State::new(limits, store, kept);
        let is_expecting = state.is_expecting();
        let stop = CancellationToken::new();
        let owner = Owner::start(state, stop.clone())
            .map_err(|error| Error::new(ErrorKind::Unavailable, START).with_source(error))?;
        let tasks = TaskTracker::new();
        if is_expecting {
            tasks.spawn(stop_expecting(
                owner.clone(),
                self.return_within,
                stop.clone(),
            ));
        }
        let times = Times {
            ping_every: self.ping_every,
            silent_after: self.ping_every.saturating_mul(PERIODS),
        };
        Ok(ConfigService {
            acceptor: Acceptor {
                host: Host {
                    owner,
                    times,
                    stop: stop.clone(),
                    in_flight,
                    no_room: Arc::default(),
                },
                places,
                told: Arc::default(),
                tasks,
            },
            _stop_on_drop: Some(Arc::new(stop.drop_guard())),
        })
    }

    /// Reads the file, if one is set, as [`start`](Self::start) does, and says what would keep the service from starting. It changes nothing:
    /// a file of an older version stays one.
    ///
    /// # Errors
    /// Those of [`start`](Self::start). `Unavailable` also if the file is not there.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn check(self) -> Result<()> {
        self.check_settings()?;
        let files = FileThread::default();
        files.run(START, move || self.place.check()).await?
    }

    fn check_settings(&self) -> Result<()> {
        if self.ping_every < Duration::from_millis(100) {
            return Err(Error::invalid_input(
                START,
                "ping_every: at least 100ms, so that a module has time to answer",
            ));
        }
        Ok(())
    }
}

/// Lists instances of the last run no longer that are not back in time.
async fn stop_expecting(owner: Owner, within: Duration, stop: CancellationToken) {
    let Some(()) = stop.run_until_cancelled(sleep(within)).await else {
        return;
    };
    let gone = owner.call("config service: start", State::stop_expecting);
    if let Ok(1..) = gone.await {
        info!(
            "modules that were there before the service was started again are listed no longer: they are not back"
        );
    }
}

/// A config service. A cheap clone; when the last one is dropped, the service stops.
///
/// # Errors
/// Each method can fail with `Closed` if the service has broken down.
///
/// # Cancel safety
/// A dropped call may have done its work.
#[derive(Clone, Debug)]
pub struct ConfigService {
    acceptor: Acceptor,
    /// What serves operators has none.
    _stop_on_drop: Option<Arc<DropGuard>>,
}

impl ConfigService {
    /// A service in memory with the default [`Limits`], unless it is told otherwise.
    pub fn builder() -> Builder {
        Builder {
            limits: Limits::default(),
            ping_every: PING_EVERY,
            return_within: RETURN_WITHIN,
            place: Place::Memory,
        }
    }

    /// Accepts modules until the service stops, on the runtime that this is called on. May be called for several listeners.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn serve(&self, listener: TcpListener) {
        let acceptor = self.acceptor.clone();
        self.acceptor.tasks.spawn(acceptor.accept(listener, None));
    }

    /// As [`serve`](Self::serve), over TLS: for modules of this crate, and others that speak `wss`. The client of isp-kit in Go does not.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn serve_tls(&self, listener: TcpListener, tls: ServerTls) {
        let acceptor = self.acceptor.clone();
        self.acceptor
            .tasks
            .spawn(acceptor.accept(listener, Some(tls)));
    }

    /// Listens at an address, and [serves](Self::serve) it. Returns where it is, for a port of 0.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be listened at.
    pub async fn listen(&self, address: SocketAddr) -> Result<SocketAddr> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "config service: listen")
                .because(format!("{address}: {error}"))
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        self.serve(listener);
        Ok(address)
    }

    /// Serves the HTTP API for operators until the service stops, on the runtime that this is called on: see [`admin`](super::admin).
    ///
    /// # Errors
    /// `InvalidInput` if other hosts reach the listener and no token is set. `Unavailable` if the listener is of no use.
    pub fn serve_admin(&self, listener: TcpListener, admin: Admin) -> Result<()> {
        let address = listener.local_addr().map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                "config service: listen for operators",
            )
            .with_source(error)
        })?;
        admin.check_listener(address)?;
        let acceptor = self.acceptor.clone();
        let (tasks, stop) = (acceptor.tasks.clone(), acceptor.host.stop.clone());
        let asked = Self {
            acceptor,
            _stop_on_drop: None,
        };
        self.acceptor
            .tasks
            .spawn(admin::serve(listener, asked, admin, tasks, stop));
        Ok(())
    }

    /// Closes all connections in order and at once, and waits until they have ended: about a second at most, unless its file hangs. What
    /// was written is kept.
    ///
    /// # Cancel safety
    /// Safe: the service stops all the same.
    pub async fn stop(&self) {
        self.acceptor.host.stop.cancel();
        self.acceptor.tasks.close();
        self.acceptor.tasks.wait().await;
        let close = |state: &mut State| state.close();
        // Fails only where there is nothing to close.
        let _ = self
            .acceptor
            .host
            .owner
            .call("config service: stop", close)
            .await;
    }

    /// Returns when the service has done all that was asked of it before. A supervisor finds out with it, and a deadline of its own, whether
    /// the service makes progress.
    ///
    /// # Errors
    /// `Closed`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn responds(&self) -> Result<()> {
        self.call(|_| Ok(())).await
    }

    /// Returns when the service has broken down by a bug, after which it only answers `Closed`. A program that runs nothing else ends then,
    /// so that it is started again. Otherwise it does not return.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ended(&self) {
        self.acceptor.host.owner.ended().await;
    }

    /// All modules that are connected or have a configuration, by name.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn modules(&self) -> Result<Vec<KnownModule>> {
        self.call(|state| Ok(state.view_modules())).await
    }

    /// One module.
    ///
    /// # Errors
    /// `NotFound` if there is none of this name.
    pub async fn module(&self, name: &str) -> Result<KnownModule> {
        let name = name.to_owned();
        self.call(move |state| state.view_module(&name)).await
    }

    /// What all instances have declared, the newest first, as modules that follow the routes are told.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn routes(&self) -> Result<Vec<BackendDeclaration>> {
        self.call(|state| Ok(state.view_routes())).await
    }

    /// Where instances have their metrics, by module.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn metrics_targets(&self) -> Result<Vec<MetricsAutodiscovery>> {
        self.call(|state| Ok(state.view_metrics())).await
    }

    /// The versions that are kept of a module's configuration, the newest first, which is the one that the module gets.
    ///
    /// # Errors
    /// `NotFound` if there is no such module.
    pub async fn configs(&self, module: &str) -> Result<Vec<StoredConfig>> {
        let module = module.to_owned();
        self.call(move |state| state.configs(&module)).await
    }

    /// Writes a module's configuration, and sends it to the module if it is connected, and else when it connects. Returns its version:
    /// that of the newest one if that is the same text. Pass `expected` to change no other version than the one that was read; 0 stands
    /// for none.
    ///
    /// # Errors
    /// `InvalidInput` if no module can have this name, and if it is no JSON, uses variables that are not defined, has more than about 4 MiB
    /// with them, or does not fit the schema that the module has sent: then it says where, and which rule is broken. `Conflict` if the
    /// newest version is not `expected`. `Unavailable` if there is no room for it.
    pub async fn set_config(&self, module: &str, json: &str, expected: Option<u32>) -> Result<u32> {
        self.write_config(module, json, expected, Author::Operator)
            .await
    }

    /// As [`set_config`](Self::set_config), but whether or not it fits the schema of the module.
    ///
    /// # Errors
    /// Those of [`set_config`](Self::set_config) that do not come from the schema.
    pub async fn force_config(
        &self,
        module: &str,
        json: &str,
        expected: Option<u32>,
    ) -> Result<u32> {
        self.write_config(module, json, expected, Author::OperatorByForce)
            .await
    }

    async fn write_config(
        &self,
        module: &str,
        json: &str,
        expected: Option<u32>,
        author: Author,
    ) -> Result<u32> {
        let (module, json) = (module.to_owned(), json.to_owned());
        self.call(move |state| state.set_config(&module, &json, expected, author))
            .await
    }

    /// Sends a module its configuration again.
    ///
    /// # Errors
    /// `NotFound` if there is no such module, or it has none.
    pub async fn resend_config(&self, module: &str) -> Result<()> {
        let module = module.to_owned();
        self.call(move |state| state.resend_config(&module)).await
    }

    /// Forgets a module with its configuration.
    ///
    /// # Errors
    /// `NotFound` if there is no such module, `Conflict` if it is connected, `Unavailable` if it cannot be removed.
    pub async fn delete_module(&self, module: &str) -> Result<()> {
        let module = module.to_owned();
        self.call(move |state| state.delete_module(&module)).await
    }

    /// All variables, by name.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn variables(&self) -> Result<Vec<VariableView>> {
        self.call(|state| Ok(state.view_variables())).await
    }

    /// Writes a variable, and sends their configurations to the modules that use it. Whether these still fit their schemas is not checked:
    /// what does not is refused by its module.
    ///
    /// # Errors
    /// `InvalidInput` if no configuration can name it, `Unavailable` if there is no room for it.
    pub async fn set_variable(&self, name: &str, variable: Variable) -> Result<()> {
        let name = name.to_owned();
        self.call(move |state| state.set_variable(&name, variable))
            .await
    }

    /// Deletes a variable.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Conflict` if a configuration uses it, `Unavailable` if it cannot be removed.
    pub async fn delete_variable(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.call(move |state| state.delete_variable(&name)).await
    }

    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.acceptor.host.owner.call(READ, work).await?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use sd_testing::{LONG, Log, eventually};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    /// Has the thread stuck until the sender is dropped.
    async fn block(service: &ConfigService) -> (mpsc::Sender<()>, JoinHandle<Result<bool>>) {
        let (go_on, stuck) = mpsc::channel::<()>();
        let blocked = {
            let service = service.clone();
            tokio::spawn(async move {
                let block = move |_: &mut State| Ok(stuck.recv().is_err());
                service.call(block).await
            })
        };
        // Only the runtime of this test has run the task.
        tokio::task::yield_now().await;
        let owner = &service.acceptor.host.owner;
        eventually("the thread is stuck", LONG, || async {
            owner.waiting() == 0
        })
        .await;
        (go_on, blocked)
    }

    #[tokio::test]
    async fn it_does_not_respond_while_its_thread_is_stuck() {
        let service = ConfigService::builder().start().await.unwrap();
        service.responds().await.unwrap();
        let (go_on, blocked) = block(&service).await;
        let responds = timeout(Duration::from_millis(200), service.responds());
        responds.await.unwrap_err();
        drop(go_on);
        assert!(blocked.await.unwrap().unwrap());
        service.responds().await.unwrap();
    }

    #[tokio::test]
    async fn a_change_whose_client_is_gone_before_it_is_made_has_its_line_in_the_log() {
        let log = Log::of_the_process();
        let service = ConfigService::builder().start().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = listener.local_addr().unwrap();
        let admin = Admin::new().token("0123456789abcdef").unwrap();
        service.serve_admin(listener, admin).unwrap();
        let (go_on, _) = block(&service).await;
        let mut client = TcpStream::connect(api).await.unwrap();
        let put = "PUT /v1/modules/changed-by-none/config HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\
            Authorization: Bearer 0123456789abcdef\r\n\r\n{}";
        client.write_all(put.as_bytes()).await.unwrap();
        let Acceptor { host, tasks, .. } = &service.acceptor;
        let waits = || async { host.owner.waiting() == 1 };
        eventually("the change waits", LONG, waits).await;
        drop(client);
        let is_over = || async { tasks.len() == 1 };
        eventually("the connection is over", LONG, is_over).await;
        drop(go_on);
        let configs = service.configs("changed-by-none").await.unwrap();
        assert_eq!(configs.len(), 1);
        let text = log.text();
        let is = |line: &str| {
            line.contains("changed-by-none") && line.contains("sets the configuration of a module")
        };
        assert!(text.lines().any(is), "the change has no line in the log");
    }
}
