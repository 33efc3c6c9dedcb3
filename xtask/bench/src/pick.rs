//! What one pick costs, by size of the set.

mod contenders;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::allocations::{self, Counts, Subject};
use crate::harness::interleave;
use crate::pick::contenders::{Contender, all};
use crate::plot::{Chart, Group, PlotBar, Scale, short};
use crate::report::{Bar, Section, Table};
use crate::stats::{Ratio, Spread};
use crate::{Effort, Result};

const SIZES: [usize; 5] = [1, 10, 100, 1_000, 10_000];
/// The size of the set that threads share.
const SHARED_SIZE: usize = 100;
const LIMIT_NANOS: f64 = 40.0;
/// How many picks lie between two looks at the clock.
const BATCH: u32 = 10_000;
/// How many picks have their allocations counted.
const COUNTED: u32 = 100_000;

/// How the pickers of one round are treated.
#[derive(Clone, Copy, Debug)]
struct Setting {
    threads: usize,
    /// Whether the set is published again every millisecond.
    writer: bool,
}

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    let time = Duration::from_millis(effort.pick(20, 1));
    let counts = allocations::count(Subject::Pick, &[])?;

    let names: Vec<(&str, bool, &str)> = all(1)
        .iter()
        .map(|contender| (contender.name, contender.ours, contender.gives))
        .collect();
    let mut by_size = Vec::new();
    for size in SIZES {
        let alone = Setting {
            threads: 1,
            writer: false,
        };
        let figures = interleave(&mut all(size), effort.rounds, |contender| {
            Ok(nanos_per_pick(contender, alone, time))
        })?;
        by_size.push((size, figures));
    }

    let mut table = Table::new(
        ["contender".to_owned(), "gives".to_owned()]
            .into_iter()
            .chain(SIZES.map(|size| size.to_string()))
            .chain(["allocations".to_owned()]),
    );
    let mut bars = Vec::new();
    for (nth, (name, ours, gives)) in names.iter().enumerate() {
        let medians: Vec<f64> = by_size
            .iter()
            .map(|(_, figures)| Spread::of(figures[nth].iter().copied()).median)
            .collect();
        let allocated = counts.get(*name).copied().unwrap_or(f64::NAN);
        table.row(
            [(*name).to_owned(), (*gives).to_owned()]
                .into_iter()
                .chain(medians.iter().map(|nanos| short(*nanos)))
                .chain([short(allocated)]),
        );
        if *ours {
            let slowest = medians.iter().copied().fold(0.0, f64::max);
            bars.push(Bar::at_most(
                format!("pick, {name}, 1 to 10 000 endpoints, slowest size"),
                slowest,
                LIMIT_NANOS,
                |nanos| format!("{} ns", short(nanos)),
            ));
            bars.push(Bar::at_most(
                format!("allocations for one pick, {name}"),
                allocated,
                0.0,
                |count| count.to_string(),
            ));
        }
    }

    let chart = Chart {
        name: "pick",
        title: "Nanoseconds for one pick, by size of the set".to_owned(),
        scale: Scale::Log(1.0),
        groups: by_size
            .iter()
            .map(|(size, figures)| group(format!("{size} endpoints"), &names, figures))
            .collect(),
    };
    let text = format!(
        "{METHOD}\nMedian nanoseconds for one pick, by number of endpoints, and allocations for each:\n\n{table}\n\
         Nanoseconds for one pick of {SHARED_SIZE} endpoints while others use the same set:\n\n{}",
        company(effort, time)?
    );
    Ok(Section {
        title: "Pick",
        text,
        bars,
        charts: vec![chart],
    })
}

fn group(label: String, names: &[(&str, bool, &str)], figures: &[Vec<f64>]) -> Group {
    Group {
        label,
        bars: names
            .iter()
            .zip(figures)
            .map(|((name, ours, _), figures)| PlotBar {
                label: (*name).to_owned(),
                ours: *ours,
                spread: Spread::of(figures.iter().copied()),
            })
            .collect(),
    }
}

/// Picks from a set that another thread picks from too, and from one that is published again all the time.
fn company(effort: Effort, time: Duration) -> Result<Table> {
    let settings = [(1, false), (2, false), (1, true), (2, true)]
        .map(|(threads, writer)| Setting { threads, writer });
    let mut contenders = all(SHARED_SIZE);
    contenders.retain(|contender| contender.shared);
    let mut figures = Vec::new();
    for setting in settings {
        figures.push(interleave(&mut contenders, effort.rounds, |contender| {
            Ok(nanos_per_pick(contender, setting, time))
        })?);
    }
    let mut table = Table::new([
        "contender",
        "1 thread",
        "2 threads",
        "1 thread, 1 000 publications/s",
        "2 threads, 1 000 publications/s",
        "2 threads ÷ 1",
    ]);
    for (nth, contender) in contenders.iter().enumerate() {
        let medians = settings.iter().zip(&figures).map(|(setting, figures)| {
            if setting.writer && contender.publish.is_none() {
                "–".to_owned()
            } else {
                short(Spread::of(figures[nth].iter().copied()).median)
            }
        });
        let ratio = Ratio::of(&figures[1][nth], &figures[0][nth], |nanos| *nanos);
        table.row(
            [contender.name.to_owned()]
                .into_iter()
                .chain(medians)
                .chain([short(ratio.median())]),
        );
    }
    Ok(table)
}

/// Picks for about `time` and returns how long one pick took on one thread.
fn nanos_per_pick(contender: &Contender, setting: Setting, time: Duration) -> f64 {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        if let (true, Some(publish)) = (setting.writer, &contender.publish) {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    publish();
                    thread::park_timeout(Duration::from_millis(1));
                }
            });
        }
        // Made before any of them starts, so that they run together.
        let pickers: Vec<_> = (0..setting.threads).map(|_| (contender.picks)()).collect();
        let threads: Vec<_> = pickers
            .into_iter()
            .map(|mut picks| {
                scope.spawn(move || {
                    picks(BATCH);
                    let (started, mut picked) = (Instant::now(), 0_u32);
                    while started.elapsed() < time {
                        picks(BATCH);
                        picked += BATCH;
                    }
                    started.elapsed().as_secs_f64() * 1e9 / f64::from(picked.max(1))
                })
            })
            .collect();
        let nanos: Vec<f64> = threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect();
        done.store(true, Ordering::Relaxed);
        Spread::of(nanos).median
    })
}

/// Allocations for each pick, in the program that counts.
pub(crate) fn count(counted: fn() -> usize) -> Counts {
    all(SHARED_SIZE)
        .iter()
        .map(|contender| {
            let mut picks = (contender.picks)();
            picks(BATCH);
            let before = counted();
            picks(COUNTED);
            let allocated = u32::try_from(counted() - before).unwrap_or(u32::MAX);
            (
                contender.name.to_owned(),
                f64::from(allocated) / f64::from(COUNTED),
            )
        })
        .collect()
}

const METHOD: &str = "\
The bar holds for the pick alone, on one thread. The rows do not all do the same: *gives* says what a pick returns. tower's
balancer also asks the chosen service whether it is ready, calls it, and takes it back into its ready set, which is what one
request through it costs; threads can share it only with a queue in front of it. *Published set* is laid out like the set that
sd-grpc publishes, and read through a cache of its pointer; sd-grpc's further work, counting the call on its connection, shows
under *Unary calls*.
";
