//! A process that sends more requests than an agent takes, while another one has a registration of a short time-to-live there.

use std::time::Duration;

use etcd_client::{Client, GetOptions, WatchOptions, WatchStream};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::any_prefix;
use super::caller::Caller;
use super::hostile::{Answers, Hostile};
use super::program::Agent;
use crate::election::within;
use crate::ours::ADDRESS;
use crate::part::Part;
use crate::process::Meter;
use crate::report::{Bar, Table};
use crate::stats::Latency;
use crate::{Effort, Error, Result};

const SERVICE: &str = "bench";
const TTL_SECONDS: u64 = 5;
/// Between two requests of the honest caller.
const PAUSE: Duration = Duration::from_millis(10);
/// So many of its requests apart, etcd is asked how long the record would live.
const ASK_EVERY: usize = 20;

/// What is compared: a name, whether there is a flood, and what the agent is started with.
const CASES: [(&str, bool, &[&str]); 3] = [
    ("none", false, &[]),
    ("with the default limits", true, &[]),
    (
        "without a limit of requests",
        true,
        &["--limits-requests-per-second=1000000"],
    ),
];

pub(super) fn measure(effort: Effort, runtime: &Runtime, etcd: &str) -> Result<Part> {
    let lasts = Duration::from_secs(effort.pick(30, 2 * TTL_SECONDS));
    let mut table = Table::new([
        "flood",
        "answered",
        "of these refused",
        "agent's share of a core",
        "honest caller, p50",
        "p99",
        "longest",
        "shortest life left",
        "changes seen",
    ]);
    let mut bars = Vec::new();
    for (name, is_flooded, options) in CASES {
        let agent = runtime.block_on(Agent::start(etcd, &any_prefix(), options))?;
        let flooded = runtime.block_on(Flooded::observe(&agent, etcd, is_flooded, lasts))?;
        agent.stop()?;
        table.row(flooded.row(name, lasts));
        if is_flooded {
            bars.push(Bar::at_most(
                format!("a flood of requests {name}: changes of a record of {TTL_SECONDS} s, as readers see them"),
                f64::from(flooded.changes),
                0.0,
                |changes| format!("{changes}"),
            ));
        }
    }
    Ok(Part {
        text: format!("{METHOD}\nOver {} s each:\n\n{table}", lasts.as_secs()),
        bars,
        groups: Vec::new(),
    })
}

/// What came of a flood.
struct Flooded {
    answers: Answers,
    /// How long the agent's threads ran.
    ran: Duration,
    honest: Vec<Duration>,
    /// The shortest time after which the record would have gone, in whole seconds, as etcd told it.
    life_left: i64,
    changes: u32,
}

impl Flooded {
    async fn observe(agent: &Agent, etcd: &str, is_flooded: bool, lasts: Duration) -> Result<Self> {
        let caller = Caller::by_socket(&agent.socket())?;
        let ttl = format!("{TTL_SECONDS}s");
        let declaration = json!({"service": SERVICE, "address": ADDRESS, "ttl": ttl});
        caller.register(&declaration).await?;
        let mut record = Record::find(etcd, agent).await?;

        let hostile = is_flooded.then(|| Hostile::start(agent.address()));
        let hostile = hostile.transpose()?;
        let mut meter = Meter::of(agent.pid())?;
        let (mut ran, mut life_left, mut honest) = (Duration::ZERO, i64::MAX, Vec::new());
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let path = format!("/v1/services/{SERVICE}");
        let end = Instant::now() + lasts;
        while Instant::now() < end {
            ticks.tick().await;
            let began = Instant::now();
            let told = caller.get(&path).await?;
            honest.push(began.elapsed());
            if !told.contains(ADDRESS) {
                return Err(format!("the agent has lost the instance: {told}").into());
            }
            if honest.len().is_multiple_of(ASK_EVERY) {
                life_left = life_left.min(record.life_left().await?);
                ran += meter.since()?.time;
            }
        }
        ran += meter.since()?.time;
        Ok(Self {
            answers: hostile.map_or(Ok(Answers::default()), Hostile::stop)?,
            ran,
            honest,
            life_left,
            changes: record.changes().await?,
        })
    }

    fn row(&self, name: &str, lasts: Duration) -> [String; 9] {
        let Latency { p50, p99, longest } = Latency::of(self.honest.iter().copied());
        let millis = |millis: f64| format!("{millis:.2} ms");
        let Answers { all, refused } = self.answers;
        let refused = refused * 100 / all.max(1);
        [
            name.to_owned(),
            format!("{}/s", all / lasts.as_secs()),
            format!("{refused} %"),
            format!(
                "{:.0} %",
                self.ran.as_secs_f64() / lasts.as_secs_f64() * 100.0
            ),
            millis(p50),
            millis(p99),
            millis(longest),
            format!("{} s", self.life_left),
            self.changes.to_string(),
        ]
    }
}

/// The record of the honest caller, as etcd has it.
struct Record {
    client: Client,
    lease: i64,
    watch: WatchStream,
    prefix: String,
}

impl Record {
    async fn find(etcd: &str, agent: &Agent) -> Result<Self> {
        let mut client = Client::connect([etcd], None).await?;
        let prefix = format!("{}/", agent.prefix());
        let all = GetOptions::new().with_prefix();
        let found = client.get(prefix.as_str(), Some(all)).await?;
        let [record] = found.kvs() else {
            return Err("there is not one record alone".into());
        };
        let options = WatchOptions::new().with_prefix();
        let watch = client.watch(prefix.as_str(), Some(options)).await?;
        Ok(Self {
            lease: record.lease(),
            client,
            watch,
            prefix,
        })
    }

    async fn life_left(&mut self) -> Result<i64> {
        let lease = self.client.lease_time_to_live(self.lease, None).await?;
        Ok(lease.ttl())
    }

    /// How often it changed since it was found. A change of the bench's own comes last, so that none before it is missed.
    async fn changes(mut self) -> Result<u32> {
        let mark = format!("{}mark", self.prefix);
        self.client.put(mark.as_str(), "", None).await?;
        let counted = async {
            let mut changes = 0;
            loop {
                let told = self.watch.message().await?;
                let told = told.ok_or("the server ended the watch")?;
                for event in told.events() {
                    if event
                        .kv()
                        .is_some_and(|entry| entry.key() == mark.as_bytes())
                    {
                        return Ok::<u32, Error>(changes);
                    }
                    changes += 1;
                }
            }
        };
        let changes = within("etcd tells of the mark", counted).await??;
        self.client.delete(mark, None).await?;
        Ok(changes)
    }
}

const METHOD: &str = "\
**A flood of requests.** A process that an agent knows by its Unix socket has a registration there with a time-to-live of 5 s, and
reads a service every 10 ms. Another process sends 10000 requests a second over 32 connections of TCP, or as many as are answered:
registrations that name no service. The record must be renewed before etcd forgets it. *Shortest life left* is what etcd told of its
lease, in whole seconds; the agent renews after a third of it. *Changes seen* counts all that a watch at etcd is told of the record: one
that is lost and comes back is two. The hostile process, the honest one and etcd want the same cores as the agent, so that the honest one
waits for those as well.
";
