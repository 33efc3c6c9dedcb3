//! A registry in the place of the agent: a process keeps its code, and registers itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use sd_core::{
    Endpoint, Error, ErrorKind, Events, Instance, RegistrationEvent, RegistrationGuard,
    RegistrationPhase, Registry,
};
use tokio::time::sleep;

use super::error::{AgentError, Result};
use super::event::{ConnectionEvent, EventKind};
use super::parts::{Client, ConnectionEvents, EventSource};
use crate::wire::ServiceNode;

/// How often a source says that it lives.
const BEAT: Duration = Duration::from_secs(5);

/// Registers services at a registry, and keeps them there. It deregisters nothing by itself: one that drains does so until it is
/// deregistered, whatever its grace period.
#[derive(Debug)]
pub struct DirectClient {
    registry: Registry,
    host: String,
    registrations: Arc<Mutex<Registrations>>,
}

#[derive(Debug, Default)]
struct Registrations {
    kept: BTreeMap<Key, Arc<Kept>>,
    /// Why records may be there that are kept no more.
    left: BTreeMap<Key, AgentError>,
}

/// One registration.
#[derive(Debug)]
struct Kept {
    guard: RegistrationGuard,
    drains: Arc<AtomicBool>,
}

/// What an agent takes for one registration: the service and its port, the application and its run.
type Key = (String, u16, String, String);

impl DirectClient {
    /// Services are dialled at `host`: a name or an IP address that others reach this process at, such as
    /// [`advertised_address`](sd_core::advertised_address) finds.
    pub fn new(registry: Registry, host: impl Into<String>) -> Self {
        Self {
            registry,
            host: host.into(),
            registrations: Arc::default(),
        }
    }

    fn instance(&self, node: &ServiceNode) -> Result<Instance> {
        let register = node.register().map_err(|bad| invalid(&bad))?;
        let declaration = register.declaration().map_err(|bad| invalid(&bad))?;
        let endpoint = Endpoint::tcp(&self.host, register.port).map_err(AgentError::Registry)?;
        let instance =
            Instance::new(declaration.service, endpoint).map_err(AgentError::Registry)?;
        let instance = instance
            .with_version(register.version)
            .with_weight(register.weight);
        let instance = instance.with_ready(declaration.ready);
        let metadata = declaration.metadata.into_iter();
        Ok(metadata.fold(instance, |instance, (key, value)| {
            instance.with_metadata(key, value)
        }))
    }

    fn find(&self, node: &ServiceNode) -> Option<Arc<Kept>> {
        let registrations = lock(&self.registrations);
        registrations.kept.get(&key(node)).map(Arc::clone)
    }
}

