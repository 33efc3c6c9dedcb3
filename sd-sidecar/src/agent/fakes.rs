//! An agent and a source that do what a test says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use tokio::sync::{mpsc, watch};

use super::error::{AgentError, Result};
use super::event::{ConnectionEvent, EventKind};
use super::parts::{Client, ConnectionEvents, EventSource};
use crate::wire::{App, Service, ServiceNode, ServiceOptions};

/// A service that every agent takes.
pub(crate) fn node(name: &str, port: u16) -> ServiceNode {
    let options = ServiceOptions {
        app: App {
            id: "a-1".into(),
            env: "prod".into(),
            name: "app".into(),
            version: "v1".into(),
            instance_id: "run-1".into(),
        },
        service: Service {
            name: name.into(),
            ..Service::default()
        },
        protocol: "grpc".into(),
        server_port: port,
        ..ServiceOptions::default()
    };
    ServiceNode::new(options, [format!("/{name}.v1.S/M")])
}

/// Notes each call as `register auth:9090`.
pub(crate) struct FakeClient {
    calls: watch::Sender<Vec<String>>,
    /// What the next calls come to. Without an entry they succeed.
    results: Mutex<VecDeque<Result<()>>>,
    /// What each call takes.
    takes: Mutex<Duration>,
}

impl FakeClient {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            calls: watch::Sender::new(Vec::new()),
            results: Mutex::default(),
            takes: Mutex::default(),
        })
    }

    pub(crate) fn fails_next(&self, times: usize) {
        let failures = (0..times).map(|_| Err(AgentError::own("no")));
        self.results.lock().unwrap().extend(failures);
    }

    /// As an agent that does not have the service.
    pub(crate) fn does_not_find_next(&self) {
        let error = AgentError::Invalid("local service not found: auth:9090".to_owned());
        self.results.lock().unwrap().push_back(Err(error));
    }

    pub(crate) fn succeeds_next(&self) {
        self.results.lock().unwrap().push_back(Ok(()));
    }

    pub(crate) fn takes(&self, span: Duration) {
        *self.takes.lock().unwrap() = span;
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.borrow().clone()
    }

    /// Waits until there were so many calls.
    pub(crate) async fn called(&self, times: usize) -> Vec<String> {
        let mut calls = self.calls.subscribe();
        let calls = calls.wait_for(|calls| calls.len() >= times);
        calls.await.unwrap().clone()
    }

    async fn call(&self, what: &str, node: &ServiceNode) -> Result<()> {
        let call = format!(
            "{what} {}:{}",
            node.options.service.name, node.options.server_port
        );
        self.calls.send_modify(|calls| calls.push(call));
        let takes = *self.takes.lock().unwrap();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        self.results.lock().unwrap().pop_front().unwrap_or(Ok(()))
    }
}

#[async_trait]
impl Client for FakeClient {
    async fn register(&self, node: &ServiceNode) -> Result<()> {
        self.call("register", node).await
    }

    async fn drain(&self, node: &ServiceNode, grace: Option<Duration>) -> Result<()> {
        self.call(
            &format!("drain {}", grace.unwrap_or_default().as_secs()),
            node,
        )
        .await
    }

    async fn deregister(&self, node: &ServiceNode) -> Result<()> {
        self.call("deregister", node).await
    }
}

/// Tells what a test sends, to one subscriber after another.
pub(crate) struct FakeSource {
    events: Mutex<Option<mpsc::Receiver<ConnectionEvent>>>,
    /// What subscriptions fail with, as long as there is one.
    failures: Mutex<VecDeque<AgentError>>,
}

impl FakeSource {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Sender<ConnectionEvent>) {
        let (events, queue) = mpsc::channel(8);
        let source = Self {
            events: Mutex::new(Some(queue)),
            failures: Mutex::default(),
        };
        (Arc::new(source), events)
    }

    pub(crate) fn fails_next(&self, times: usize) {
        let failures = (0..times).map(|_| AgentError::own("no source"));
        self.failures.lock().unwrap().extend(failures);
    }
}

#[async_trait]
impl EventSource for FakeSource {
    async fn subscribe(&self) -> Result<ConnectionEvents> {
        if let Some(error) = self.failures.lock().unwrap().pop_front() {
            return Err(error);
        }
        let queue = self.events.lock().unwrap().take();
        let queue = queue.ok_or_else(|| AgentError::own("subscribed twice"))?;
        let events = stream::unfold(queue, async |mut queue| Some((queue.recv().await?, queue)));
        Ok(Box::pin(events))
    }
}

pub(crate) fn connected() -> ConnectionEvent {
    ConnectionEvent::new(EventKind::Connected)
}

pub(crate) fn heartbeat() -> ConnectionEvent {
    ConnectionEvent::new(EventKind::Heartbeat)
}

pub(crate) fn disconnected() -> ConnectionEvent {
    ConnectionEvent::disconnected(AgentError::WatchStreamClosed)
}
