//! What one more instance of a service of thousands costs: the whole list is read, decoded, compared and published.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sd_core::Subscription;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};

use super::agent::Agent;
use super::{PATIENCE, config};
use crate::part::{Part, spread};
use crate::report::{Bar, Table};
use crate::stats::Spread;
use crate::{Effort, Error, Result};

const SIZES: [usize; 4] = [1_000, 2_500, 5_000, 10_000];
const SERVICE: &str = "bench-large";
const NODE: &str = "bench-large";
/// How many services a transaction takes.
const AT_ONCE: usize = 64;
/// How many times as much an instance among 10 000 may cost as one among 1 000.
const LIMIT: f64 = 1.5;
/// Until a feed may read so many instances at once again.
const PACE_FOR_EACH: Duration = Duration::from_micros(200);

/// What was measured at one size.
struct Figures {
    size: usize,
    bytes: usize,
    /// Processor time from one set to the next, in microseconds for each instance.
    each: Spread,
    /// From the change to the set that has it.
    seen: Vec<Duration>,
    /// The same answer, read by an HTTP client that does not look into it.
    raw: Vec<Duration>,
}

pub(super) fn measure(effort: Effort, runtime: &Runtime, address: &str) -> Result<Part> {
    let samples = effort.pick(15, 2);
    let operator = runtime.block_on(Operator::connect(address))?;
    // All that is done for the subscription is done on this thread, and nothing else is.
    let reader = Builder::new_current_thread().enable_all().build()?;
    let subscription = reader.block_on(async {
        let wait = config(address).with_request_timeout(PATIENCE);
        let registry = sd_consul::connect(wait)?;
        let subscription = registry.subscribe(SERVICE)?;
        subscription.wait_until_known(PATIENCE).await?;
        Ok::<_, Error>((registry, subscription))
    });
    let (_registry, mut subscription) = subscription?;
    let mut all = Vec::new();
    let mut filled = 0;
    for size in SIZES {
        runtime.block_on(operator.fill(filled, size))?;
        filled = size;
        reader.block_on(until(&mut subscription, size, 0))?;
        all.push(measure_at(
            size,
            samples,
            runtime,
            &reader,
            &operator,
            &mut subscription,
        )?);
    }
    runtime.block_on(operator.clear())?;
    report(samples, &all)
}