fn lock(registrations: &Mutex<Registrations>) -> MutexGuard<'_, Registrations> {
    registrations.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Client for DirectClient {
    async fn register(&self, node: &ServiceNode) -> Result<()> {
        let wanted = self.instance(node)?;
        if let Some(kept) = self.find(node)
            && kept.guard.phase() != RegistrationPhase::Ended
        {
            // Readers go on seeing the same run, and one that drains goes on draining, as with an agent.
            let drains = Arc::clone(&kept.drains);
            let update = kept.guard.update(move |now| {
                // Now, as a drain may have begun since this was asked for.
                let ready = wanted.is_ready() && !drains.load(Ordering::Relaxed);
                let wanted = wanted.with_ready(ready).with_id(now.id().clone());
                wanted.with_incarnation(now.incarnation())
            });
            return update.await.map_err(AgentError::Registry);
        }
        // One that has ended gives its id free.
        lock(&self.registrations).kept.remove(&key(node));
        let guard = self.registry.register(wanted).await;
        let kept = Kept {
            guard: guard.map_err(AgentError::Registry)?,
            drains: Arc::default(),
        };
        let mut registrations = lock(&self.registrations);
        registrations.left.remove(&key(node));
        registrations.kept.insert(key(node), Arc::new(kept));
        Ok(())
    }

    async fn drain(&self, node: &ServiceNode, _grace: Option<Duration>) -> Result<()> {
        let kept = self.find(node).ok_or_else(|| {
            let port = node.options.server_port;
            let name = super::error::printable(&node.options.service.name);
            AgentError::Invalid(format!("local service not found: {name}:{port}"))
        })?;
        kept.drains.store(true, Ordering::Relaxed);
        let drained = kept.guard.set_ready(false);
        drained.await.map_err(AgentError::Registry)
    }

    /// What is not there has been deregistered. What could not be withdrawn fails in the same way until it is registered again.
    async fn deregister(&self, node: &ServiceNode) -> Result<()> {
        let key = key(node);
        let kept = {
            let mut registrations = lock(&self.registrations);
            match registrations.kept.remove(&key) {
                Some(kept) => kept,
                None => return registrations.left.get(&key).cloned().map_or(Ok(()), Err),
            }
        };
        let events = kept.guard.events();
        let done = match Arc::into_inner(kept) {
            Some(kept) => kept.guard.deregister().await,
            // Another call holds it still: it is withdrawn when that one ends.
            None => withdrawn(events).await,
        };
        let done = done.map_err(AgentError::Registry);
        if let Err(error) = &done {
            lock(&self.registrations).left.insert(key, error.clone());
        }
        done
    }
}

/// Waits for the end of a registration that another call ends.
async fn withdrawn(mut events: Events<RegistrationEvent>) -> sd_core::Result<()> {
    while let Some(event) = events.next().await {
        match event {
            RegistrationEvent::Withdrawn => return Ok(()),
            RegistrationEvent::Failed(error) => return Err(error),
            _ => {}
        }
    }
    let ended = "the registration has ended, and was not withdrawn";
    Err(Error::new(ErrorKind::Closed, "deregister").because(ended))
}

fn key(node: &ServiceNode) -> Key {
    let options = &node.options;
    (
        options.service.name.clone(),
        options.server_port,
        options.app.id.clone(),
        options.app.instance_id.clone(),
    )
}

fn invalid(bad: &crate::wire::dialect::BadBody) -> AgentError {
    AgentError::Invalid(bad.to_string())
}

/// Says at once that the registry is connected, and from then on how it is. A registry keeps what is registered true by itself, so that
/// something is to be replayed only after a registration has ended for good.
#[derive(Clone, Debug)]
pub struct DirectSource {
    registry: Registry,
    registrations: Arc<Mutex<Registrations>>,
}

impl DirectSource {
    /// Of what `client` registers, at its registry.
    pub fn new(client: &DirectClient) -> Self {
        Self {
            registry: client.registry.clone(),
            registrations: Arc::clone(&client.registrations),
        }
    }

    fn beat(&self) -> EventKind {
        let registrations = lock(&self.registrations);
        let mut kept = registrations.kept.values();
        if kept.any(|kept| kept.guard.phase() == RegistrationPhase::Ended) {
            return EventKind::Resync;
        }
        EventKind::Heartbeat
    }

    fn event(&self, kind: EventKind) -> ConnectionEvent {
        let health = self.registry.health();
        let is_well = health.unregistered.is_empty() && health.at_risk.is_empty() && !health.closed;
        ConnectionEvent {
            status: if is_well { "ready" } else { "degraded" }.to_owned(),
            message: if is_well {
                String::new()
            } else {
                health.to_string()
            },
            ready: Some(is_well),
            ..ConnectionEvent::new(kind)
        }
    }
}

#[async_trait]
impl EventSource for DirectSource {
    async fn subscribe(&self) -> Result<ConnectionEvents> {
        let source = self.clone();
        let events = stream::unfold(true, move |is_first| {
            let source = source.clone();
            async move {
                if is_first {
                    return Some((source.event(EventKind::Connected), false));
                }
                sleep(BEAT).await;
                Some((source.event(source.beat()), false))
            }
        });
        Ok(Box::pin(events))
    }
}

