//! A peer in Go, in a process of its own: a module of isp-kit, or a server of etp that does what a test says.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of it"
)]

use std::collections::VecDeque;
use std::net::SocketAddr;

use rustix::process::{Pid, Signal, kill_process};
use sd_testing::{LONG, Peer};
use serde_json::{Value, json};
use tokio::time::timeout;

const ISP_KIT: &str = "SD_TEST_CLUSTER_ISP_KIT";

pub struct GoPeer {
    peer: Peer,
    /// Events that no test has asked for yet.
    waiting: VecDeque<Value>,
    /// All of them, without those of the log.
    pub seen: Vec<Value>,
}

impl GoPeer {
    /// A module that is called `name` and serves at `ip`. `rest` adds to its description.
    pub fn module(services: &[SocketAddr], name: &str, ip: &str, rest: Value) -> Self {
        let services: Vec<String> = services.iter().map(SocketAddr::to_string).collect();
        let mut description = json!({
            "name": name, "version": "1.2.3", "address": {"ip": ip, "port": "9999"},
            "schema": {"type": "object"}, "config": {},
        });
        let (Value::Object(all), Value::Object(rest)) = (&mut description, rest) else {
            panic!("an object describes a module");
        };
        all.extend(rest);
        let arguments = ["client", &services.join(","), &description.to_string()];
        Self::start(&arguments)
    }

    /// A server at `address`, and where it is, for a port of 0.
    pub async fn server(address: SocketAddr) -> (Self, SocketAddr) {
        let mut server = Self::start(&["server", &address.to_string()]);
        let listening = server.next("listening").await;
        let address = listening["address"].as_str().unwrap().parse().unwrap();
        (server, address)
    }

    fn start(arguments: &[&str]) -> Self {
        Self {
            peer: Peer::start(ISP_KIT, arguments).unwrap(),
            waiting: VecDeque::new(),
            seen: Vec::new(),
        }
    }

    /// The next event that `is` wanted. Others wait.
    pub async fn find(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.waiting.iter().position(&is) {
            return self.waiting.remove(at).unwrap();
        }
        let reading = async {
            loop {
                let line = self.peer.line().await.unwrap();
                let event: Value = serde_json::from_str(&line).unwrap();
                if event["event"] != "log" {
                    self.seen.push(event.clone());
                }
                if is(&event) {
                    return event;
                }
                self.waiting.push_back(event);
            }
        };
        let found = timeout(LONG, reading).await;
        found.unwrap_or_else(|_| panic!("{what} did not come: {:?}", self.seen))
    }

    /// The next event of this kind.
    pub async fn next(&mut self, kind: &str) -> Value {
        self.find(kind, |event| event["event"] == kind).await
    }

    /// The next event of a module that a server has received, without others.
    pub async fn received(&mut self, name: &str) -> Value {
        let is = |event: &Value| event["event"] == "received" && event["name"] == name;
        self.find(name, is).await
    }

    /// Waits until the service has said that the module is ready.
    pub async fn established(&mut self) {
        let said = self
            .find("READY", |event| {
                event["message"] == "event acknowledged"
                    && event["fields"]["event"] == "MODULE:READY"
            })
            .await;
        assert_eq!(said["fields"]["response"], "ok");
    }

    /// The configuration that its receiver gets next.
    pub async fn config(&mut self) -> String {
        let data = self.next("config").await["data"].take();
        serde_json::from_value(data).unwrap()
    }

    /// The hosts of a module that it is told next, in order.
    pub async fn hosts(&mut self, module: &str) -> Vec<String> {
        let is = |event: &Value| event["event"] == "hosts" && event["module"] == module;
        let told = self.find("hosts", is).await;
        hosts(&told)
    }

    /// How often it was told of something.
    pub fn count(&self, kind: &str) -> usize {
        self.seen
            .iter()
            .filter(|event| event["event"] == kind)
            .count()
    }

    /// What it says of its health. Empty if it is well.
    pub async fn health(&mut self) -> String {
        self.peer.say(r#"{"command":"health"}"#).await.unwrap();
        let error = self.next("health").await["error"].take();
        serde_json::from_value(error).unwrap()
    }

    /// Has it do something. What a server is to answer it answers from when this returns.
    pub async fn say(&mut self, command: Value) {
        self.peer.say(&command.to_string()).await.unwrap();
        if command["command"] == "answer" {
            self.next("answers").await;
        }
    }

    pub fn signal(&self, signal: Signal) {
        let id = self
            .peer
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(id.unwrap(), signal).unwrap();
    }

    /// Leaves in order, and returns what it was told meanwhile.
    pub async fn leave(mut self) -> Vec<Value> {
        let left = timeout(LONG, self.peer.dismiss()).await.unwrap().unwrap();
        let left = left.iter().map(|line| serde_json::from_str(line).unwrap());
        self.seen
            .extend(left.filter(|event: &Value| event["event"] != "log"));
        self.seen
    }
}

/// The hosts that an event tells, in order.
pub fn hosts(told: &Value) -> Vec<String> {
    let mut hosts: Vec<String> = serde_json::from_value(told["hosts"].clone()).unwrap();
    hosts.sort();
    hosts
}
