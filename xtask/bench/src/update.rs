//! How long a change of one endpoint among many takes until calls see it.

mod watched;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::BootClock;
use sd_core::{
    Delta, Instance, InstanceId, ServiceName, Snapshot, Subscription, SubscriptionConfig,
};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use crate::harness::interleave;
use crate::report::{Bar, Section, Table};
use crate::source::{PAUSE, Source, instances, reread, snapshot, with_one_changed};
use crate::stats::{Latency, Spread, as_millis};
use crate::update::watched::Watched;
use crate::{Effort, Result};

const ENDPOINTS: usize = 10_000;
const MANY: usize = 100_000;
const LIMIT_MILLIS: f64 = 1.0;
const SERVICE: &str = "bench";
/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    let samples = effort.pick(300, 10);
    let endpoints = effort.pick(ENDPOINTS, ENDPOINTS / 10);
    let runtime = Runtime::new()?;
    let differences = differences(effort)?;
    let subscription = runtime.block_on(subscription(endpoints, samples))?;
    let channel = runtime.block_on(channel(endpoints, samples))?;
    let mut table = Table::new(["change", "until", "p50 ms", "p99 ms", "longest ms"]);
    let mut bars = Vec::new();
    for step in [&[subscription][..], &channel.steps].concat() {
        let Latency { p50, p99, longest } = Latency::of(step.times.iter().copied());
        table.row([
            step.change.to_owned(),
            step.until.to_owned(),
            format!("{p50:.3}"),
            format!("{p99:.3}"),
            format!("{longest:.3}"),
        ]);
        bars.push(Bar::at_most(
            format!(
                "{endpoints} endpoints, {}: until {}, median",
                step.change, step.until
            ),
            p50,
            LIMIT_MILLIS,
            |millis| format!("{millis:.3} ms"),
        ));
    }
    let others = u32::try_from(channel.reconnects).unwrap_or(u32::MAX);
    bars.push(Bar::at_most(
        format!("{endpoints} endpoints: connections opened to the others meanwhile"),
        f64::from(others),
        0.0,
        |count| count.to_string(),
    ));
    let text = format!(
        "{METHOD}\n{samples} changes of each kind, {endpoints} endpoints, all connected:\n\n{table}\n{DIFFERENCES}\n{differences}"
    );
    Ok(Section {
        title: "One change among many endpoints",
        text,
        bars,
        charts: Vec::new(),
    })
}

/// Times from the source being told a set to something seen.
#[derive(Clone, Debug)]
struct Step {
    change: &'static str,
    until: &'static str,
    times: Vec<Duration>,
}

async fn subscription(endpoints: usize, samples: usize) -> Result<Step> {
    let service = ServiceName::new(SERVICE)?;
    let mut set = snapshot(&service, 0, instances(&service, endpoints)?);
    let source = Arc::new(Source::new(set.clone()));
    let mut subscription = Subscription::spawn(
        Arc::<Source>::clone(&source),
        service,
        SubscriptionConfig::default(),
        Arc::new(BootClock),
    )?;
    subscription.wait_until_known(PATIENCE).await?;
    subscription.state_and_mark_seen();
    let mut times = Vec::new();
    for nth in 0..samples {
        set = with_one_changed(&set, nth % endpoints, 2);
        sleep(PAUSE).await;
        let started = Instant::now();
        source.set(set.clone());
        subscription.changed().await?;
        times.push(started.elapsed());
    }
    Ok(Step {
        change: "weight",
        until: "a subscriber has the set",
        times,
    })
}

/// What a balanced channel did.
#[derive(Debug)]
struct Channel {
    steps: Vec<Step>,
    /// Connections beyond one for each endpoint that was new.
    reconnects: usize,
}

