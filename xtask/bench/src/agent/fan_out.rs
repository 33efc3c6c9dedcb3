//! One change of a service that a thousand read: from the request to the moment at which the last reader has it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::any_prefix;
use super::caller::Caller;
use super::events::EventStream;
use super::plain::Plain;
use super::program::Agent;
use crate::election::within;
use crate::harness::interleave;
use crate::part::{Part, group_of, spread};
use crate::process::{Memory, Meter};
use crate::report::{Bar, Table};
use crate::source::PAUSE;
use crate::stats::{Latency, Spread, as_millis};
use crate::{Effort, Error, Result};

/// A service of usual size, and one that all other registrations are of.
const SERVICES: [(&str, usize); 2] = [("few", 10), ("many", 990)];
const QUICK_SERVICES: [(&str, usize); 2] = [("few", 10), ("many", 90)];
/// What readers ask for, and what they are told then.
const TOLD: [(&str, &str); 2] = [("", "whole sets"), ("?changes=true", "changes")];
const LIMIT_MILLIS: f64 = 50.0;
const OPTIONS: [&str; 2] = [
    // The bench is one caller that opens its streams as fast as it can.
    "--limits-requests-per-second=1000000",
    // With the default of 10 s, this many registrations are 300 renewals each second. Where etcd is slow for that, late renewals are tried
    // again, which makes it slower.
    "--ttl=30s",
];
/// Registrations that are asked for at the same time.
const AT_ONCE: usize = 16;
const NAMES: [&str; 2] = ["the agent", "the same bytes, written plainly"];

pub(super) fn measure(effort: Effort, etcd: &str) -> Result<Part> {
    let readers = effort.pick(1_000, 100);
    let changes = effort.pick(200, 10);
    let services = effort.pick(SERVICES, QUICK_SERVICES);
    let registrations: usize = services.iter().map(|(_, size)| size).sum();
    // Readers and callers have one thread: the agent has the other cores.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let agent = runtime.block_on(Agent::start(etcd, &any_prefix(), &OPTIONS))?;
    let mut memory = Table::new(["the agent's memory", "private", "of it written to"]);
    let mut note = |when: &str| {
        let Memory { private, written } = Memory::of(agent.pid())?;
        let [private, written] = [private, written].map(|mebi| format!("{mebi:.1} MiB"));
        memory.row([when, &private, &written]);
        Ok::<_, Error>(())
    };
    note("it has started")?;
    runtime.block_on(register_all(&agent, &services))?;
    note(&format!("with {registrations} registrations"))?;

    let mut times = Table::new([
        "readers of",
        "contender",
        "bytes of an event",
        "first reader, p50",
        "all, p50",
        "all, quartiles",
        "all, p99",
        "all, longest",
        "sender's processor time",
        "readers' share of a core",
    ]);
    let (mut bars, mut groups) = (Vec::new(), Vec::new());
    let cases = services
        .into_iter()
        .flat_map(|service| TOLD.map(|told| (service, told)));
    for ((service, size), (query, told)) in cases {
        let path = format!("/v1/services/{service}/events{query}");
        let opening = Contender::both(&agent, service, &path, readers);
        let mut contenders = runtime.block_on(opening)?;
        let label = format!("{size} instances, {told}");
        note(&format!("and {readers} readers of {label}"))?;
        let figures = interleave(&mut contenders, changes, |contender| {
            runtime
                .block_on(async { within("all readers have a change", contender.sample()).await? })
        })?;
        note(&format!("after {changes} changes of one of them"))?;
        drop(contenders);
        runtime.block_on(until_unread(&agent))?;
        note("its readers have gone")?;
        for (name, samples) in NAMES.into_iter().zip(&figures) {
            times.row(row(&label, name, samples));
        }
        let all: Vec<Vec<Duration>> = figures.iter().map(|samples| all_have_it(samples)).collect();
        let rows = NAMES.into_iter().zip(all.iter().map(Vec::as_slice));
        groups.push(group_of(&format!("{readers} readers of {label}"), rows));
        bars.push(Bar::at_most(
            format!("one change of {label} until {readers} readers at an agent have it, p99"),
            Latency::of(all[0].iter().copied()).p99,
            LIMIT_MILLIS,
            |millis| format!("{millis:.1} ms"),
        ));
    }
    agent.stop()?;
    Ok(Part {
        text: format!("{METHOD}\n{changes} changes of each:\n\n{times}\n{memory}"),
        bars,
        groups,
    })
}

/// Returns when the agent has noticed that all its readers are gone.
async fn until_unread(agent: &Agent) -> Result<()> {
    let caller = Caller::by_port(agent.address())?;
    let unread = async {
        while !caller
            .get("/metrics")
            .await?
            .contains("\nsd_agent_streams 0\n")
        {
            sleep(PAUSE).await;
        }
        Ok(())
    };
    within("the agent has no readers", unread).await?
}

fn all_have_it(samples: &[Sample]) -> Vec<Duration> {
    samples.iter().map(|sample| sample.last).collect()
}

fn row(label: &str, name: &str, samples: &[Sample]) -> [String; 10] {
    let median = |figure: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(figure)).median;
    let millis = |millis: f64| format!("{millis:.2} ms");
    let all = all_have_it(samples);
    let latency = Latency::of(all.iter().copied());
    let spread = spread(&all);
    let share = |sample: &Sample| sample.reading.as_secs_f64() / sample.last.as_secs_f64();
    [
        label.to_owned(),
        name.to_owned(),
        samples.first().map_or(0, |sample| sample.bytes).to_string(),
        millis(median(&|sample| as_millis(sample.first))),
        millis(latency.p50),
        format!("{:.2}–{:.2} ms", spread.quarter, spread.three_quarters),
        millis(latency.p99),
        millis(latency.longest),
        millis(median(&|sample| as_millis(sample.sending))),
        format!("{:.0} %", median(&share) * 100.0),
    ]
}

