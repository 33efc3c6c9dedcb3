//! The session of the module: one connection that brings its configuration, the routes, and the addresses of the modules that are read.
//!
//! It never says that the module is ready: each record has a connection of its own, so that neither a new session nor an update of a record
//! disturbs the other.

use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use sd_core::clock::Clock;
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Incarnation, Printable, Result, brief};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::client::connection::Connector;
use crate::client::error::{AckRule, shown};
use crate::client::newest::{Newest, Told, Topic};
use crate::client::state::State;
use crate::config::ClusterConfig;
use crate::etp::connection::{Connection, Peer};
use crate::protocol::declaration::RoutingConfig;
use crate::protocol::events::{
    ERROR_CONFIG, ERROR_CONNECTION, MODULE_SEND_CONFIG_SCHEMA, MODULE_SEND_REQUIREMENTS,
};
use crate::protocol::requirements::ModuleRequirements;

/// What is larger is read beside the runtime, which it would hold up.
const LARGE: usize = 128 * 1024;

/// One session. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) peer: Peer,
    pub(crate) endpoint: String,
    pub(crate) newest: Arc<Newest>,
    /// Names the history of what is told: numbers of two sessions cannot be compared.
    pub(crate) history: Arc<str>,
    refused: Arc<OnceLock<Error>>,
    acks: AckRule,
    /// What came of the routes that were read last, with their number.
    routes: Mutex<Option<(u64, Result<Arc<RoutingConfig>>)>>,
    _handler: AbortOnDropHandle<()>,
}

