//! A module in a process of its own, which says when it is told something: one of this workspace, or one of isp-kit's. Both say it in the
//! same lines, those of `xtask/peers/isp-kit`.

use std::io::{self, Read, Write as _};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, SystemTime};

use sd_cluster::{ClusterConfig, Received, RemoteConfig};
use sd_core::{State, Subscription};
use sd_testing::Peer;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::PATIENCE;
use crate::Result;
use crate::election::within;

/// Where `cargo xtask bench` says that it has built the program.
pub(super) const ISP_KIT: &str = "SD_TEST_CLUSTER_ISP_KIT";
const GO_MOD: &str = include_str!("../../../peers/isp-kit/go.mod");

/// A module that receives its configuration, and follows another one.
pub(super) struct Module {
    peer: Peer,
    /// What it said before it was asked for: the first list may come before the first configuration.
    said: Vec<Value>,
    pub(super) name: &'static str,
    /// The module that it follows.
    pub(super) followed: &'static str,
}

impl Module {
    /// Ours, and the one in Go. Returns when each has its first configuration and its first list, which is empty.
    pub(super) async fn both(
        service: SocketAddr,
        [in_rust, in_go]: [&'static str; 2],
    ) -> Result<[Self; 2]> {
        let mut both = [
            Self::in_rust(service, "module-in-rust", in_rust)?,
            Self::in_go(service, "module-in-go", in_go)?,
        ];
        for module in &mut both {
            // What the service has for it, from an earlier part perhaps.
            module.told("config", |_| true).await?;
            module.hosts(0).await?;
        }
        Ok(both)
    }

    fn in_rust(service: SocketAddr, name: &'static str, followed: &'static str) -> Result<Self> {
        let mut program = Command::new(std::env::current_exe()?);
        program.args(["--join-modules", &service.to_string(), name, followed]);
        Ok(Self {
            peer: Peer::launch(program)?,
            said: Vec::new(),
            name,
            followed,
        })
    }

    fn in_go(service: SocketAddr, name: &'static str, followed: &'static str) -> Result<Self> {
        let description = json!({
            "name": name, "version": "1.0.0", "address": {"ip": "127.0.0.1", "port": "9999"},
            "schema": {"type": "object"}, "config": {},
            "receive_config": true, "requires": [followed], "quiet": true,
        });
        let arguments = ["client", &service.to_string(), &description.to_string()];
        Ok(Self {
            peer: Peer::start(ISP_KIT, &arguments)?,
            said: Vec::new(),
            name,
            followed,
        })
    }

    /// When it was told this configuration, which is waited for.
    pub(super) async fn configured(&mut self, config: &Value) -> Result<Duration> {
        let is = |told: &Value| {
            let data = told["data"].as_str().map(serde_json::from_str::<Value>);
            matches!(data, Some(Ok(data)) if data == *config)
        };
        self.told("config", is).await
    }

    /// When it was told that the module which it follows has so many hosts, which is waited for.
    pub(super) async fn hosts(&mut self, count: usize) -> Result<Duration> {
        // What Go prints for none is null.
        let is = |told: &Value| told["hosts"].as_array().map_or(0, Vec::len) == count;
        self.told("hosts", is).await
    }

    /// When it was told something of this kind. What it was told of the kind before that counts no longer.
    async fn told(&mut self, event: &str, is: impl Fn(&Value) -> bool) -> Result<Duration> {
        let said = self.said.extract_if(.., |told| told["event"] == event);
        let said: Vec<Value> = said.collect();
        if let Some(told) = said.iter().find(|told| is(told)) {
            return time(told);
        }
        let telling = async {
            loop {
                let line = self.peer.line().await?;
                let told: Value = serde_json::from_str(&line)?;
                if told["event"] != event {
                    self.said.push(told);
                } else if is(&told) {
                    return time(&told);
                }
            }
        };
        let what = format!("{} is told of a change: {event}", self.name);
        within(&what, telling).await?
    }
}

fn time(told: &Value) -> Result<Duration> {
    let at = told["at"].as_u64();
    let at = at.ok_or_else(|| format!("a module tells no time: {told}"))?;
    Ok(Duration::from_nanos(at))
}

/// By the system's clock, which all processes share.
pub(super) fn now() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}

/// What the process of a module in Rust does until its input ends.
pub(crate) fn join(service: &str, name: &str, followed: &str) -> Result<()> {
    std::thread::spawn(|| {
        // The bench has ended, or is about to.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    Runtime::new()?.block_on(async {
        let receive = async |received: Received<Value>| {
            tell("config", "data", &received.config.to_string().into())
        };
        let config = ClusterConfig::new([service])
            .with_module(name)
            .with_required_module(followed)
            .with_remote_config(RemoteConfig::new("{}", receive)?);
        let registry = sd_cluster::connect(config)?;
        let followed = registry.subscribe(followed)?;
        followed.wait_until_known(PATIENCE).await?;
        // In a task, as a program follows what it calls: what the runtime is blocked on runs on a thread of its own, which is woken each time.
        tokio::spawn(follow(followed)).await?
    })
}

async fn follow(mut followed: Subscription) -> Result<()> {
    let mut state = followed.state_and_mark_seen();
    loop {
        tell("hosts", "hosts", &addresses(&state))?;
        state = followed.changed().await?;
    }
}

fn addresses(state: &State) -> Value {
    let instances = state.snapshot().instances().iter();
    let addresses = instances.map(|instance| instance.endpoint().to_string());
    addresses.collect::<Vec<_>>().into()
}

/// Prints what has happened, with the time of the call.
fn tell(event: &str, field: &str, value: &Value) -> io::Result<()> {
    let at = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
    writeln!(
        io::stdout(),
        "{}",
        json!({"event": event, "at": at, field: value})
    )
}

/// The version of isp-kit that its program is made of.
pub(super) fn version() -> &'static str {
    let after = GO_MOD.split_once("github.com/txix-open/isp-kit v");
    let version = after.and_then(|(_, rest)| rest.split_whitespace().next());
    version.unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_names_the_version() {
        assert!(version().starts_with("1."), "{}", version());
    }
}
