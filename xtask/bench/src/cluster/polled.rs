//! A service that looks for changes every 500 ms, as isp-config-service does.

use std::net::SocketAddr;
use std::time::Duration;

use sd_testing::Peer;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::comparing::{NAMES, compare};
use super::module::{ISP_KIT, Module, now};
use crate::election::within;
use crate::part::{Part, spread};
use crate::report::Bar;
use crate::{Effort, Error, Result};

/// Between two looks of isp-config-service 3.9.0.
const POLL: Duration = Duration::from_millis(500);
const FOLLOWED: &str = "followed";
const LIMIT_MILLIS: f64 = 1000.0;

pub(super) fn measure(effort: Effort, runtime: &Runtime) -> Result<Part> {
    let samples = effort.pick(60, 4);
    let figures = runtime.block_on(async {
        let (mut service, address) = Service::start().await?;
        let mut modules = Module::both(address, [FOLLOWED; 2]).await?;
        let mut figures = vec![Vec::new(), Vec::new()];
        let mut looks = interval(POLL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for nth in 1..=samples {
            // The change has nothing to do with the looks.
            sleep(POLL.mul_f64(fastrand::f64())).await;
            let began = now();
            looks.tick().await;
            let hosts = nth % 2;
            service.tell(hosts).await?;
            for (module, figures) in modules.iter_mut().zip(&mut figures) {
                figures.push(module.hosts(hosts).await?.saturating_sub(began));
            }
        }
        Ok::<_, Error>(figures)
    })?;
    let compared = compare("a polled service", &figures);
    let median = spread(&figures[0]).median;
    Ok(Part {
        text: format!(
            "{METHOD}\n{samples} changes, each told to both:\n\n{}\n{}\n",
            compared.table, compared.ratio
        ),
        bars: vec![Bar::at_most(
            format!(
                "a change at a service that looks every {POLL:?} → a follower has it, {}, median",
                NAMES[0]
            ),
            median,
            LIMIT_MILLIS,
            |millis| format!("{millis:.0} ms"),
        )],
        groups: Vec::new(),
    })
}

/// A server of etp, isp-kit's framing, in Go, which says what this bench has it say.
struct Service(Peer);

impl Service {
    async fn start() -> Result<(Self, SocketAddr)> {
        let mut peer = Peer::start(ISP_KIT, &["server", "127.0.0.1:0"])?;
        let line = within("a server of etp listens", peer.line()).await??;
        let listening: Value = serde_json::from_str(&line)?;
        let address = listening["address"].as_str().unwrap_or_default().parse()?;
        let mut service = Self(peer);
        let config = event("CONFIG:SEND_CONFIG_WHEN_CONNECTED", "{}");
        service.answer("MODULE:SEND_CONFIG_SCHEMA", &config).await?;
        let hosts = event(&connected(), "[]");
        service.answer("MODULE:SEND_REQUIREMENTS", &hosts).await?;
        Ok((service, address))
    }

    /// Has it send an event before it answers another one with `ok`.
    async fn answer(&mut self, name: &str, before: &Value) -> Result<()> {
        let command = json!({"command": "answer", "name": name, "data": "ok", "before": [before]});
        Ok(self.0.say(&command.to_string()).await?)
    }

    /// Tells all modules how many hosts there are.
    async fn tell(&mut self, hosts: usize) -> Result<()> {
        let host = json!({"ip": "127.0.0.1", "port": "50051"});
        let mut command = event(&connected(), &Value::from(vec![host; hosts]).to_string());
        command["command"] = "send".into();
        Ok(self.0.say(&command.to_string()).await?)
    }
}

fn event(name: &str, data: &str) -> Value {
    json!({"name": name, "data": data})
}

fn connected() -> String {
    format!("{FOLLOWED}_MODULE_CONNECTED")
}

const METHOD: &str = "\
**Polled.** isp-config-service 3.9.0 looks for changes every 500 ms, and tells modules then. Here a server in Go, with isp-kit's own framing,
does the same: a host appears or goes at a random moment, and at the next look all modules are told. The clock runs from that moment, so
that half a look is the least median, and a whole one the least worst case.
";