#[cfg(test)]
mod tests {
    use sd_core::clock::TokioClock;
    use sd_core::memory::Memory;
    use sd_core::{RegistryConfig, Subscription};
    use sd_testing::{Answer, Op, ScriptedBackend};

    use super::super::fakes::node;
    use super::super::{Agent, AgentConfig};
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn agent(registry: &Registry) -> Agent {
        let client = DirectClient::new(registry.clone(), "10.0.0.7");
        let source = DirectSource::new(&client);
        let config = AgentConfig::new("").with_grace_period(Duration::from_millis(50));
        Agent::with_parts(
            node("auth", 9090),
            config,
            Arc::new(client),
            Arc::new(source),
        )
        .unwrap()
    }

    async fn until(
        auth: &mut Subscription,
        wanted: impl Fn(&[Arc<Instance>]) -> bool,
    ) -> Vec<Arc<Instance>> {
        let waiting = async {
            loop {
                let now = auth.state();
                if wanted(now.snapshot().instances()) {
                    return now.snapshot().instances().to_vec();
                }
                auth.changed().await.unwrap();
            }
        };
        tokio::time::timeout(SOON, waiting)
            .await
            .expect("what is waited for")
    }

    #[tokio::test]
    async fn a_process_registers_itself_without_an_agent() {
        let registry = Memory::new().connect();
        let mut auth = registry.subscribe("auth").unwrap();
        let agent = agent(&registry);
        agent.start();
        let seen = until(&mut auth, |seen| seen.len() == 1).await;
        assert_eq!(seen[0].endpoint().to_string(), "10.0.0.7:9090");
        assert_eq!((seen[0].version(), seen[0].weight()), (Some("v1"), 100));
        assert_eq!(seen[0].metadata()["methods"], "/auth.v1.S/M");
        assert_eq!(seen[0].metadata()["app_id"], "a-1");

        // A change keeps the run.
        let run = seen[0].incarnation();
        let heavier = |mut node: ServiceNode| {
            node.options.service.weight = 7;
            node
        };
        agent.service().update(heavier).unwrap();
        let seen = until(&mut auth, |seen| seen.len() == 1 && seen[0].weight() == 7).await;
        assert_eq!((seen.len(), seen[0].incarnation()), (1, run));

        let run = agent.run(async {});
        let drained =
            async { until(&mut auth, |seen| seen.len() == 1 && !seen[0].is_ready()).await };
        let (run, _) = tokio::join!(run, drained);
        run.unwrap();
        until(&mut auth, <[Arc<Instance>]>::is_empty).await;
    }

