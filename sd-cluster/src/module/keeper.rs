//! Keeps a session while something is wanted of the service that no reader of core asks for: the configuration, the routes, the addresses
//! of required modules.
//!
//! Core follows services and keeps records, and has no port for what a service sends a module by itself. So the task here retries, with
//! core's back-off.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use sd_core::retry::{FeedRetry, NextFeed};
use sd_core::{Error, Printable};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::client::newest::{Told, Topic};
use crate::client::session::{Session, read};
use crate::client::{Client, SharedSession};
use crate::module::remote_config::RemoteConfig;
use crate::module::routes_receiver::RoutesReceiver;
use crate::module::secret_words::SecretWords;
use crate::protocol::address::AddressConfiguration;

const OP: &str = "cluster: module";
/// The first pause after a session, at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A session that lived for so long starts the pauses over.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Keeps a session until the client is closed, and hands over what it brings. Ends when it is dropped.
pub(crate) async fn keep(client: Arc<Client>) {
    let mut retry = FeedRetry::new(FIRST_PAUSE, LONGEST_PAUSE, STABLE_AFTER);
    let mut applied = Applied::default();
    loop {
        let began = Instant::now();
        let error = match client.session(OP).await {
            Ok(session) => follow(&client, &session, &mut applied).await,
            Err(error) => error,
        };
        let pause = match retry.next(began.elapsed(), &error) {
            NextFeed::Resume(pause) | NextFeed::ReadAll(pause) => pause,
            NextFeed::Never => return,
        };
        debug!(error = %error.report(), ?pause, "the session of a module is begun again");
        tokio::select! {
            () = sleep(pause) => {}
            _ = client.signal.closed(OP) => return,
        }
    }
}

/// Hands over what a session brings until it is over. Returns why it is.
async fn follow(client: &Client, session: &SharedSession, applied: &mut Applied) -> Error {
    let config = client.config();
    let configs = async {
        if let Some(remote) = &config.remote_config {
            applied
                .follow(client, session, remote, &config.secret_words)
                .await;
        }
    };
    let routes = async {
        if let Some(receiver) = &config.routes_receiver {
            follow_routes(session, receiver).await;
        }
    };
    let required = config.required_modules.iter();
    let required = required.map(|module| follow_required(client, session, module));
    let over = async {
        tokio::select! {
            error = session.over(OP) => error,
            closed = client.signal.closed(OP) => closed,
        }
    };
    // What is handed over when the session ends is handed over to the end, within its bound.
    tokio::join!(over, configs, routes, join_all(required)).0
}

/// What a session tells of a topic, the newest if several came meanwhile.
struct Following<'a> {
    session: &'a Session,
    newest: watch::Receiver<Option<Told>>,
    last: u64,
}

impl<'a> Following<'a> {
    fn new(session: &'a Session, topic: Topic) -> Self {
        Self {
            session,
            newest: session.newest.follow(topic),
            last: 0,
        }
    }

    /// The next news. `None` when the session is over.
    async fn next(&mut self) -> Option<Told> {
        let told = self.session.wait_for(OP, &mut self.newest, self.last).await;
        let told = told.ok()?;
        self.last = told.number;
        Some(told)
    }
}

/// The last configuration, if it was applied. After one that was rejected the next one is handed over whatever it is: the receiver may have
/// done a part of what the rejected one wants.
#[derive(Default)]
struct Applied(Option<Bytes>);

impl Applied {
    async fn follow(
        &mut self,
        client: &Client,
        session: &Session,
        remote: &RemoteConfig,
        words: &SecretWords,
    ) {
        let mut configs = Following::new(session, Topic::Config);
        while let Some(Told { data: json, .. }) = configs.next().await {
            // With each session the service sends it again.
            if self.0.as_ref() == Some(&json) {
                client.state.config_came_again();
                continue;
            }
            debug!(config = %shown(words, &json), "a configuration came");
            let outcome = remote.apply(&json).await;
            match &outcome {
                Ok(()) => {
                    info!("a configuration is applied");
                    self.0 = Some(json);
                }
                Err(reason) => {
                    warn!(reason, "a configuration is rejected");
                    self.0 = None;
                }
            }
            client.state.config(outcome);
        }
    }
}

/// A configuration as it may be logged.
fn shown(words: &SecretWords, json: &[u8]) -> String {
    match words.hide(json) {
        Ok(hidden) => Printable(&hidden).to_string(),
        Err(_) => format!("{} bytes that are no JSON object", json.len()),
    }
}

async fn follow_routes(session: &Session, receiver: &RoutesReceiver) {
    let mut routes = Following::new(session, Topic::Routes);
    while let Some(told) = routes.next().await {
        let outcome = match session.routes(OP, &told).await {
            Ok(routes) => receiver.receive(routes).await,
            Err(error) => Err(error.report().to_string()),
        };
        if let Err(reason) = outcome {
            warn!(reason, "routes were not received");
        }
    }
}