async fn register_all(agent: &Agent, services: &[(&str, usize)]) -> Result<()> {
    let caller = Caller::by_port(agent.address())?;
    let mut registering = JoinSet::new();
    for (service, size) in services {
        for nth in 0..*size {
            if registering.len() >= AT_ONCE
                && let Some(registered) = registering.join_next().await
            {
                registered??;
            }
            let declaration = json!({"service": service, "id": id(nth), "address": address(nth)});
            let caller = caller.clone();
            registering.spawn(async move { caller.register(&declaration).await });
        }
    }
    registering.join_all().await.into_iter().collect()
}

/// Of the nth instance of a service. That of the first one comes first in a set.
fn id(nth: usize) -> String {
    format!("i-{nth:03}")
}

fn address(nth: usize) -> String {
    format!("127.0.0.1:{}", 20_000 + nth)
}

/// One change.
struct Sample {
    /// Until the first reader has it, and until the last one has.
    first: Duration,
    last: Duration,
    bytes: usize,
    /// The processor time of the sender, and of all readers together with who asked for the change.
    sending: Duration,
    reading: Duration,
}

struct Contender {
    readers: Vec<EventStream>,
    sender: Sender,
    meter: Meter,
}

enum Sender {
    Agent {
        caller: Caller,
        service: &'static str,
        ready: bool,
    },
    Plain {
        process: Plain,
        changes: usize,
        /// As long as the agent's events are.
        bytes: usize,
    },
}

impl Contender {
    async fn both(
        agent: &Agent,
        service: &'static str,
        path: &str,
        readers: usize,
    ) -> Result<[Self; 2]> {
        let mut ours = Self {
            readers: open(agent.address(), path, readers).await?,
            sender: Sender::Agent {
                caller: Caller::by_port(agent.address())?,
                service,
                ready: true,
            },
            meter: Meter::of(agent.pid())?,
        };
        let bytes = within("all readers have a change", ours.sample())
            .await??
            .bytes;
        let process = Plain::start(readers)?;
        let plain = Self {
            readers: open(process.address, "/", readers).await?,
            meter: Meter::of(process.pid())?,
            sender: Sender::Plain {
                process,
                changes: 0,
                bytes,
            },
        };
        Ok([ours, plain])
    }

    async fn sample(&mut self) -> Result<Sample> {
        let text: Arc<str> = self.sender.next_change().into();
        let mut reading = JoinSet::new();
        for mut reader in self.readers.drain(..) {
            let text = Arc::clone(&text);
            reading.spawn(async move {
                let arrived = reader.until(&text).await?;
                Ok::<_, Error>((reader, arrived))
            });
        }
        // By then all of them wait.
        sleep(PAUSE).await;
        self.meter.since()?;
        let (began, used) = (Instant::now(), thread_time());
        self.sender.change().await?;
        let mut arrivals = Vec::with_capacity(reading.len());
        for read in reading.join_all().await {
            let (reader, arrived) = read?;
            self.readers.push(reader);
            arrivals.push(arrived);
        }
        let reading = thread_time().saturating_sub(used);
        let sending = self.meter.since()?.time;
        arrivals.sort_by_key(|arrived| arrived.at);
        let [first, .., last] = arrivals[..] else {
            return Err("there are no readers".into());
        };
        Ok(Sample {
            first: first.at - began,
            last: last.at - began,
            bytes: last.bytes,
            sending,
            reading,
        })
    }
}

impl Sender {
    /// What every reader will find in the event that tells of the next change.
    fn next_change(&mut self) -> String {
        match self {
            Self::Agent { ready, .. } => {
                *ready = !*ready;
                format!("\"address\":\"{}\",\"ready\":{ready}", address(0))
            }
            Self::Plain { changes, .. } => {
                *changes += 1;
                Plain::text(*changes)
            }
        }
    }

    async fn change(&mut self) -> Result<()> {
        match self {
            Self::Agent {
                caller,
                service,
                ready,
            } => caller.set_ready(service, &id(0), *ready).await,
            Self::Plain {
                process,
                changes,
                bytes,
            } => process.send(*changes, *bytes),
        }
    }
}

/// Opens so many streams, and returns when each has brought its first event.
async fn open(address: SocketAddr, path: &str, count: usize) -> Result<Vec<EventStream>> {
    let mut readers = Vec::with_capacity(count);
    for _ in 0..count {
        let mut reader = EventStream::open(address, path).await?;
        within("a stream begins", reader.until("event: snapshot")).await??;
        readers.push(reader);
    }
    Ok(readers)
}

/// The processor time that this thread has used.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

const METHOD: &str = "\
**One change, a thousand readers.** An agent holds 1000 registrations with a time-to-live of 30 s, of which it renews 100 each second, and each
reader has a stream of the same service over a connection of its own. A process has the first instance of the service not ready, and ready again: the clock runs
from its request until the last reader has the whole set that says so, or with `changes=true` the change, and with it the write at etcd. All readers are one thread of the
bench, which looks at the first 512 bytes of an event and takes the rest by its length; its share of a core is that of the time until all
have it, and not left for the agent. Beside the agent stands what no sender can do without: a program of two threads that is told to
write as many bytes to as many connections, and knows nothing of etcd or JSON. The processor time of a sender is that of its whole
process for one change. The agent has no limit of requests here, since all readers are one caller.
";