/// Changes to one endpoint after the other, each undone before the next.
async fn channel(endpoints: usize, samples: usize) -> Result<Channel> {
    const UNTIL: &str = "the channel has published the ready set";
    let service = ServiceName::new(SERVICE)?;
    let set = snapshot(&service, 0, instances(&service, endpoints)?);
    let source = Arc::new(Source::new(set.clone()));
    let mut channel = Watched::build(&source, SERVICE)?;
    channel.published(endpoints, PATIENCE).await?;
    let before = channel.connects();

    let mut steps = ["weight", "no longer ready", "ready again", "removed"].map(|change| Step {
        change,
        until: UNTIL,
        times: Vec::new(),
    });
    let mut added = Step {
        change: "added",
        until: "it is connected and published",
        times: Vec::new(),
    };
    for sample in 0..samples {
        let nth = sample * 37 % endpoints;
        let unready = changed(&set, nth, |instance| instance.with_ready(false));
        let gone = without(&set, nth);
        let changes = [
            (with_one_changed(&set, nth, 2), endpoints),
            (unready, endpoints - 1),
            (set.clone(), endpoints),
            (gone, endpoints - 1),
            (set.clone(), endpoints),
        ];
        let steps = steps.iter_mut().chain([&mut added]);
        for (step, (next, ready)) in steps.zip(changes) {
            sleep(PAUSE).await;
            channel.mark_seen();
            let started = Instant::now();
            source.set(next);
            let published = channel.published(ready, PATIENCE).await?;
            step.times.push(published.at.duration_since(started));
        }
    }
    let reconnects = channel.connects() - before - samples;
    Ok(Channel {
        steps: [&steps[..], &[added]].concat(),
        reconnects,
    })
}

fn changed(set: &Snapshot, nth: usize, change: impl Fn(Instance) -> Instance) -> Snapshot {
    let mut instances = set.instances().to_vec();
    instances[nth] = Arc::new(change(Instance::clone(&instances[nth])));
    set.clone().with_instances(instances)
}

fn without(set: &Snapshot, nth: usize) -> Snapshot {
    let mut instances = set.instances().to_vec();
    instances.remove(nth);
    set.clone().with_instances(instances)
}

type Diff = (&'static str, fn(&Snapshot, &Snapshot) -> usize);

/// The difference of two sets: ours in one pass over two sorted lists, beside two hash maps.
fn differences(effort: Effort) -> Result<Table> {
    let service = ServiceName::new(SERVICE)?;
    let mut table = Table::new([
        "instances",
        "the second set",
        "one pass over sorted sets, ms",
        "two hash maps, ms",
    ]);
    for size in [ENDPOINTS, effort.pick(MANY, 2 * ENDPOINTS)] {
        let old = snapshot(&service, 0, instances(&service, size)?);
        let seconds = [
            ("shares all but one", with_one_changed(&old, size / 2, 2)),
            (
                "was read again, one differs",
                reread(&with_one_changed(&old, size / 2, 2)),
            ),
        ];
        for (what, new) in seconds {
            let mut contenders: [Diff; 2] = [
                ("sorted", |old, new| Delta::between(old, new).retuned.len()),
                ("hashed", hashed),
            ];
            let figures = interleave(&mut contenders, effort.rounds, |(name, difference)| {
                let started = Instant::now();
                let found = black_box(difference(black_box(&old), black_box(&new)));
                let took = started.elapsed();
                if found == 1 {
                    Ok(as_millis(took))
                } else {
                    Err(format!("{name}: found {found} changes instead of 1").into())
                }
            })?;
            let medians = figures
                .iter()
                .map(|times| format!("{:.3}", Spread::of(times.iter().copied()).median));
            table.row(
                [size.to_string(), what.to_owned()]
                    .into_iter()
                    .chain(medians),
            );
        }
    }
    Ok(table)
}

/// As client-side balancers do that get their endpoints in no order.
fn hashed(old: &Snapshot, new: &Snapshot) -> usize {
    fn map(set: &Snapshot) -> HashMap<&InstanceId, &Arc<Instance>> {
        let instances = set.instances().iter();
        instances
            .map(|instance| (instance.id(), instance))
            .collect()
    }
    let (old, new) = (map(old), map(new));
    let gone = old.keys().filter(|id| !new.contains_key(*id)).count();
    let other = |(id, instance): &(&&InstanceId, &&Arc<Instance>)| old.get(**id) != Some(*instance);
    gone + new.iter().filter(other).count()
}

const METHOD: &str = "\
A source in this process gets a new set that differs in one instance. The clock runs from there, over the source's feed and the
subscription's task (and the channel's driver task), to the moment at which readers have the set. For the channel that moment is
when it reports the ready endpoints to its metrics, right before it stores the set that calls pick from. Every endpoint is
connected over an in-memory pipe to one tonic server in this process, whose work counts in the last row. 15 ms pass between
changes, so that each is a first change after quiet, which a subscription publishes at once.
";
const DIFFERENCES: &str = "\
What one difference of two sets costs. After a source was read again, every instance must be compared field by field:
";