async fn follow_required(client: &Client, session: &Session, module: &str) {
    let mut lists = Following::new(session, Topic::Hosts(module.to_owned()));
    while let Some(told) = lists.next().await {
        match read::<AddressConfiguration>(OP, &told.data).await {
            Ok(hosts) => client.state.required(module, hosts.len()),
            Err(error) => {
                warn!(module, error = %error.report(), "the addresses of a module cannot be read");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };
    use sd_core::clock::TokioClock;
    use sd_core::sync::lock;
    use serde_json::{Value, json};

    use super::*;
    use crate::scripted::{SOON, Service};
    use crate::{CONFIGS, ClusterConfig, ConfigHealth, Received};

    type Seen = Arc<Mutex<Vec<Value>>>;

    /// Notes each configuration, and refuses those with a field `bad`.
    fn noting(seen: &Seen) -> RemoteConfig {
        let seen = Arc::clone(seen);
        RemoteConfig::new(
            r#"{ "default": true }"#,
            move |received: Received<Value>| {
                let seen = Arc::clone(&seen);
                async move {
                    lock(&seen).push((*received.config).clone());
                    if received.config.get("bad").is_some() {
                        return Err("bad");
                    }
                    Ok(())
                }
            },
        )
        .unwrap()
    }

    /// Keeps a session as long as it is not dropped.
    fn kept(config: ClusterConfig) -> (Arc<Client>, tokio::task::JoinHandle<()>) {
        let client = Arc::new(Client::new(config, Arc::new(TokioClock)).unwrap());
        let task = tokio::spawn(keep(Arc::clone(&client)));
        (client, task)
    }

    async fn until(what: &str, is: impl Fn() -> bool) {
        sd_testing::eventually(what, SOON, || ready(is())).await;
    }

    /// Counts configurations.
    #[derive(Default)]
    struct Counting(Arc<AtomicU64>);

    impl Recorder for Counting {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            match key.name() {
                CONFIGS => Counter::from_arc(Arc::clone(&self.0)),
                _ => Counter::noop(),
            }
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[tokio::test]
    async fn a_configuration_is_applied_once_however_often_it_comes() {
        let counting = Counting::default();
        // For this thread, which runs all of the test.
        let _counted = metrics::set_default_local_recorder(&counting);
        let service = Service::start().await;
        let seen = Seen::default();
        let (client, task) = kept(service.config().with_remote_config(noting(&seen)));
        let mut first = service.accept().await;
        let schema = first.configure(r#"{"a":1}"#).await;
        let sent = String::from_utf8(schema.data.to_vec()).unwrap();
        assert!(sent.ends_with(r#""config":{ "default": true }}"#), "{sent}");
        let is = |config: &ConfigHealth| client.state.health(client.clock.now()).config == *config;
        until("applied", || is(&ConfigHealth::Applied)).await;
        first.tell("CONFIG:SEND_CONFIG_CHANGED", r#"{"a":1}"#).await;
        drop(first);
        let mut second = service.accept().await;
        second.configure(r#"{"a":1}"#).await;
        second
            .tell("CONFIG:SEND_CONFIG_CHANGED", r#"{"a":2}"#)
            .await;
        until("the change", || lock(&seen).len() == 2).await;
        assert_eq!(*lock(&seen), [json!({"a":1}), json!({"a":2})]);
        until("applied again", || is(&ConfigHealth::Applied)).await;
        assert_eq!(counting.0.load(Ordering::Relaxed), 2);
        client.close().await;
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_rejected_configuration_is_told_keeps_the_session_and_is_followed_by_the_next() {
        let service = Service::start().await;
        let seen = Seen::default();
        let (client, _task) = kept(service.config().with_remote_config(noting(&seen)));
        let mut played = service.accept().await;
        played.configure(r#"{"bad":1}"#).await;
        let config = || client.state.health(client.clock.now()).config;
        let rejected = |has_earlier| ConfigHealth::Rejected {
            reason: "bad".to_owned(),
            has_earlier,
        };
        until("rejected", || config() == rejected(false)).await;
        for (json, health) in [
            (r#"{"good":1}"#, ConfigHealth::Applied),
            (r#"{"bad":2}"#, rejected(true)),
            // Back to the last one that was applied, as an operator does.
            (r#"{"good":1}"#, ConfigHealth::Applied),
            (r#"{"bad":3}"#, rejected(true)),
        ] {
            played.tell("CONFIG:SEND_CONFIG_CHANGED", json).await;
            until(json, || config() == health).await;
        }
        played.tell("CONFIG:SEND_CONFIG_CHANGED", "hunter2").await;
        until("unreadable", || config() != rejected(true)).await;
        let good = lock(&seen)
            .iter()
            .filter(|one| one.get("good").is_some())
            .count();
        assert_eq!(good, 2, "what was applied before is handed over again");
        let shown = format!("{:?}", config());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(!played.connection.peer.is_over());
    }

    #[tokio::test]
    async fn routes_are_handed_over_and_required_modules_counted() {
        let service = Service::start().await;
        let seen = Arc::<Mutex<Vec<usize>>>::default();
        let noted = Arc::clone(&seen);
        let receiver = RoutesReceiver::new(move |routes: Arc<crate::RoutingConfig>| {
            lock(&noted).push(routes.len());
            async { Ok::<(), String>(()) }
        });
        let config = service.config().with_required_module("A");
        let (client, _task) = kept(config.with_routes_receiver(receiver));
        let mut played = service.accept().await;
        played.take_question("A", &[]).await;
        played.tell("CONFIG:SEND_ROUTES_WHEN_CONNECTED", "[]").await;
        played.tell("CONFIG:SEND_ROUTES_CHANGED", "garbage").await;
        let routes = r#"[{"moduleName":"A"},{"moduleName":"B"}]"#;
        played.tell("CONFIG:SEND_ROUTES_CHANGED", routes).await;
        until("the routes", || lock(&seen).last() == Some(&2)).await;
        let known = || client.state.health(client.clock.now()).required["A"];
        until("that A is known", || known() == Some(0)).await;
        played.tell_hosts("A", &[1, 2]).await;
        until("that A is there", || known() == Some(2)).await;
        drop(played);
        until("that A is not known", || known().is_none()).await;
    }

    #[test]
    fn a_configuration_is_logged_without_its_secrets_or_not_at_all() {
        let words = SecretWords::default();
        let text = shown(&words, br#"{"password":"hunter2","name":"a\u001b"}"#);
        assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
        assert!(!shown(&words, b"hunter2").contains("hunter2"));
    }
}
