//! Writing: a record is a connection on which the service was told that a module is ready.
//!
//! A service keeps as many entries of one module at one address as it has connections, and knows no ids: records of two processes never
//! conflict. What a process holds is known here alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use sd_core::port::{Attempt, Limits, Registration};
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Instance, RecordId, Registrar, Result};
use tokio::time::timeout;

use crate::client::Client;
use crate::codec::declaration;
use crate::etp::connection::Peer;
use crate::etp::message::MOST_BYTES;
use crate::writing::announcement::Announcement;
use crate::writing::registration::{ClusterRegistration, Kept};

/// How long the service may take to confirm that connections are closed, when all are.
const CLOSED_WITHIN: Duration = Duration::from_millis(1500);
/// Room for the name and the id of the event.
const ENVELOPE: usize = 64;
/// Beyond what each part of an attempt may take, so that the part says why it failed, on a busy machine, too.
const SLACK: Duration = Duration::from_secs(1);
/// More than any time-to-live that is asked for. That of a record is set by the ping interval.
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);

/// Writes records to one cluster.
#[derive(Debug)]
pub(crate) struct ClusterRegistrar {
    client: Arc<Client>,
    limits: Limits,
    kept: Mutex<HashMap<RecordId, Arc<Kept>>>,
}

impl ClusterRegistrar {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        let shortest = Duration::from_millis(1);
        // To wait until the module is ready, and then to announce it.
        let attempt = 2 * client.config().handshake_timeout + SLACK;
        Self {
            limits: Limits::new(shortest..=LONGEST_TTL, MOST_BYTES - ENVELOPE)
                .with_attempt(attempt),
            client,
            kept: Mutex::default(),
        }
    }

    fn kept(&self, record: &RecordId) -> Option<Arc<Kept>> {
        lock(&self.kept).get(record).cloned()
    }

    fn registration(&self, kept: Arc<Kept>) -> Box<dyn Registration> {
        Box::new(ClusterRegistration {
            client: Arc::clone(&self.client),
            kept,
        })
    }

    /// Waits until the module that this process is may be announced.
    async fn ready(&self, op: &'static str, record: &Instance) -> Result<()> {
        if record.service().as_str() != self.client.config().module_name {
            return Ok(());
        }
        let limit = self.client.config().handshake_timeout;
        if let Ok(ready) = timeout(limit, self.client.ready(op)).await {
            return ready;
        }
        let health = self.client.state.health(self.client.clock.now());
        Err(Error::new(ErrorKind::Unavailable, op)
            .because(format!("the module is not ready: {health}")))
    }

    /// Withdraws all records. The client is closed.
    pub(crate) async fn close(&self) {
        let all = std::mem::take(&mut *lock(&self.kept));
        let closing = all.into_values().filter_map(|kept| kept.withdraw());
        let closing: Vec<_> = closing.collect();
        let closed = join_all(closing.iter().map(Peer::gone));
        // A service that is gone confirms nothing.
        let _ = timeout(CLOSED_WITHIN, closed).await;
    }
}

#[async_trait]
impl Registrar for ClusterRegistrar {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn record_bytes(&self, record: &Instance) -> Result<usize> {
        const OP: &str = "cluster: register";
        let declared = declaration(OP, self.client.config(), record)?;
        let json = serde_json::to_vec(&declared);
        let json = json.map_err(|error| {
            Error::invalid_input(OP, "the record cannot be written").with_source(error)
        })?;
        Ok(json.len())
    }

    async fn register(
        &self,
        record: &Instance,
        _attempt: &Attempt,
    ) -> Result<Box<dyn Registration>> {
        const OP: &str = "cluster: register";
        self.client.signal.check_open(OP)?;
        self.ready(OP, record).await?;
        let id = record.record_id();
        // An earlier attempt may have been confirmed.
        if let Some(kept) = self.kept(&id).filter(|kept| kept.is_alive()) {
            kept.update(OP, &self.client, record).await?;
            return Ok(self.registration(kept));
        }
        let opening = Announcement::open(OP, &self.client, record);
        let announcement = self.client.signal.unless_closed(OP, opening).await?;
        let kept = Arc::new(Kept::new(id.clone(), announcement));
        let before = {
            let mut all = lock(&self.kept);
            // Under the lock, so that nothing is kept after the close has taken all.
            self.client.signal.check_open(OP)?;
            all.insert(id, Arc::clone(&kept))
        };
        // It is over, or of a call that was made at the same time.
        if let Some(before) = before {
            before.withdraw();
        }
        Ok(self.registration(kept))
    }

    async fn withdraw(&self, record: &RecordId) -> Result<()> {
        const OP: &str = "cluster: withdraw";
        self.client.signal.check_open(OP)?;
        let kept = lock(&self.kept).remove(record);
        if let Some(peer) = kept.and_then(|kept| kept.withdraw()) {
            peer.gone().await;
        }
        Ok(())
    }

    fn abandoned(&self, record: &RecordId) {
        let kept = lock(&self.kept).remove(record);
        if let Some(kept) = kept {
            kept.withdraw();
        }
    }