impl Session {
    /// Begins a session: connects, tells what is wanted, and waits for the first of each. The caller bounds the time. Cancel-safe: a
    /// dropped call closes the connection.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn begin(
        op: &'static str,
        connector: &Connector,
        config: &ClusterConfig,
        state: &Arc<State>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        let (connection, endpoint) = connector.connect(op, &config.module_name).await?;
        let newest = Arc::new(Newest::default());
        let mut topics = Vec::new();
        topics.extend(config.remote_config.as_ref().map(|_| Topic::Config));
        topics.extend(config.wants_routes().then_some(Topic::Routes));
        topics.extend(config.followed().cloned().map(Topic::Hosts));
        // Before anything is asked: what comes at once must not be missed.
        let firsts: Vec<_> = topics
            .into_iter()
            .map(|topic| newest.follow(topic))
            .collect();
        let refused = Arc::<OnceLock<Error>>::default();
        let peer = connection.peer.clone();
        let number = state.begin();
        let handler = Handler {
            number,
            connection,
            newest: Arc::clone(&newest),
            refused: Arc::clone(&refused),
            state: Arc::clone(state),
            clock: Arc::clone(clock),
        };
        let session = Self {
            peer,
            endpoint,
            newest,
            history: format!("isp-session-{}", Incarnation::random()).into(),
            refused,
            acks: config.acks(),
            routes: Mutex::default(),
            _handler: AbortOnDropHandle::new(tokio::spawn(handler.run())),
        };
        if let Some(remote) = &config.remote_config {
            let data = remote.data(&config.version);
            session.tell(op, MODULE_SEND_CONFIG_SCHEMA, &data).await?;
        }
        let wanted = ModuleRequirements {
            required_modules: config.followed().cloned().collect(),
            require_routes: config.wants_routes(),
        };
        if wanted != ModuleRequirements::default() {
            session.tell(op, MODULE_SEND_REQUIREMENTS, &wanted).await?;
        }
        for mut first in firsts {
            session.wait_for(op, &mut first, 0).await?;
        }
        state.established(number, &session.endpoint, clock.now());
        info!(
            endpoint = session.endpoint,
            "a session of isp modules is established"
        );
        Ok(session)
    }

    /// Sends an event, and waits until the service has taken it.
    ///
    /// # Errors
    /// `Rejected` with what the service says, or that the session is over.
    async fn tell(
        &self,
        op: &'static str,
        event: &'static str,
        payload: &impl serde::Serialize,
    ) -> Result<()> {
        let answer = tell(op, &self.peer, self.acks, event, payload).await;
        answer.map_err(|error| self.refused.get().cloned().unwrap_or(error))
    }

    /// Has the service tell what `topic` is now, and each change from now on. The number of what was told last before that is returned.
    ///
    /// # Errors
    /// As [`tell`](Self::tell).
    pub(crate) async fn require(&self, op: &'static str, topic: &Topic) -> Result<u64> {
        let before = self.newest.last_number();
        let wanted = ModuleRequirements {
            required_modules: match topic {
                Topic::Hosts(module) => vec![module.clone()],
                _ => Vec::new(),
            },
            require_routes: *topic == Topic::Routes,
        };
        self.tell(op, MODULE_SEND_REQUIREMENTS, &wanted).await?;
        Ok(before)
    }

    /// Waits for something with a higher number than `after`. Cancel-safe.
    ///
    /// # Errors
    /// That the session is over.
    pub(crate) async fn wait_for(
        &self,
        op: &'static str,
        newest: &mut watch::Receiver<Option<Told>>,
        after: u64,
    ) -> Result<Told> {
        let is_newer = |told: &Option<Told>| told.as_ref().is_some_and(|told| told.number > after);
        let told = tokio::select! {
            biased;
            told = newest.wait_for(is_newer) => told.ok().and_then(|told| told.clone()),
            error = self.over(op) => return Err(error),
        };
        // It is there: the session holds the sender.
        told.ok_or_else(|| Error::new(ErrorKind::Unavailable, op))
    }

    /// Waits until the session is over, and returns why. Cancel-safe.
    pub(crate) async fn over(&self, op: &'static str) -> Error {
        let ended = self.peer.ended().await;
        match self.refused.get() {
            Some(error) => error.clone(),
            None => ended.error(op),
        }
    }

    /// Waits until something comes, which shows that the service lives. Cancel-safe.
    pub(crate) async fn heard(&self) {
        let mut heard = self.peer.heard();
        // Fails if the connection is over, which who waits is told as well.
        if heard.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The routes that were told. They are read once for all who want them.
    ///
    /// # Errors
    /// `InvalidData` says where they cannot be read.
    pub(crate) async fn routes(&self, op: &'static str, told: &Told) -> Result<Arc<RoutingConfig>> {
        let known = lock(&self.routes).clone();
        if let Some((number, routes)) = known
            && number == told.number
        {
            return routes;
        }
        let read = read(op, &told.data).await.map(Arc::new);
        let mut known = lock(&self.routes);
        if known
            .as_ref()
            .is_none_or(|(number, _)| *number < told.number)
        {
            *known = Some((told.number, read.clone()));
        }
        read
    }

    /// The number of the last routes if they could not be read, and why.
    pub(crate) fn unreadable_routes(&self) -> Option<(u64, Error)> {
        let known = lock(&self.routes).clone();
        known.and_then(|(number, read)| Some((number, read.err()?)))
    }
}

/// Sends an event, and waits until the service has taken it. The caller bounds the time.
///
/// # Errors
/// `Rejected` with what the service says, or that the connection is over.
pub(crate) async fn tell(
    op: &'static str,
    peer: &Peer,
    acks: AckRule,
    event: &'static str,
    payload: &impl serde::Serialize,
) -> Result<()> {
    let json = serde_json::to_vec(payload).map_err(|error| {
        Error::invalid_input(op, format!("the payload of {event} cannot be written"))
            .with_source(error)
    })?;
    let answer = peer.ask(op, event, json).await?;
    acks.check(op, event, &answer)
}

