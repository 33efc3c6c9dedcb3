//! What a large service costs in memory and time: each size in a fresh process, so that one does not live off what another one
//! left in the allocator.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::BootClock;
use sd_core::{Delta, ServiceName, Subscription, SubscriptionConfig};
use tokio::time::{Instant, sleep};

use crate::report::{Bar, Section, Table};
use crate::source::{PAUSE, Source, instances, reread, snapshot, with_one_changed};
use crate::stats::{Spread, as_millis};
use crate::{Effort, Error, Result};

const SIZES: [usize; 2] = [10_000, 100_000];
/// For each instance, the larger set may need this many times what the smaller one needs: both do the same work for each, but
/// the larger one does not fit into the processor's caches.
const LINEAR: f64 = 3.0;
const PATIENCE: Duration = Duration::from_secs(10);

/// The one step that cannot grow in proportion.
const SORT: &str = "sort_ms";

/// What is measured, in the order of the table. Memory in bytes, time in milliseconds.
const STEPS: [(&str, &str, Unit); 7] = [
    ("set_bytes", "the instances and their set", Unit::Memory),
    ("set_ms", "making them", Unit::Time),
    (SORT, "sorting a set that came in any order", Unit::Time),
    (
        "changed_ms",
        "difference to a set with one change, which shares the others",
        Unit::Time,
    ),
    (
        "reread_ms",
        "difference to a set that was read again",
        Unit::Time,
    ),
    (
        "publish_ms",
        "publishing one change to a subscription",
        Unit::Time,
    ),
    (
        "peak_bytes",
        "the process at its largest: the set, one with a change, one read again",
        Unit::Memory,
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Memory,
    Time,
}

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    let runs = effort.pick(7, 1);
    let mut figures: BTreeMap<(usize, String), Vec<f64>> = BTreeMap::new();
    for _ in 0..runs {
        for size in SIZES {
            for (step, value) in probe_in_child(size)? {
                figures.entry((size, step)).or_default().push(value);
            }
        }
    }
    let median = |size: usize, step: &str| {
        let values = figures.get(&(size, step.to_owned()));
        Spread::of(values.into_iter().flatten().copied()).median
    };

    let [small, large] = SIZES;
    let mut table = Table::new([
        "what".to_owned(),
        format!("{small} instances"),
        format!("{large} instances"),
        "for each instance, large ÷ small".to_owned(),
    ]);
    let mut steepest = 0.0_f64;
    let growth = f64::from(u32::try_from(large / small)?);
    for (step, what, unit) in STEPS {
        let (few, many) = (median(small, step), median(large, step));
        let ratio = many / few / growth;
        if step != SORT {
            steepest = steepest.max(ratio);
        }
        table.row([
            what.to_owned(),
            unit.show(few),
            unit.show(many),
            format!("{ratio:.2}"),
        ]);
    }
    let bytes = median(large, "set_bytes") / f64::from(u32::try_from(large)?);
    let text = format!(
        "{METHOD}\nMedians of {runs} processes of each size:\n\n{table}\nOne instance with version, zone, a tag and two metadata \
         entries takes {bytes:.0} bytes of resident memory in a set of {large}.\n"
    );
    Ok(Section {
        title: "Memory and time for a large service",
        text,
        bars: vec![Bar::at_most(
            format!(
                "{large} instances: what the steepest step but sorting needs for each, beside {small}"
            ),
            steepest,
            LINEAR,
            |ratio| format!("{ratio:.2}×"),
        )],
        charts: Vec::new(),
    })
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Memory => format!("{:.1} MiB", value / 1024.0 / 1024.0),
            Self::Time => format!("{value:.2} ms"),
        }
    }
}

fn probe_in_child(size: usize) -> Result<Vec<(String, f64)>> {
    let output = Command::new(std::env::current_exe()?)
        .arg(format!("--probe-memory={size}"))
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the memory probe exited with {}: {said}", output.status).into());
    }
    String::from_utf8(output.stdout)?
        .lines()
        .map(|line| {
            let (step, value) = line.split_once('\t').ok_or("a line without a value")?;
            Ok((step.to_owned(), value.parse()?))
        })
        .collect()
}

/// What the child process does.
pub(crate) fn probe(size: usize) -> Result<()> {
    let service = ServiceName::new("bench")?;
    let mut out = io::stdout();
    let mut told = |step: &str, value: f64| writeln!(out, "{step}\t{value}");

    let before = resident("VmRSS")?;
    let started = Instant::now();
    let set = snapshot(&service, 1, instances(&service, size)?);
    told("set_ms", as_millis(started.elapsed()))?;
    let with_set = resident("VmRSS")?;
    told("set_bytes", with_set - before)?;

    let mut shuffled = set.instances().to_vec();
    fastrand::shuffle(&mut shuffled);
    let started = Instant::now();
    let sorted = snapshot(&service, 1, shuffled);
    told(SORT, as_millis(started.elapsed()))?;
    drop(sorted);

    let changed = with_one_changed(&set, size / 2, 7);
    let started = Instant::now();
    black_box(Delta::between(&set, &changed));
    told("changed_ms", as_millis(started.elapsed()))?;
    let again = reread(&set);
    let started = Instant::now();
    black_box(Delta::between(&set, &again));
    told("reread_ms", as_millis(started.elapsed()))?;

    let runtime = tokio::runtime::Runtime::new()?;
    let published = runtime.block_on(async {
        let source = Arc::new(Source::new(set));
        let mut subscription = Subscription::spawn(
            Arc::<Source>::clone(&source),
            service,
            SubscriptionConfig::default(),
            Arc::new(BootClock),
        )?;
        subscription.wait_until_known(PATIENCE).await?;
        subscription.state_and_mark_seen();
        sleep(PAUSE).await;
        let started = Instant::now();
        source.set(changed);
        subscription.changed().await?;
        Ok::<_, Error>(started.elapsed())
    })?;
    told("publish_ms", as_millis(published))?;
    told("peak_bytes", resident("VmHWM")?)?;
    drop(again);
    Ok(())
}

/// A size of this process, in bytes.
pub(crate) fn resident(field: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line
        .and_then(|rest| rest.trim_start_matches(':').trim().strip_suffix("kB"))
        .ok_or("/proc/self/status does not tell the size of this process")?;
    Ok(kib.trim().parse::<f64>()? * 1024.0)
}

const METHOD: &str = "\
Each size is measured in a new process: resident memory as the kernel counts it, and elapsed time. An instance has a version,
a zone, a tag and two metadata entries. A set shares unchanged instances with the one before it.
";