    async fn release(&self, record: &RecordId) -> Result<()> {
        Err(
            Error::new(ErrorKind::Unsupported, "cluster: release").because(format!(
                "the record of {:?} ends with its connection, which this process has",
                record.id
            )),
        )
    }
}

#[cfg(test)]
mod tests {
    use sd_core::clock::TokioClock;
    use sd_core::{RegistrationPhase, Registry};
    use serde_json::Value;

    use super::*;
    use crate::protocol::events::MODULE_READY;
    use crate::scripted::{Played, SOON, Service};
    use crate::{ClusterConfig, Received, RemoteConfig};

    fn registrar(config: ClusterConfig) -> ClusterRegistrar {
        let client = Client::new(config, Arc::new(TokioClock)).unwrap();
        ClusterRegistrar::new(Arc::new(client))
    }

    fn instance() -> Instance {
        Instance::new("m", "10.0.0.1:1").unwrap()
    }

    const ATTEMPT: Duration = Duration::from_secs(6);

    async fn register(
        registrar: &ClusterRegistrar,
        instance: &Instance,
    ) -> Result<Box<dyn Registration>> {
        registrar.register(instance, &Attempt::new(ATTEMPT)).await
    }

    async fn take_ready(service: &Service) -> (Played, Value) {
        let mut played = service.accept().await;
        let ready = played.take_ready().await;
        (played, ready)
    }

    #[tokio::test]
    async fn a_record_is_a_connection_and_an_update_opens_the_next_one_first() {
        let service = Service::start().await;
        let registrar = registrar(service.config());
        let instance = instance();
        let (registration, (mut first, ready)) =
            tokio::join!(register(&registrar, &instance), take_ready(&service));
        let registration = registration.unwrap();
        assert_eq!(first.module, "m");
        assert_eq!(ready["address"]["port"], "1");
        // What does not change costs nothing.
        registration
            .update(&instance.clone().with_weight(7))
            .await
            .unwrap();
        registration.renew().await.unwrap();

        let changed = instance.clone().with_version("2");
        let updating = registration.update(&changed);
        let play = async {
            let (second, ready) = take_ready(&service).await;
            assert_eq!(ready["version"], "2");
            assert!(!first.connection.peer.is_over(), "it was closed too early");
            first.closed().await;
            second
        };
        let (updated, mut second) = tokio::join!(updating, play);
        updated.unwrap();
        registration.renew().await.unwrap();
        let record = instance.record_id();
        let (withdrawn, ()) = tokio::join!(registrar.withdraw(&record), second.closed());
        withdrawn.unwrap();
        for error in [
            registration.renew().await.unwrap_err(),
            registration.update(&changed).await.unwrap_err(),
            timeout(SOON, registration.lost()).await.unwrap(),
        ] {
            assert_eq!(error.kind(), ErrorKind::LeaseLost);
        }
    }

    #[tokio::test]
    async fn an_update_that_fails_leaves_the_record_as_it_is() {
        let service = Service::start().await;
        let registrar = registrar(service.config());
        let instance = instance();
        let (registration, (first, _)) =
            tokio::join!(register(&registrar, &instance), take_ready(&service));
        let registration = registration.unwrap();
        let refuse = async {
            let mut second = service.accept().await;
            let ready = second.event().await;
            second.answer(&ready, "handle onModuleReady: no").await;
            second.closed().await;
        };
        let changed = instance.with_version("2");
        let (updated, ()) = tokio::join!(registration.update(&changed), refuse);
        assert_eq!(updated.unwrap_err().kind(), ErrorKind::Rejected);
        assert!(!first.connection.peer.is_over());
        registration.renew().await.unwrap();
    }

    #[tokio::test]
    async fn what_is_not_ready_is_connected_and_not_announced() {
        let service = Service::start().await;
        let registrar = registrar(service.config());
        let instance = instance().with_ready(false);
        let (registration, mut first) =
            tokio::join!(register(&registrar, &instance), service.accept());
        let registration = registration.unwrap();
        registration.renew().await.unwrap();
        let ready = instance.clone().with_ready(true);
        let (updated, _) = tokio::join!(registration.update(&ready), first.take_ready());
        updated.unwrap();
        // To take it back, the protocol has no word but the end of the connection.
        let play = async {
            let second = service.accept().await;
            first.closed().await;
            second
        };
        let (updated, mut second) = tokio::join!(registration.update(&instance), play);
        updated.unwrap();
        registration.renew().await.unwrap();
        let ((), ()) = tokio::join!(registrar.close(), second.closed());
    }