/// Reads what a service has told, in which `null` stands for an empty list.
///
/// # Errors
/// `InvalidData` says where it cannot be read.
pub(crate) async fn read<T>(op: &'static str, data: &Bytes) -> Result<Vec<T>>
where
    T: DeserializeOwned + Send + 'static,
{
    let wrong = |why| Error::new(ErrorKind::InvalidData, op).because(why);
    if data.len() < LARGE {
        return parse(data).map_err(wrong);
    }
    let data = data.clone();
    match tokio::task::spawn_blocking(move || parse(&data)).await {
        Ok(read) => read.map_err(wrong),
        Err(_) => Err(Error::new(ErrorKind::Unavailable, op).because("the runtime has ended")),
    }
}

/// A list that was told, or where it is none.
pub(crate) fn parse<T: DeserializeOwned>(data: &[u8]) -> Result<Vec<T>, String> {
    sd_backend::read_json::<Option<Vec<T>>>(data).map(Option::unwrap_or_default)
}

/// Puts what comes where its readers look for it.
struct Handler {
    number: u64,
    connection: Connection,
    newest: Arc<Newest>,
    refused: Arc<OnceLock<Error>>,
    state: Arc<State>,
    clock: Arc<dyn Clock>,
}

/// Logs an event that is of no use: the first one of a session as a warning.
fn tell_odd(event: &str, why: &str, is_news: &mut bool) {
    let event = brief(Printable(event));
    if std::mem::take(is_news) {
        warn!(event, why, "an event of isp modules is of no use");
    } else {
        debug!(event, why, "another event of isp modules is of no use");
    }
}

/// Has the health say that there is no session, also where its handler is dropped before the connection has ended.
impl Drop for Handler {
    fn drop(&mut self) {
        self.state.let_go(self.number, self.clock.now());
    }
}

impl Handler {
    async fn run(mut self) {
        const OP: &str = "cluster: session";
        // A service that sends many such events does not fill the log.
        let mut is_news = true;
        while let Some(event) = self.connection.events.recv().await {
            let name = String::from_utf8_lossy(&event.name);
            match Topic::of(&name) {
                Some(topic) => {
                    let now = self.clock.now();
                    if !self.newest.put(&topic, event.data.clone(), now) {
                        tell_odd(&name, "was not asked for", &mut is_news);
                    }
                }
                None if [ERROR_CONFIG, ERROR_CONNECTION].contains(&name.as_ref()) => {
                    let said = shown(&event.data);
                    let error = Error::new(ErrorKind::Rejected, OP)
                        .because(format!("the service ends the session with {name}: {said}"));
                    // The first one counts.
                    let _ = self.refused.set(error);
                    self.connection.peer.close();
                }
                None => tell_odd(&name, "is unknown", &mut is_news),
            }
            // Fails if the connection is over, which the next event tells.
            let _ = self.connection.peer.answer(OP, &event, Bytes::new()).await;
        }
        let ended = self.connection.peer.ended().await;
        let error = self.refused.get().cloned();
        let error = error.unwrap_or_else(|| ended.error(OP));
        info!(error = %error.report(), "a session of isp modules is over");
        self.state.down(self.number, &error, self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::clock::TokioClock;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::client::Client;
    use crate::etp::frame::Close;
    use crate::module::health::SessionHealth;
    use crate::protocol::events::MODULE_SEND_CONFIG_SCHEMA;
    use crate::scripted::{SOON, Service};

    const OP: &str = "test";

    fn client(config: ClusterConfig) -> Arc<Client> {
        Arc::new(Client::new(config, Arc::new(TokioClock)).unwrap())
    }

    #[tokio::test]
    async fn a_session_is_established_when_the_first_of_each_has_come_in_any_order() {
        let service = Service::start().await;
        let config = service.config().with_required_module("A").with_routes(true);
        let client = client(config);
        let begin = client.session(OP);
        let play = async {
            let mut played = service.accept().await;
            assert_eq!(played.module, "m");
            let asked = played.expect(MODULE_SEND_REQUIREMENTS).await;
            let wanted = r#"{"requiredModules":["A"],"requireRoutes":true}"#;
            assert_eq!(asked.data, wanted.as_bytes());
            // Before the answer.
            played.tell_hosts("A", &[1, 2]).await;
            played.answer(&asked, "ok").await;
            played.tell("CONFIG:SEND_ROUTES_WHEN_CONNECTED", "[]").await;
            played
        };
        let (session, _played) = tokio::join!(begin, play);
        let session = session.unwrap();
        let told = session.newest.follow(Topic::Hosts("A".to_owned()));
        assert_eq!(told.borrow().as_ref().unwrap().number, 1);
        let health = client.state.health(client.clock.now());
        let endpoint = service.address();
        assert_eq!(health.session, SessionHealth::Established { endpoint });
    }

    /// As a client in Go began one. It tells that it is ready on the same connection, and ours on another one.
    #[tokio::test]
    async fn the_exchange_that_begins_a_session_is_that_of_a_module_in_go() {
        let service = Service::start().await;
        let receiver = async |_: crate::Received<serde_json::Value>| Ok::<(), String>(());
        let remote = crate::RemoteConfig::new(r#"{"password":"p"}"#, receiver).unwrap();
        let config = service
            .config()
            .with_version("1.2.3")
            .with_required_module("A")
            .with_routes(true)
            .with_remote_config(remote.with_schema(r#"{"type":"object"}"#).unwrap());
        let client = client(config);
        let play = async {
            let mut played = service.accept().await;
            let schema = played.configure(r#"{"password":"p"}"#).await;
            let asked = played.take(MODULE_SEND_REQUIREMENTS).await;
            played.tell("CONFIG:SEND_ROUTES_WHEN_CONNECTED", "[]").await;
            played.tell("A_MODULE_CONNECTED", "[]").await;
            [schema.encode(), asked.encode()]
        };
        let (session, sent) = tokio::join!(client.session(OP), play);
        session.unwrap();
        let expected: [&[u8]; 2] = [
            br#"MODULE:SEND_CONFIG_SCHEMA||1||{"version":"1.2.3","schema":{"type":"object"},"config":{"password":"p"}}"#,
            br#"MODULE:SEND_REQUIREMENTS||2||{"requiredModules":["A"],"requireRoutes":true}"#,
        ];
        assert_eq!(sent, expected);
    }

    #[tokio::test]
    async fn anything_but_one_word_is_a_failure_and_the_next_attempt_a_new_session() {
        let service = Service::start().await;
        let client = client(service.config().with_required_module("A"));
        for answer in ["", "OK", "handle onModuleRequirements: no"] {
            let play = async {
                let mut played = service.accept().await;
                let asked = played.expect(MODULE_SEND_REQUIREMENTS).await;
                played.answer(&asked, answer).await;
                played.closed().await;
            };
            let (session, ()) = tokio::join!(client.session(OP), play);
            assert_eq!(session.unwrap_err().kind(), ErrorKind::Rejected);
            assert!(client.state.health(client.clock.now()).check().is_err());
        }
    }

    #[tokio::test]
    async fn what_never_comes_is_given_up_within_one_deadline() {
        let service = Service::start().await;
        let config = service.config().with_required_module("A");
        let limit = Duration::from_millis(500);
        let client = client(config.with_handshake_timeout(limit));
        for answers in [false, true] {
            let began = Instant::now();
            let play = async {
                let mut played = service.accept().await;
                let asked = played.expect(MODULE_SEND_REQUIREMENTS).await;
                if answers {
                    played.answer(&asked, "ok").await;
                }
                played.closed().await;
            };
            let (session, ()) = tokio::join!(client.session(OP), play);
            let error = session.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert!(began.elapsed() >= limit);
        }
    }

    #[tokio::test]
    async fn a_server_that_never_answers_the_upgrade_is_given_up() {
        let service = Service::start().await;
        let limit = Duration::from_millis(200);
        let client = client(service.config().with_connect_timeout(limit));
        let (session, _stream) = tokio::join!(client.session(OP), service.accept_raw());
        let error = session.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.report().to_string().contains(&service.address()));
    }

    #[tokio::test]
    async fn the_end_of_the_connection_wakes_who_waits_at_once() {
        let service = Service::start().await;
        let client = client(service.config().with_required_module("A"));
        let play = async {
            let mut played = service.accept().await;
            played.expect(MODULE_SEND_REQUIREMENTS).await;
        };
        let (session, ()) = timeout(SOON, async { tokio::join!(client.session(OP), play) })
            .await
            .unwrap();
        let report = session.unwrap_err().report().to_string();
        assert!(report.contains("closed the connection: 1000"), "{report}");
    }

    #[tokio::test]
    async fn an_error_event_ends_the_session_with_its_text_whenever_it_comes() {
        let service = Service::start().await;
        let client = client(service.config());
        let play = async {
            let played = service.accept().await;
            (client.session(OP).await.unwrap(), played)
        };
        let (begun, (session, played)) = tokio::join!(client.session(OP), play);
        begun.unwrap();
        played.tell(ERROR_CONNECTION, "go\naway").await;
        let error = timeout(SOON, session.over(OP)).await.unwrap();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        let report = error.report().to_string();
        assert!(report.contains("ERROR_CONNECTION: go\\naway"), "{report}");
        let play = async {
            let mut played = service.accept().await;
            played.expect(MODULE_SEND_CONFIG_SCHEMA).await;
            played
                .tell(ERROR_CONFIG, "no: unmarshal event data: found sesame")
                .await;
            played.closed().await;
        };
        let receiver = async |_: crate::Received<serde_json::Value>| Ok::<(), String>(());
        let remote = crate::RemoteConfig::new("{}", receiver).unwrap();
        let client = super::tests::client(service.config().with_remote_config(remote));
        let (begun, ()) = tokio::join!(client.session(OP), play);
        let report = begun.unwrap_err().report().to_string();
        assert!(report.contains("ERROR_CONFIG: no"), "{report}");
        assert!(!report.contains("sesame"), "{report}");
    }

    #[tokio::test]
    async fn after_any_close_the_next_session_is_at_the_next_endpoint() {
        let services = [Service::start().await, Service::start().await];
        let endpoints = services.each_ref().map(Service::address);
        let client = client(ClusterConfig::new(endpoints).with_module("m"));
        let mut turns = Vec::new();
        for code in [1000, 1001, 1005, 4000] {
            let play = async {
                tokio::select! {
                    played = services[0].accept() => (0, played),
                    played = services[1].accept() => (1, played),
                }
            };
            let (session, (turn, played)) = tokio::join!(client.session(OP), play);
            turns.push(turn);
            let session = session.unwrap();
            // As a server does that ends with this code, or without any.
            let close = (code != 1005).then(|| Close::new(code, "end"));
            played.connection.peer.close_with(close).await;
            let error = timeout(SOON, session.over(OP)).await.unwrap();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
        }
        assert!(turns == [0, 1, 0, 1] || turns == [1, 0, 1, 0], "{turns:?}");
    }

    #[tokio::test]
    async fn garbage_unknown_events_and_questions_end_nothing() {
        let service = Service::start().await;
        let client = client(service.config());
        let (session, played) = tokio::join!(client.session(OP), service.accept());
        let session = session.unwrap();
        played.tell("NEWS", "x").await;
        played.tell("A_MODULE_CONNECTED", &b"\xff\xfe"[..]).await;
        // A client must answer, although no service asks.
        let asking = played.connection.peer.ask(OP, "NEWS", "x");
        assert_eq!(timeout(SOON, asking).await.unwrap().unwrap(), "");
        assert!(!session.peer.is_over());
    }

    #[test]
    fn a_session_whose_runtime_has_ended_is_none() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (client, _session) = runtime.block_on(async {
            let service = Service::start().await;
            let client = client(service.config());
            let (session, _played) = tokio::join!(client.session(OP), service.accept());
            (client, session.unwrap())
        });
        let session = || client.state.health(client.clock.now()).session;
        assert!(matches!(session(), SessionHealth::Established { .. }));
        drop(runtime);
        assert!(matches!(session(), SessionHealth::Down { .. }));
    }

    #[tokio::test]
    async fn nothing_is_begun_and_nothing_goes_on_after_a_close() {
        let service = Service::start().await;
        let client = client(service.config());
        let (session, mut played) = tokio::join!(client.session(OP), service.accept());
        let session = session.unwrap();
        tokio::join!(client.close(), played.closed());
        assert!(session.peer.is_over());
        client.close().await;
        assert_eq!(
            client.session(OP).await.unwrap_err().kind(),
            ErrorKind::Closed
        );
    }
}