fn measure_at(
    size: usize,
    samples: usize,
    runtime: &Runtime,
    reader: &Runtime,
    operator: &Operator,
    subscription: &mut Subscription,
) -> Result<Figures> {
    let (mut each, mut seen, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    for weight in 1..=samples {
        // What is read depends on the pace of the feed otherwise.
        let pause = PACE_FOR_EACH * u32::try_from(size)?;
        reader.block_on(async { sleep(pause).await });
        let changing = operator.clone();
        let at = runtime.spawn(async move {
            let at = Instant::now();
            changing.change(weight).await?;
            Ok::<_, Error>(at)
        });
        let before = processor_time();
        let published = reader.block_on(until(subscription, size, weight))?;
        let spent = processor_time().saturating_sub(before);
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        each.push(spent.as_secs_f64() * 1e6 / size as f64);
        seen.push(published - runtime.block_on(at)??);
        let began = Instant::now();
        bytes = runtime.block_on(
            operator
                .agent
                .size(&format!("/v1/health/service/{SERVICE}")),
        )?;
        raw.push(began.elapsed());
    }
    // As it was, for the next size.
    runtime.block_on(operator.change(0))?;
    Ok(Figures {
        size,
        bytes,
        each: Spread::of(each),
        seen,
        raw,
    })
}

fn report(samples: usize, all: &[Figures]) -> Result<Part> {
    let mut table = Table::new([
        "instances",
        "answer",
        "processor time for each",
        "quartiles",
        "change → published, p50",
        "the same answer, not decoded, p50",
    ]);
    for one in all {
        table.row([
            one.size.to_string(),
            format!(
                "{:.1} MiB",
                f64::from(u32::try_from(one.bytes)?) / f64::from(1 << 20)
            ),
            format!("{:.2} µs", one.each.median),
            format!("{:.2}–{:.2} µs", one.each.quarter, one.each.three_quarters),
            format!("{:.1} ms", spread(&one.seen).median),
            format!("{:.1} ms", spread(&one.raw).median),
        ]);
    }
    let (Some(first), Some(last)) = (all.first(), all.last()) else {
        return Err("no sample was measured".into());
    };
    let growth = last.each.median / first.each.median;
    Ok(Part {
        text: format!("{METHOD}\n{samples} changes at each size:\n\n{table}"),
        bars: vec![Bar::at_most(
            format!(
                "decode and publish, processor time for each instance, {} ÷ {} instances",
                last.size, first.size
            ),
            growth,
            LIMIT,
            |ratio| format!("{ratio:.2}×"),
        )],
        groups: Vec::new(),
    })
}

/// Waits for a set of this size in which the first instance has this weight. Returns when it was there.
async fn until(subscription: &mut Subscription, size: usize, weight: usize) -> Result<Instant> {
    let waiting = async {
        let mut state = subscription.state_and_mark_seen();
        loop {
            let set = state.snapshot().instances();
            let has_it = |one: &_| changed_weight(one) == Some(weight);
            if set.len() == size && (weight == 0 || set.iter().any(has_it)) {
                return Ok(Instant::now());
            }
            state = subscription.changed().await?;
        }
    };
    timeout(PATIENCE, waiting).await?
}

/// What the last change wrote, in the instance that changes.
fn changed_weight(instance: &std::sync::Arc<sd_core::Instance>) -> Option<usize> {
    instance.metadata().get("change")?.parse().ok()
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap_or(0));
    seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap_or(0))
}

/// A client that writes to the catalog itself, many instances at a time.
#[derive(Clone)]
struct Operator {
    agent: Agent,
}

impl Operator {
    async fn connect(address: &str) -> Result<Self> {
        let agent = Agent::at(address)?;
        let node = json!({"Node": NODE, "Address": "10.0.0.1"});
        agent.put("/v1/catalog/register", node).await?;
        Ok(Self { agent })
    }

    async fn fill(&self, from: usize, to: usize) -> Result<()> {
        let numbers: Vec<usize> = (from..to).collect();
        for some in numbers.chunks(AT_ONCE) {
            let steps: Vec<_> = some.iter().map(|number| step(*number, 0)).collect();
            self.agent.put("/v1/txn", json!(steps)).await?;
        }
        Ok(())
    }

    async fn change(&self, change: usize) -> Result<()> {
        self.agent
            .put("/v1/txn", json!([step(0, change)]))
            .await
            .map(drop)
    }

    async fn clear(&self) -> Result<()> {
        let node = json!({"Node": NODE});
        self.agent
            .put("/v1/catalog/deregister", node)
            .await
            .map(drop)
    }
}

/// Writes an instance as sd-consul does.
fn step(number: usize, change: usize) -> serde_json::Value {
    let meta = json!({"sd-incarnation": format!("{number:x}"), "sd-zone": "eu-1a", "sd-version": "1.4.2", "owner": "payments",
        "change": change.to_string()});
    let service = json!({"ID": format!("{SERVICE}:i{number}"), "Service": SERVICE, "Address": "10.0.0.1", "Port": 1 + number,
        "Tags": ["blue"], "Meta": meta});
    json!({"Service": {"Verb": "set", "Node": NODE, "Service": service}})
}

const METHOD: &str = "\
**A large service.** One instance of many changes its metadata, and a subscription publishes the set that has it: Consul answers
with all of them each time. Processor time is that of the thread that does everything for the subscription: read, decode,
compare, publish. It is divided by the number of instances. Beside it stands how long the answer alone takes, to a client that
does not decode it: most of that is Consul's own time, which encodes the answer again for each reader.
";
