//! A config service that a test plays, for what no real one does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sd_core::clock::{Clock, Moment, Sleep};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tungstenite::protocol::Role;

use crate::ClusterConfig;
use crate::config::rules::DEFAULT_PING_INTERVAL;
use crate::etp::connection::{self, Connection, Times};
use crate::etp::message::Message;
use crate::etp::upgrade;
use crate::protocol::events::{
    CONFIG_SEND_CONFIG_WHEN_CONNECTED, MODULE_READY, MODULE_SEND_CONFIG_SCHEMA,
    MODULE_SEND_REQUIREMENTS, module_connected,
};

const OP: &str = "scripted";
/// Longer than anything takes, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Shows as many seconds as a test says.
#[derive(Debug, Default)]
pub(crate) struct SetClock(pub(crate) AtomicU64);

impl Clock for SetClock {
    fn now(&self) -> Moment {
        Moment::from_start(Duration::from_secs(self.0.load(Ordering::Relaxed)))
    }

    fn sleep_until(&self, _: Moment) -> Sleep {
        Box::pin(std::future::pending())
    }
}

/// Where clients connect.
pub(crate) struct Service {
    listener: TcpListener,
}

/// The other end of one client's connection.
pub(crate) struct Played {
    /// The module that the client says it is.
    pub(crate) module: String,
    pub(crate) connection: Connection,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// A client's settings for it, as the module `m`.
    pub(crate) fn config(&self) -> ClusterConfig {
        ClusterConfig::new([self.address()])
            .with_module("m")
            .with_handshake_timeout(Duration::from_secs(2))
    }

    /// The next connection, before anything is said on it.
    pub(crate) async fn accept_raw(&self) -> TcpStream {
        let accepted = timeout(SOON, self.listener.accept()).await;
        accepted.expect("a client connects in time").unwrap().0
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> Played {
        let mut stream = self.accept_raw().await;
        let mut read = BytesMut::new();
        let request = upgrade::read_request(&mut stream, &mut read).await.unwrap();
        stream.write_all(&request.accept().unwrap()).await.unwrap();
        let query = request.target.query().unwrap();
        let module = query.strip_prefix("module_name=").unwrap().to_owned();
        let times = Times {
            ping_every: DEFAULT_PING_INTERVAL,
            silent_after: SOON,
        };
        Played {
            module,
            connection: connection::open(stream, Role::Server, read, times),
        }
    }
}

impl Played {
    /// The next event.
    pub(crate) async fn event(&mut self) -> Message {
        let event = timeout(SOON, self.connection.events.recv()).await;
        let event = event
            .expect("an event comes in time")
            .expect("the client is there");
        (*event).clone()
    }

    /// The next event, which has this name. It is not answered yet.
    pub(crate) async fn expect(&mut self, name: &str) -> Message {
        let event = self.event().await;
        assert_eq!(event.name, name.as_bytes(), "{event:?}");
        event
    }

    pub(crate) async fn answer(&self, event: &Message, data: &'static str) {
        self.connection.peer.answer(OP, event, data).await.unwrap();
    }

    /// Takes the next event, which has this name.
    pub(crate) async fn take(&mut self, name: &str) -> Message {
        let event = self.expect(name).await;
        self.answer(&event, "ok").await;
        event
    }

    pub(crate) async fn tell(&self, name: &str, data: impl Into<Bytes>) {
        let event = Message::event(name.to_owned(), data);
        self.connection.peer.send(OP, &event).await.unwrap();
    }

    /// Tells the ports at which a module serves.
    pub(crate) async fn tell_hosts(&self, module: &str, ports: &[u16]) {
        let hosts: Vec<_> = ports
            .iter()
            .map(|port| json!({"ip": "10.0.0.1", "port": port.to_string()}))
            .collect();
        let data = serde_json::to_vec(&hosts).unwrap();
        self.tell(&module_connected(module), data).await;
    }

    /// Takes what a module tells of its configuration, and sends this one.
    pub(crate) async fn configure(&mut self, config: &'static str) -> Message {
        let schema = self.expect(MODULE_SEND_CONFIG_SCHEMA).await;
        self.tell(CONFIG_SEND_CONFIG_WHEN_CONNECTED, config).await;
        self.answer(&schema, "ok").await;
        schema
    }

    /// Takes the question for a module, and tells the ports at which it serves.
    pub(crate) async fn take_question(&mut self, module: &str, ports: &[u16]) {
        let asked = self.take(MODULE_SEND_REQUIREMENTS).await;
        let text = String::from_utf8_lossy(&asked.data).into_owned();
        assert!(text.contains(&format!("{module:?}")), "{text}");
        self.tell_hosts(module, ports).await;
    }

    /// Takes what a module tells when it is ready.
    pub(crate) async fn take_ready(&mut self) -> serde_json::Value {
        let ready = self.take(MODULE_READY).await;
        serde_json::from_slice(&ready.data).unwrap()
    }

    /// Waits until the client has closed the connection.
    pub(crate) async fn closed(&mut self) {
        let gone = async { while self.connection.events.recv().await.is_some() {} };
        timeout(SOON, gone)
            .await
            .expect("the client closes in time");
    }
}
