//! The handle that users hold: one backend, with shared subscriptions and kept registrations.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::clock::{BootClock, Clock};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::config::SubscriptionConfig;
use crate::feed::services::{ServicesSubscription, SharedServices};
use crate::feed::subscription::{Discovery, Shared, Subscription, SubscriptionDump};
use crate::health::Health;
use crate::model::instance::{Instance, RecordId};
use crate::model::name::ServiceName;
use crate::model::newest_run::without_older_runs;
use crate::model::overriding::Override;
use crate::model::snapshot::Snapshot;
use crate::model::state::Status;
use crate::port::backend::Backend;
use crate::port::elector::AnyElector;
use crate::port::instancer::{Instancer, ServiceList};
use crate::port::operator::Operator;
use crate::port::registrar::{Registrar, check_registration};
use crate::reading_backend::ReadingBackend;
use crate::registration::command::Confirm;
use crate::registration::config::RegistrationConfig;
use crate::registration::event::RegistrationPhase;
use crate::registration::guard::RegistrationGuard;
use crate::registration::keeper::Keeper;
use crate::registration::register::Register;
use crate::registration::registrations::Registrations;
use crate::registration::status::RegistrationDump;
use crate::runtime::runtime;
use crate::sync::lock;

/// How a registry uses its backend.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// Settings of every subscription. By default [`SubscriptionConfig::default`].
    pub subscription: SubscriptionConfig,
    /// Settings of every registration. By default [`RegistrationConfig::default`].
    pub registration: RegistrationConfig,
    /// The clock that measures ages and times-to-live. Default [`BootClock`].
    #[serde(skip)]
    pub clock: Arc<dyn Clock>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            subscription: SubscriptionConfig::default(),
            registration: RegistrationConfig::default(),
            clock: Arc::new(BootClock),
        }
    }
}

impl RegistryConfig {
    /// Sets how subscriptions use their source.
    #[must_use]
    pub fn with_subscription(mut self, subscription: SubscriptionConfig) -> Self {
        self.subscription = subscription;
        self
    }

    /// Sets how registrations are kept.
    #[must_use]
    pub fn with_registration(mut self, registration: RegistrationConfig) -> Self {
        self.registration = registration;
        self
    }

    /// Sets the clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

/// One registry: subscribe to services, register instances. Cheap to clone.
///
/// Each service is watched once, however many readers it has. When the registry handle is dropped, subscriptions and
/// registrations live on until their own handles are dropped. [`close`](Self::close) ends all of them.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn Backend>,
    config: RegistryConfig,
    subscriptions: Mutex<BTreeMap<ServiceName, Weak<Shared>>>,
    services: Mutex<Weak<SharedServices>>,
    registrations: Arc<Registrations>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// How long [`Registry::close`] waits for tasks beyond the time that a withdrawal may take.
const CLOSE_SLACK: Duration = Duration::from_secs(1);

impl Registry {
    /// A registry over `backend` with the default configuration. Does not wait for the server.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self::with_config(backend, RegistryConfig::default())
    }

