//! From register to seen: over HTTP at one agent until another agent's stream has it, beside what both agents are made of.

use std::time::Duration;

use sd_etcd::EtcdConfig;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use super::caller::Caller;
use super::events::EventStream;
use super::program::Agent;
use super::{PATIENCE, any_prefix};
use crate::election::within;
use crate::harness::interleave;
use crate::ours::{ADDRESS, Registering};
use crate::part::{Part, register_to_seen};
use crate::source::PAUSE;
use crate::{Effort, Error, Result};

const NAMES: [&str; 2] = ["two agents", "the registry itself"];
const SERVICE: &str = "bench";
const LIMIT: f64 = 1.2;

pub(super) fn measure(effort: Effort, runtime: &Runtime, etcd: &str) -> Result<Part> {
    let samples = effort.pick(1_000, 30);
    let mut contenders = runtime.block_on(async {
        let prefix = any_prefix();
        let open = || sd_etcd::connect(EtcdConfig::new([etcd]).with_prefix(&prefix));
        let registry = Registering::begin([open()?, open()?], SERVICE, PATIENCE).await?;
        Ok::<_, Error>([
            Contender::Agents(Box::new(Agents::start(etcd).await?)),
            Contender::Registry(Box::new(registry)),
        ])
    })?;
    let figures = interleave(&mut contenders, samples, |contender| {
        runtime.block_on(async {
            sleep(PAUSE).await;
            let sample = async {
                match contender {
                    Contender::Agents(agents) => agents.sample().await,
                    Contender::Registry(registry) => registry.sample().await,
                }
            };
            within("a registration is seen and gone", sample).await?
        })
    })?;
    Ok(register_to_seen(
        METHOD,
        NAMES,
        "the registry's own",
        LIMIT,
        &figures,
    ))
}

enum Contender {
    Agents(Box<Agents>),
    Registry(Box<Registering>),
}

/// Two agents, as on two hosts: one is told of an instance, the other one is asked.
struct Agents {
    _processes: [Agent; 2],
    caller: Caller,
    reader: EventStream,
}

/// In an event of a service without instances.
const NONE: &str = "\"instances\":[]";

impl Agents {
    async fn start(etcd: &str) -> Result<Self> {
        let prefix = any_prefix();
        let start = || Agent::start(etcd, &prefix, &[]);
        let agents = [start().await?, start().await?];
        let path = format!("/v1/services/{SERVICE}/events");
        let mut reader = EventStream::open(agents[1].address(), &path).await?;
        within("a stream begins", reader.until(NONE)).await??;
        Ok(Self {
            caller: Caller::by_port(agents[0].address())?,
            _processes: agents,
            reader,
        })
    }

    /// From the request to the moment at which the reader has the instance. It is gone when this returns.
    async fn sample(&mut self) -> Result<Duration> {
        let id = format!("{:016x}", fastrand::u64(..));
        let declaration = json!({"service": SERVICE, "id": id, "address": ADDRESS});
        let began = Instant::now();
        let (arrived, ()) =
            tokio::try_join!(self.reader.until(&id), self.caller.register(&declaration))?;
        self.caller.deregister(SERVICE, &id).await?;
        self.reader.until(NONE).await?;
        Ok(arrived.at - began)
    }
}

const METHOD: &str = "\
**Register to seen.** A process sends `POST /v1/registrations` to one agent, and the clock runs until another agent's stream of the
service has brought a reader the set with the instance. Beside that stands what both agents do at etcd: `Registry::register`, and a
`Subscription` of another registry. Between samples the record is removed and 15 ms pass. The agent has written the registration to
disk before it answers; readers need not wait for that, and the clock does not.
";