    #[tokio::test]
    async fn what_may_have_been_announced_is_replaced_by_the_next_connection() {
        for is_ready in [false, true] {
            let service = Service::start().await;
            let registrar = registrar(service.config());
            let waiting = instance().with_ready(false);
            let (registration, mut first) =
                tokio::join!(register(&registrar, &waiting), service.accept());
            let registration = registration.unwrap();
            let ready = waiting.clone().with_ready(true);
            // The service has it, and the answer is lost.
            tokio::select! {
                updated = registration.update(&ready) => panic!("{updated:?}"),
                _ = first.expect(MODULE_READY) => {}
            }
            let next = waiting.with_ready(is_ready);
            let play = async {
                let mut second = service.accept().await;
                if is_ready {
                    second.take_ready().await;
                }
                first.closed().await;
                second
            };
            let (updated, second) = tokio::join!(registration.update(&next), play);
            updated.unwrap();
            assert!(!second.connection.peer.is_over());
            registration.renew().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_loss_is_told_at_once_and_registering_again_opens_a_connection() {
        let service = Service::start().await;
        let registrar = registrar(service.config());
        let instance = instance();
        let (registration, (first, _)) =
            tokio::join!(register(&registrar, &instance), take_ready(&service));
        let registration = registration.unwrap();
        drop(first);
        let lost = timeout(SOON, registration.lost()).await.unwrap();
        assert_eq!(lost.kind(), ErrorKind::LeaseLost);
        let (again, _second) = tokio::join!(register(&registrar, &instance), take_ready(&service));
        again.unwrap().renew().await.unwrap();
        assert!(registration.renew().await.is_err());
    }

    #[tokio::test]
    async fn a_second_refusal_of_ready_and_silence_are_failures_that_leave_nothing() {
        let service = Service::start().await;
        let registrar = registrar(
            service
                .config()
                .with_handshake_timeout(Duration::from_millis(300)),
        );
        for (answer, kind) in [
            (Some("handle onModuleReady: no"), ErrorKind::Rejected),
            (Some(""), ErrorKind::Rejected),
            (None, ErrorKind::Timeout),
        ] {
            let play = async {
                let mut played = service.accept().await;
                let ready = played.event().await;
                if let Some(answer) = answer {
                    played.answer(&ready, answer).await;
                }
                played.closed().await;
            };
            let instance = instance();
            let (registered, ()) = tokio::join!(register(&registrar, &instance), play);
            assert_eq!(registered.unwrap_err().kind(), kind);
        }
        assert!(lock(&registrar.kept).is_empty());
    }

    #[tokio::test]
    async fn with_lenient_acks_any_answer_is_success() {
        let service = Service::start().await;
        let registrar = registrar(service.config().with_lenient_acks(true));
        for answer in ["handle onModuleReady: no", ""] {
            let play = async {
                let mut played = service.accept().await;
                let ready = played.event().await;
                played.answer(&ready, answer).await;
                played
            };
            let instance = instance();
            let (registered, mut played) = tokio::join!(register(&registrar, &instance), play);
            registered.unwrap().renew().await.unwrap();
            let record = instance.record_id();
            tokio::join!(registrar.withdraw(&record), played.closed())
                .0
                .unwrap();
        }
    }

    async fn next_failure(guard: &mut sd_core::RegistrationGuard) -> String {
        let failed = async {
            loop {
                let event = guard.next_event().await.unwrap();
                if let sd_core::RegistrationEvent::Retrying { error, .. } = event {
                    return error.report().to_string();
                }
            }
        };
        timeout(SOON, failed).await.unwrap()
    }

    #[tokio::test]
    async fn a_registration_says_whether_its_module_or_the_service_was_late() {
        const LIMIT: Duration = Duration::from_secs(1);
        let service = Service::start().await;
        let config = service
            .config()
            .with_required_module("A")
            .with_await_required(true)
            .with_handshake_timeout(LIMIT);
        let registry: Registry = crate::connect(config).unwrap();
        let mut session = service.accept().await;
        session.take_question("A", &[]).await;
        let mut guard = registry.register(instance()).in_background().unwrap();
        let report = next_failure(&mut guard).await;
        let why = "the module is not ready: connected to";
        assert!(report.contains(why), "{report}");
        // Most of the time goes by before the module is ready, and the service never confirms it.
        tokio::time::sleep(LIMIT * 3 / 4).await;
        session.tell_hosts("A", &[1]).await;
        let _announced = service.accept().await;
        let report = next_failure(&mut guard).await;
        assert!(
            report.contains("did not confirm that the module is ready"),
            "{report}"
        );
    }

    #[tokio::test]
    async fn a_module_is_announced_when_its_configuration_is_applied() {
        let service = Service::start().await;
        let receiver = async |received: Received<Value>| match received.config.get("good") {
            Some(_) => Ok(()),
            None => Err("not good"),
        };
        let remote = RemoteConfig::new("{}", receiver).unwrap();
        let registry: Registry =
            crate::connect(service.config().with_remote_config(remote)).unwrap();
        let module = crate::module(&registry).unwrap();
        let mut session = service.accept().await;
        session.configure("{}").await;
        let guard = registry.register(instance()).in_background().unwrap();
        let is_rejected = || {
            let health = module.health();
            matches!(health.config, crate::ConfigHealth::Rejected { .. })
        };
        sd_testing::eventually("rejected", SOON, || std::future::ready(is_rejected())).await;
        assert_ne!(guard.phase(), RegistrationPhase::Registered);
        session
            .tell("CONFIG:SEND_CONFIG_CHANGED", r#"{"good":true}"#)
            .await;
        let (_announced, ready) = take_ready(&service).await;
        assert_eq!(ready["moduleName"], "m");
        timeout(SOON, module.ready()).await.unwrap().unwrap();
    }
}