    /// A registry over `backend`. Does not wait for the server.
    pub fn with_config(backend: Arc<dyn Backend>, config: RegistryConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                backend,
                config,
                subscriptions: Mutex::default(),
                services: Mutex::default(),
                registrations: Arc::default(),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        }
    }

    /// A registry that can only be read: a file, a fixed set, a merge, a fallback, or any other [`Instancer`]. With the default
    /// configuration. Registering and electing answer `Unsupported`.
    pub fn reading(instancer: Arc<dyn Instancer>) -> Self {
        Self::reading_with(instancer, RegistryConfig::default())
    }

    /// As [`reading`](Self::reading), with this configuration.
    pub fn reading_with(instancer: Arc<dyn Instancer>, config: RegistryConfig) -> Self {
        Self::with_config(Arc::new(ReadingBackend::new(instancer)), config)
    }

    /// The backend that this registry uses.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.inner.backend
    }

    /// The backend, if it is a `B`, for what `B` offers beyond the ports.
    pub fn backend_as<B: Backend>(&self) -> Option<&B> {
        let backend: &dyn Any = self.inner.backend.as_ref();
        backend.downcast_ref()
    }

    /// The registry's settings. Every [`Moment`](crate::clock::Moment) in a state is measured by the clock in here.
    pub fn config(&self) -> &RegistryConfig {
        &self.inner.config
    }

    /// The backend's reading port, for a [`Filter`](crate::combine::Filter) over this registry. Its readers do not share this
    /// registry's subscriptions. [`Merge`](crate::combine::Merge) and [`Fallback`](crate::combine::Fallback) take the registry
    /// itself.
    pub fn instancer(&self) -> Arc<dyn Instancer> {
        Arc::<dyn Backend>::clone(&self.inner.backend)
    }

    /// The names of all services that have an instance, sorted. One read, not a subscription. Cancel-safe.
    ///
    /// # Errors
    /// `Unsupported` if the server cannot list services, `Closed` after [`close`](Self::close), `InvalidInput` outside a tokio runtime.
    /// Otherwise why the server did not answer.
    pub async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(self.list_services().await?.services)
    }

    /// As [`services`](Self::services), with how many entries at the server are none of a service that can be listed.
    ///
    /// # Errors
    /// As [`services`](Self::services).
    pub async fn list_services(&self) -> Result<ServiceList> {
        self.check_usable("list services")?;
        self.inner.backend.list_services().await
    }

    /// A service as the server knows it now. One read, not a subscription. Cancel-safe.
    ///
    /// The records of runs that crashed may still stand beside that of the run that replaced them. Of several records with the
    /// same TCP address and ids made of it ([`Instance::id_holds_incarnation`]), a ready one wins over one that is not, and then
    /// the one that was made last. The others are not in the set, here and in subscriptions. Ids that users chose are never left
    /// out, and neither is anything of a source that cannot say which record was made last.
    ///
    /// # Errors
    /// `InvalidInput` for a bad name, or outside a tokio runtime. `Closed` after [`close`](Self::close). Otherwise why the server did not
    /// answer.
    pub async fn list(
        &self,
        service: impl TryInto<ServiceName, Error: Into<Error>>,
    ) -> Result<Snapshot> {
        let service = service.try_into().map_err(Into::into)?;
        self.check_usable("list service")?;
        let listed = self.inner.backend.list(&service).await?;
        Ok(without_older_runs(listed))
    }

    /// Asks the server something cheap, to find out whether it can be reached and lets this client in: for a program that is
    /// not to start without its registry, and for start-up probes. Cancel-safe. Sets no deadline beyond the backend's own.
    ///
    /// # Errors
    /// `Closed` after [`close`](Self::close), `InvalidInput` outside a tokio runtime. Otherwise why the server did not answer, or refused.
    pub async fn check(&self) -> Result<()> {
        self.check_usable("check")?;
        self.inner.backend.check().await
    }

    /// How the subscriptions and registrations are, without asking the server: for readiness probes. See
    /// [`Health::is_ready`].
    pub fn health(&self) -> Health {
        let mut health = Health {
            closed: self.inner.stop.is_cancelled(),
            ..Health::default()
        };
        for subscription in self.subscriptions() {
            let service = subscription.service().clone();
            match subscription.state().status() {
                Status::Initializing { .. } => health.unknown.push(service),
                Status::Stale { .. } => health.stale.push(service),
                Status::Live => {}
            }
        }
        for kept in self
            .inner
            .registrations
            .dump(self.inner.config.clock.as_ref())
        {
            match kept.phase {
                // One that has ended is shown only if its owner still counts on it.
                RegistrationPhase::Registering | RegistrationPhase::Ended => {
                    health.unregistered.push(kept.instance.record_id());
                }
                RegistrationPhase::AtRisk => health.at_risk.push(kept.instance.record_id()),
                RegistrationPhase::Registered => {}
            }
        }
        health
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        let subscriptions = lock(&self.inner.subscriptions);
        let living = subscriptions.values().filter_map(Weak::upgrade);
        living.map(Subscription::from_shared).collect()
    }

    /// Subscribes to the list of services, and shares the subscription if there is one already. Must be called inside a tokio
    /// runtime. A source that cannot tell of changes is asked every [`SubscriptionConfig::poll_services`].
    ///
    /// # Errors
    /// `InvalidInput` outside a runtime. `Closed` after [`close`](Self::close).
    pub fn subscribe_services(&self) -> Result<ServicesSubscription> {
        const OP: &str = "subscribe to services";
        self.check_open(OP)?;
        let runtime = runtime(OP)?;
        let mut services = lock(&self.inner.services);
        let shared = services.upgrade().map(ServicesSubscription::from_shared);
        // One that was followed on another runtime may have ended with it.
        if let Some(shared) = shared.filter(ServicesSubscription::is_followed) {
            return Ok(shared);
        }
        let config = &self.inner.config;
        let (subscription, task) = ServicesSubscription::prepare(
            self.instancer(),
            config.subscription.clone(),
            Arc::clone(&config.clock),
            &self.inner.stop,
        );
        *services = Arc::downgrade(subscription.shared());
        self.inner.tasks.spawn_on(task, &runtime);
        Ok(subscription)
    }

    /// Subscribes to a service, and shares the subscription if there is one already. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `InvalidInput` for a bad name, or outside a runtime. `Closed` after [`close`](Self::close).
    pub fn subscribe(
        &self,
        service: impl TryInto<ServiceName, Error: Into<Error>>,
    ) -> Result<Subscription> {
        const OP: &str = "subscribe";
        let service = service.try_into().map_err(Into::into)?;
        self.check_open(OP)?;
        let runtime = runtime(OP)?;
        let mut subscriptions = lock(&self.inner.subscriptions);
        let shared = subscriptions.get(&service).and_then(Weak::upgrade);
        let shared = shared.map(Subscription::from_shared);
        // One that was followed on another runtime may have ended with it.
        if let Some(shared) = shared.filter(Subscription::is_followed) {
            return Ok(shared);
        }
        subscriptions.retain(|_, shared| shared.strong_count() > 0);
        let instancer = self.instancer();
        let config = &self.inner.config;
        let (subscription, task) = Subscription::prepare(
            instancer,
            service.clone(),
            config.subscription.clone(),
            Arc::clone(&config.clock),
            &self.inner.stop,
        );
        subscriptions.insert(service, Arc::downgrade(subscription.shared()));
        self.inner.tasks.spawn_on(task, &runtime);
        Ok(subscription)
    }

    /// Registers `instance` and keeps it registered: awaited, it returns when the server has confirmed the record, and tries for at most
    /// [`RegistrationConfig::confirm_within`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use sd_core::Instance;
    /// use sd_core::memory::Memory;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> sd_core::Result<()> {
    /// let registry = Memory::new().connect();
    /// let guard = registry.register(Instance::new("greeter", "10.0.0.7:50051")?).await?;
    ///
    /// // A process that must start while its registry is down:
    /// let other = Instance::new("greeter", "10.0.0.8:50051")?;
    /// let other = registry.register(other).ttl(Duration::from_secs(30)).in_background()?;
    /// # drop((guard, other));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// If the id is held by an earlier run at the same address, which has crashed perhaps, this waits until that run's record is gone:
    /// for one time-to-live longer. It never takes the id from a run that goes on renewing its record.
    ///
    /// # Errors
    /// After an error nothing stays registered.
    /// - `InvalidInput` before anything is sent.
    /// - `Conflict` if another live incarnation has the id, in this process or another. [`Error::holder`] says which. At once if it is
    ///   at another address or in this process.
    /// - `Unsupported` if the source can only be read.
    /// - `Closed` after [`close`](Self::close).
    /// - Otherwise why the server did not confirm.
    ///
    /// # Cancel safety
    /// If the future is dropped, the record is withdrawn in the background.
    pub fn register(&self, instance: Instance) -> Register {
        Register::new(self.clone(), instance)
    }

    pub(crate) fn keep(
        &self,
        instance: Instance,
        config: RegistrationConfig,
        confirm: Confirm,
    ) -> Result<RegistrationGuard> {
        let runtime = runtime("register")?;
        // One that was read may have an override, which is that of another record.
        let instance = instance.with_override(None);
        let registrar = self.registrar_for(&instance, &config)?;
        let config = config.with_room_for_a_write(registrar.limits());

        self.inner.registrations.keep(
            Keeper::new(
                instance,
                registrar,
                config,
                Arc::clone(&self.inner.config.clock),
                self.inner.stop.child_token(),
            ),
            confirm,
            &self.inner.tasks,
            &runtime,
        )
    }

    /// The registrar, if it would take this instance.
    pub(crate) fn registrar_for(
        &self,
        instance: &Instance,
        config: &RegistrationConfig,
    ) -> Result<Arc<dyn Registrar>> {
        const OP: &str = "register";
        self.check_open(OP)?;
        let registrar = Arc::clone(&self.inner.backend).registrar().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, OP).because(format!(
                "this registry ({}) can only be read: register the instance at one that has a server",
                self.inner.backend.name()
            ))
        })?;
        check_registration(registrar.as_ref(), instance, config.ttl)?;
        Ok(registrar)
    }

    /// Has readers see a record as an operator wants it, whatever its owner says: for tools that take a living instance out of
    /// service or put it back. Replaces an override that is there. Sets no deadline beyond the backend's own.
    ///
    /// The override names this run and ends with its record. If the record is lost or [removed](Self::remove_record) and registered
    /// again, it is as its owner says. Instances that readers see have it in [`Instance::overridden`]. The owner is told at its next
    /// renewal, with [`RegistrationEvent::Overridden`](crate::RegistrationEvent::Overridden), and does not write it away. One that is
    /// told that it is [draining](Override::Draining) should finish and deregister.
    ///
    /// # Errors
    /// - `NotFound` if no record has the id.
    /// - `Conflict` if the record is that of another run, which [`Error::holder`] names.
    /// - `Unsupported` if the registry has no place for this override. The cause says what to do instead.
    /// - `Closed` after [`close`](Self::close).
    /// - `InvalidInput` outside a tokio runtime.
    /// - Otherwise why the server did not confirm.
    ///
    /// # Cancel safety
    /// If the future is dropped, the override may or may not be set.
    pub async fn set_override(&self, record: &RecordId, wanted: Override) -> Result<()> {
        let operator = self.operator("set override")?;
        operator.set_override(record, Some(wanted)).await
    }

    /// Lets a record's own readiness count again. Fine if it is not overridden.
    ///
    /// # Errors
    /// As [`set_override`](Self::set_override).
    ///
    /// # Cancel safety
    /// If the future is dropped, the override may or may not be cleared.
    pub async fn clear_override(&self, record: &RecordId) -> Result<()> {
        let operator = self.operator("clear override")?;
        operator.set_override(record, None).await
    }

    /// Removes the record of another process, with its override: for what a run has left behind. Readers learn that it was removed on
    /// purpose. A living owner registers it again at its next renewal, as it says itself.
    ///
    /// # Errors
    /// As [`set_override`](Self::set_override).
    ///
    /// # Cancel safety
    /// If the future is dropped, the record may or may not be removed.
    pub async fn remove_record(&self, record: &RecordId) -> Result<()> {
        self.operator("remove record")?.remove(record).await
    }

    fn operator(&self, op: &'static str) -> Result<Arc<dyn Operator>> {
        self.check_usable(op)?;
        Arc::clone(&self.inner.backend).operator().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, op).because(format!(
                "this registry ({}) cannot change records of other processes: change the record where it comes from",
                self.inner.backend.name()
            ))
        })
    }

    /// An elector with a connection of its own. Most programs give the registry to a `Candidate` of `sd-election` instead.
    ///
    /// # Errors
    /// `Unsupported` if the registry has no elections, `Closed` after [`close`](Self::close).
    pub fn elector(&self) -> Result<AnyElector> {
        const OP: &str = "elect";
        self.check_open(OP)?;
        Arc::clone(&self.inner.backend).elector().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, OP).because(format!(
                "this registry ({}) has no elections: use one that has them",
                self.inner.backend.name()
            ))
        })
    }

    /// For libraries beside the registry that must release something at the server before it closes.
    pub fn closing(&self) -> Closing {
        Closing {
            stop: self.inner.stop.clone(),
            _wait_for_us: self.inner.tasks.token(),
        }
    }

    /// Withdraws all registrations, ends all subscriptions and closes the backend. Idempotent. Waits for tasks for as long as
    /// withdrawing [may take](RegistrationConfig::withdraw_within), plus 1 s. Later calls answer `Closed`.
    ///
    /// # Errors
    /// When the server could not be told in time. Everything local is ended nevertheless. `InvalidInput` outside a tokio runtime: then
    /// registrations are withdrawn in the background, and the backend stays open.
    ///
    /// # Cancel safety
    /// If the future is dropped, registrations are still withdrawn in the background, but the backend may stay open: call
    /// again.
    pub async fn close(&self) -> Result<()> {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        runtime("close")?;
        let withdrawing = self.inner.registrations.withdraw_within();
        let limit = self
            .inner
            .config
            .registration
            .withdraw_within
            .max(withdrawing)
            + CLOSE_SLACK;
        // A task that takes longer ends with the backend.
        let _ = timeout(limit, self.inner.tasks.wait()).await;
        self.inner.backend.close().await
    }

    /// As [`close`](Self::close), but leaves the records at the server, as [`RegistrationGuard::release`] does: for a process that
    /// hands all of its registrations over to the next one. What the server has not confirmed is withdrawn.
    ///
    /// # Errors
    /// As [`close`](Self::close). The last event of each registration says whether its record was left.
    ///
    /// # Cancel safety
    /// As [`close`](Self::close): the records are left in the background.
    pub async fn close_keeping_records(&self) -> Result<()> {
        self.inner.registrations.leave_records();
        self.close().await
    }

    /// Every subscription and registration of this registry, and why it is as it is.
    pub fn dump(&self) -> RegistryDump {
        let clock = self.inner.config.clock.as_ref();
        RegistryDump {
            backend: self.inner.backend.name(),
            subscriptions: self
                .subscriptions()
                .iter()
                .map(Subscription::dump)
                .collect(),
            registrations: self.inner.registrations.dump(clock),
        }
    }

    /// Backends have timers.
    fn check_usable(&self, op: &'static str) -> Result<()> {
        self.check_open(op)?;
        runtime(op).map(drop)
    }

    fn check_open(&self, op: &'static str) -> Result<()> {
        if self.inner.stop.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, op).because("the registry was closed"));
        }
        Ok(())
    }
}

/// Tells when a registry is being closed. [`Registry::close`] waits until this handle is dropped, for as long as withdrawing
/// [may take](RegistrationConfig::withdraw_within), plus 1 s.
#[derive(Clone)]
pub struct Closing {
    stop: CancellationToken,
    _wait_for_us: TaskTrackerToken,
}

impl Closing {
    /// Returns when the owner closes the registry. Cancel-safe.
    pub async fn requested(&self) {
        self.stop.cancelled().await;
    }
}

impl fmt::Debug for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closing")
            .field("requested", &self.stop.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl Discovery for Registry {
    fn subscribe(&self, service: &ServiceName) -> Result<Subscription> {
        Self::subscribe(self, service)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("backend", &self.inner.backend)
            .finish_non_exhaustive()
    }
}

/// The subscriptions to services and the registrations of a registry. Serializes to JSON.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RegistryDump {
    /// The backend's name.
    pub backend: &'static str,
    /// Every subscription with a reader.
    pub subscriptions: Vec<SubscriptionDump>,
    /// Every registration that is kept.
    pub registrations: Vec<RegistrationDump>,
}
