//! Holds what a process wants to have registered, and asks the agent for it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use sd_core::Events;
use sd_core::events::EventLog;
use tokio::sync::watch;
use uuid::Uuid;

use super::asking::{Asking, Wish};
use super::error::{AgentError, Result};
use super::event::{ConnectionEvent, EventKind};
use super::parts::Client;
use super::slots::{Ask, Slots, Step};
use super::status::Status;
use crate::wire::ServiceNode;

/// How many events are kept for a listener that is slow or comes late.
const KEPT_EVENTS: usize = 64;

/// What a process wants its agent to have, and what the agent is asked for it. Calls of one service go one after another only within
/// [`replay`](Self::replay), which one task at a time should call: a [`Runner`](super::Runner) does.
pub struct Controller {
    client: Arc<dyn Client>,
    /// The run of the application, where it names none.
    run_id: String,
    slots: Mutex<Slots>,
    status: watch::Sender<Status>,
    events: EventLog<ConnectionEvent>,
    /// Counts the changes of what is wanted.
    wishes: watch::Sender<u64>,
}

impl Controller {
    /// Asks `client`. There is nothing to be registered yet.
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self {
            client,
            run_id: Uuid::now_v7().to_string(),
            slots: Mutex::default(),
            status: watch::Sender::new(Status::default()),
            events: EventLog::keeping(KEPT_EVENTS),
            wishes: watch::Sender::new(0),
        }
    }

    /// Adds a service, and returns its number. An application that names no run of its own gets a random one, the same for all services.
    ///
    /// # Errors
    /// `Invalid` if a field is missing or wrong, or if there is a service with this name and this port.
    pub fn add(&self, node: ServiceNode) -> Result<u64> {
        let node = self.checked(node)?;
        let id = {
            let mut slots = self.slots();
            if slots.is_taken(&node, None) {
                return Err(taken(&node));
            }
            slots.add(node)
        };
        self.wish();
        Ok(id)
    }

    /// Wants a service to be as `node` from now on. Another name or another port is registered before the old one is taken out.
    ///
    /// # Errors
    /// As [`add`](Self::add); `Invalid` as well if there is no such service any more.
    pub fn update(&self, id: u64, node: ServiceNode) -> Result<()> {
        self.replace(id, None, node).map(drop)
    }

    /// As [`update`](Self::update), of what is wanted now. `change` is called again if another change came between.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn change(
        &self,
        id: u64,
        mut change: impl FnMut(ServiceNode) -> ServiceNode,
    ) -> Result<()> {
        loop {
            let now = self.node(id).ok_or_else(has_left)?;
            if self.replace(id, Some(&now), change((*now).clone()))? {
                return Ok(());
            }
        }
    }

    /// False if it is not `expected` any more.
    fn replace(
        &self,
        id: u64,
        expected: Option<&Arc<ServiceNode>>,
        node: ServiceNode,
    ) -> Result<bool> {
        let node = self.checked(node)?;
        {
            let mut slots = self.slots();
            let now = slots.node(id).ok_or_else(has_left)?;
            if expected.is_some_and(|expected| !Arc::ptr_eq(expected, &now)) {
                return Ok(false);
            }
            if slots.is_taken(&node, Some(id)) {
                return Err(taken(&node));
            }
            slots.update(id, node);
        }
        self.wish();
        Ok(true)
    }

    /// A service as it is wanted.
    pub fn node(&self, id: u64) -> Option<Arc<ServiceNode>> {
        self.slots().node(id)
    }

    /// The services that are wanted, with their numbers.
    pub fn nodes(&self) -> Vec<(u64, Arc<ServiceNode>)> {
        self.slots().wanted()
    }

    /// A connection has begun: registers all services over it.
    ///
    /// # Errors
    /// The services that could not be registered. [`replay`](Self::replay) tries them again.
    pub async fn on_connected(&self) -> std::result::Result<(), Vec<AgentError>> {
        self.begin();
        let failures = self.replay().await;
        if failures.is_empty() {
            return Ok(());
        }
        Err(failures)
    }

    /// A connection has begun, over which nothing is registered yet.
    pub(crate) fn begin(&self) {
        self.slots().connected();
        self.tell(|status| status.connected = true);
    }

    /// The connection has ended.
    pub fn on_disconnected(&self) {
        self.slots().disconnected();
        self.tell(|status| {
            status.connected = false;
            status.disconnect_count += 1;
            status.last_disconnected_at = Some(SystemTime::now());
        });
    }

    /// No connection is watched any more. Unlike one that ends, this counts for none.
    pub(crate) fn end_connection(&self) {
        self.slots().disconnected();
        self.tell(|status| status.connected = false);
    }

    /// Notes an event in [`status`](Self::status), and tells it to listeners.
    pub fn observe_event(&self, event: &ConnectionEvent) {
        let at = event.generated_at.unwrap_or_else(SystemTime::now);
        self.tell(|status| {
            event.kind.as_str().clone_into(&mut status.last_event_type);
            event.event_id.clone_into(&mut status.last_event_id);
            status.last_event_at = Some(at);
            match event.kind {
                EventKind::Connected => status.last_connected_at = Some(at),
                EventKind::Heartbeat => {
                    status.heartbeat_count += 1;
                    status.last_heartbeat_at = Some(at);
                }
                _ => {}
            }
        });
        self.events.tell(event.clone());
    }

    /// Notes an error in [`status`](Self::status).
    pub fn record_error(&self, error: &AgentError) {
        self.tell(|status| {
            error.kind().clone_into(&mut status.last_error_kind);
            status.last_error = error.to_string();
            status.last_error_at = Some(SystemTime::now());
        });
    }

    /// Asks the agent for all that is wanted and that it has not accepted over this connection, for each service until the first
    /// failure. Returns the failures; what failed is tried by the next call.
    ///
    /// # Cancel safety
    /// What was asked may have been done. The next call asks again.
    pub async fn replay(&self) -> Vec<AgentError> {
        let (mut failed, mut failures) = (Vec::new(), Vec::new());
        loop {
            let step = self.slots().next(&failed);
            let Some(step) = step else {
                return failures;
            };
            if let Err(error) = self.take(&step).await {
                failed.push(step.slot);
                self.record_error(&error);
                failures.push(error);
            }
        }
    }

    /// Whether [`replay`](Self::replay) has something to ask for.
    pub(crate) fn has_work(&self) -> bool {
        self.slots().next(&[]).is_some()
    }

    /// Asks the agent to drain every service, at once. They drain also after a later connection begins.
    ///
    /// # Errors
    /// The services that may still get calls.
    pub async fn drain(&self, grace: Option<Duration>) -> std::result::Result<(), Vec<AgentError>> {
        let ids = self.nodes();
        self.ask_all(ids.into_iter().map(|(id, _)| id), |slots, id| {
            slots.drain(id, grace)
        })
        .await
    }

    /// Asks the agent to drain one service.
    ///
    /// # Errors
    /// It may still get calls.
    pub async fn drain_one(&self, id: u64, grace: Option<Duration>) -> Result<()> {
        let failed = self.ask_all([id], |slots, id| slots.drain(id, grace)).await;
        failed.map_err(first)
    }

    /// Asks the agent to take every service out of the registry, at once. No later connection registers them.
    ///
    /// # Errors
    /// The services that may still be registered.
    pub async fn deregister(&self) -> std::result::Result<(), Vec<AgentError>> {
        let ids = self.slots().all();
        self.ask_all(ids, Slots::remove).await
    }

    /// Wants nothing any more that no agent may have.
    pub(crate) fn forget_unknown(&self) {
        self.slots().forget_unknown();
        self.tell(|_| {});
    }

    /// As [`drain`](Self::drain), of the services that an agent may have. One that it does not have gets no calls.
    pub(crate) async fn drain_known(
        &self,
        grace: Duration,
    ) -> std::result::Result<(), Vec<AgentError>> {
        let ids = self.slots().known();
        let drained = self
            .ask_all(ids, |slots, id| slots.drain(id, Some(grace)))
            .await;
        let mut failures = drained.err().unwrap_or_default();
        failures.retain(|error| !error.is_not_found());
        if failures.is_empty() {
            return Ok(());
        }
        Err(failures)
    }

    /// As [`deregister`](Self::deregister), of the services that an agent may have.
    pub(crate) async fn deregister_known(&self) -> std::result::Result<(), Vec<AgentError>> {
        let ids = self.slots().known();
        self.ask_all(ids, Slots::remove).await
    }

    /// Asks the agent to take one service out of the registry.
    ///
    /// # Errors
    /// It may still be registered.
    pub async fn deregister_one(&self, id: u64) -> Result<()> {
        self.ask_all([id], Slots::remove).await.map_err(first)
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// How it stands, now and after every change.
    pub fn status_changes(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// The events of the connection from now on. The newest 64 are kept for a listener that is slow.
    pub fn events(&self) -> Events<ConnectionEvent> {
        self.events.events_from_now()
    }

    /// Changes whenever something else is wanted.
    pub(crate) fn wishes(&self) -> watch::Receiver<u64> {
        self.wishes.subscribe()
    }

    /// Asks for one thing.
    async fn take(&self, step: &Step) -> Result<()> {
        let _settles = Asking::begin(self, step);
        let (done, node) = match &step.ask {
            Ask::Register(node) => {
                let done = self.client.register(node).await;
                (done.map_err(|error| replay_failed(node, error)), node)
            }
            Ask::Drain(node, grace) => (self.client.drain(node, *grace).await, node),
            Ask::Deregister(node) => (self.client.deregister(node).await, node),
        };
        self.slots().done(step, &done);
        let (is_register, is_done) = (matches!(step.ask, Ask::Register(_)), done.is_ok());
        self.tell(|status| {
            if is_register {
                node.options
                    .service
                    .name
                    .clone_into(&mut status.last_service_name);
                status.last_service_port = node.options.server_port;
                if is_done {
                    status.register_replay_count += 1;
                    status.last_connected_at = Some(SystemTime::now());
                } else {
                    status.register_replay_failure_count += 1;
                }
            }
        });
        done
    }

    /// Whether an agent may have some service.
    pub(crate) fn is_known(&self) -> bool {
        !self.slots().known().is_empty()
    }

    /// Wants something for each of these services, and asks for all of it at once.
    async fn ask_all(
        &self,
        ids: impl IntoIterator<Item = u64>,
        mut want: impl FnMut(&mut Slots, u64) -> Vec<Step>,
    ) -> std::result::Result<(), Vec<AgentError>> {
        // What failed, or was not waited for, is tried again while the agent is watched.
        let _wish = Wish(self);
        let steps: Vec<Step> = {
            let mut slots = self.slots();
            ids.into_iter()
                .flat_map(|id| want(&mut slots, id))
                .collect()
        };
        // Readers of the status see what is wanted now.
        self.tell(|_| {});
        let results = join_all(steps.iter().map(|step| self.take(step))).await;
        let failures: Vec<AgentError> = results.into_iter().filter_map(Result::err).collect();
        for error in &failures {
            self.record_error(error);
        }
        if failures.is_empty() {
            return Ok(());
        }
        Err(failures)
    }

    fn checked(&self, mut node: ServiceNode) -> Result<ServiceNode> {
        if node.options.app.instance_id.trim().is_empty() {
            node.options.app.instance_id.clone_from(&self.run_id);
        }
        let checked = node.validate();
        checked.map_err(|bad| AgentError::Invalid(bad.to_string()))?;
        Ok(node)
    }

    pub(super) fn wish(&self) {
        self.tell(|_| {});
        self.wishes.send_modify(|wishes| *wishes += 1);
    }

    /// Changes the status, with the services as they are.
    pub(super) fn tell(&self, change: impl FnOnce(&mut Status)) {
        let slots = self.slots();
        let (services, registered) = (slots.status(), slots.are_registered());
        // Under the lock, so that an older state of the services never follows a newer one.
        self.status.send_modify(|status| {
            change(status);
            status.services = services;
            status.registered = registered;
        });
    }

    pub(super) fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}

fn taken(node: &ServiceNode) -> AgentError {
    AgentError::Invalid(format!(
        "there is a service {} at port {} already: update that one, or choose another port",
        super::error::printable(&node.options.service.name),
        node.options.server_port
    ))
}

fn replay_failed(node: &ServiceNode, error: AgentError) -> AgentError {
    AgentError::RegisterReplay {
        service_name: node.options.service.name.clone(),
        service_port: node.options.server_port,
        error: Arc::new(error),
    }
}

fn first(failures: Vec<AgentError>) -> AgentError {
    let first = failures.into_iter().next();
    first.unwrap_or_else(has_left)
}

fn has_left() -> AgentError {
    AgentError::Invalid("the service has left its agent".to_owned())
}