    #[tokio::test]
    async fn another_port_is_there_before_the_old_one_goes() {
        let registry = Memory::new().connect();
        let mut auth = registry.subscribe("auth").unwrap();
        let agent = agent(&registry);
        agent.start();
        until(&mut auth, |seen| seen.len() == 1).await;
        let moved = |mut node: ServiceNode| {
            node.options.server_port = 9091;
            node
        };
        agent.service().update(moved).unwrap();
        let at = |port| {
            move |seen: &[Arc<Instance>]| seen.len() == 1 && seen[0].endpoint().port() == Some(port)
        };
        until(&mut auth, at(9091)).await;
        agent.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn what_was_never_registered_cannot_be_drained_and_is_deregistered() {
        let client = DirectClient::new(Memory::new().connect(), "10.0.0.7");
        let error = client.drain(&node("auth", 9090), None).await.unwrap_err();
        assert_eq!(error.to_string(), "local service not found: auth:9090");
        client.deregister(&node("auth", 9090)).await.unwrap();
        let nowhere = DirectClient::new(Memory::new().connect(), "0.0.0.0");
        let error = nowhere
            .register(&node("auth", 9090))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("0.0.0.0 is not an address that clients can dial"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn another_application_at_the_same_port_is_another_registration() {
        let registry = Memory::new().connect();
        let client = DirectClient::new(registry.clone(), "10.0.0.7");
        let (one, mut other) = (node("auth", 9090), node("auth", 9090));
        other.options.app.id = "a-2".into();
        client.register(&one).await.unwrap();
        client.register(&other).await.unwrap();
        client.deregister(&one).await.unwrap();
        let mut auth = registry.subscribe("auth").unwrap();
        let seen = until(&mut auth, |seen| seen.len() == 1).await;
        assert_eq!(seen[0].metadata()["app_id"], "a-2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_may_be_left_is_told_of_until_it_is_registered_again() {
        let backend = ScriptedBackend::default();
        let refused = Error::new(ErrorKind::Unavailable, "withdraw");
        backend
            .registrar
            .answer_all(Op::Withdraw, Answer::Fail(refused));
        let config = RegistryConfig::default().with_clock(Arc::new(TokioClock));
        let registry = Registry::with_config(Arc::new(backend.clone()), config);
        let (client, auth) = (DirectClient::new(registry, "10.0.0.7"), node("auth", 9090));
        client.register(&auth).await.unwrap();
        for _ in 0..3 {
            client.deregister(&auth).await.unwrap_err();
        }
        backend.registrar.answer_all(Op::Withdraw, Answer::Succeed);
        client.register(&auth).await.unwrap();
        client.deregister(&auth).await.unwrap();
        client.deregister(&auth).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_deregistration_beside_another_call_tells_what_became_of_the_record() {
        let backend = ScriptedBackend::default();
        let config = RegistryConfig::default().with_clock(Arc::new(TokioClock));
        let registry = Registry::with_config(Arc::new(backend.clone()), config);
        let (client, auth) = (DirectClient::new(registry, "10.0.0.7"), node("auth", 9090));
        for is_withdrawn in [false, true] {
            backend.registrar.answer_all(Op::Update, Answer::Succeed);
            client.register(&auth).await.unwrap();
            backend.registrar.answer_all(Op::Update, Answer::Hang);
            let refused = Error::new(ErrorKind::Unavailable, "withdraw");
            let answer = if is_withdrawn {
                Answer::Succeed
            } else {
                Answer::Fail(refused)
            };
            backend.registrar.answer_all(Op::Withdraw, answer);
            let (updated, done) = tokio::join!(client.register(&auth), client.deregister(&auth));
            updated.unwrap_err();
            assert_eq!(done.is_ok(), is_withdrawn, "{done:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_registration_has_ended_all_is_replayed() {
        use futures_util::StreamExt;
        let registry = Memory::new().connect();
        let client = DirectClient::new(registry.clone(), "10.0.0.7");
        client.register(&node("auth", 9090)).await.unwrap();
        let mut events = DirectSource::new(&client).subscribe().await.unwrap();
        for kind in [EventKind::Connected, EventKind::Heartbeat] {
            assert_eq!(events.next().await.unwrap().kind, kind);
        }
        registry.close().await.unwrap();
        assert_eq!(events.next().await.unwrap().kind, EventKind::Resync);
        // It is tried, and the runner's from then on.
        client.register(&node("auth", 9090)).await.unwrap_err();
        assert_eq!(events.next().await.unwrap().kind, EventKind::Heartbeat);
    }

    #[tokio::test(start_paused = true)]
    async fn the_source_tells_how_the_registry_is() {
        use futures_util::StreamExt;
        let registry = Memory::new().connect();
        let client = DirectClient::new(registry.clone(), "10.0.0.7");
        let mut events = DirectSource::new(&client).subscribe().await.unwrap();
        let first = events.next().await.unwrap();
        assert_eq!(
            (first.kind, first.ready),
            (EventKind::Connected, Some(true))
        );
        registry.close().await.unwrap();
        let second = events.next().await.unwrap();
        assert_eq!(
            (second.kind, second.status.as_str()),
            (EventKind::Heartbeat, "degraded")
        );
        assert_eq!(second.message, "closed");
    }
}
