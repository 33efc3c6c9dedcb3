//! The agent's metrics, and those of the libraries in it, as Prometheus reads them.
//!
//! A recorder of its own, because the number of series must have a bound: callers name the services that are followed, and each has
//! series of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use sd_core::Printable;

/// Series that are kept. Further ones are counted and dropped.
const MOST_SERIES: usize = 20_000;

/// Upper bounds in seconds. All histograms here are times.
const BOUNDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// All series. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    families: Mutex<Families>,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Families {
    by_name: BTreeMap<String, Family>,
    /// What is known of a name before its first series.
    help: BTreeMap<String, String>,
    series: usize,
}

/// By their labels, as they are written.
type Series<T> = BTreeMap<String, Arc<T>>;

#[derive(Debug)]
enum Family {
    Counters(Series<AtomicU64>),
    Gauges(Series<AtomicU64>),
    Histograms(Series<Buckets>),
}

impl Family {
    fn counters(&mut self) -> Option<&mut Series<AtomicU64>> {
        match self {
            Self::Counters(all) => Some(all),
            _ => None,
        }
    }

    fn gauges(&mut self) -> Option<&mut Series<AtomicU64>> {
        match self {
            Self::Gauges(all) => Some(all),
            _ => None,
        }
    }

    fn histograms(&mut self) -> Option<&mut Series<Buckets>> {
        match self {
            Self::Histograms(all) => Some(all),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS.len() + 1],
    /// In microseconds.
    sum: AtomicU64,
}

impl HistogramFn for Buckets {
    fn record(&self, seconds: f64) {
        let bucket = BOUNDS
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(BOUNDS.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` saturates, also for what is no number"
        )]
        let micros = (seconds * 1e6) as u64;
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Those of this process: what any part of it measures goes there from now on. The same at each call.
    pub fn of_this_process() -> Self {
        static METRICS: OnceLock<Metrics> = OnceLock::new();
        let metrics = METRICS.get_or_init(|| {
            let metrics = Self::default();
            // A program that has set a recorder of its own keeps it, and this one has our own series alone.
            let _ = metrics::set_global_recorder(metrics.clone());
            metrics
        });
        metrics.clone()
    }

    /// All series as text.
    pub fn render(&self) -> String {
        let families = self
            .inner
            .families
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, family) in &families.by_name {
            // Writing to a string cannot fail.
            if let Some(help) = families.help.get(name) {
                let _ = writeln!(text, "# HELP {name} {help}");
            }
            match family {
                Family::Counters(series) => {
                    let _ = writeln!(text, "# TYPE {name} counter");
                    for (labels, value) in series {
                        let _ = writeln!(
                            text,
                            "{name}{} {}",
                            braced(labels, ""),
                            value.load(Ordering::Relaxed)
                        );
                    }
                }
                Family::Gauges(series) => {
                    let _ = writeln!(text, "# TYPE {name} gauge");
                    for (labels, value) in series {
                        let value = f64::from_bits(value.load(Ordering::Relaxed));
                        let _ = writeln!(text, "{name}{} {value}", braced(labels, ""));
                    }
                }
                Family::Histograms(series) => {
                    let _ = writeln!(text, "# TYPE {name} histogram");
                    for (labels, buckets) in series {
                        buckets.render(name, labels, &mut text);
                    }
                }
            }
        }
        let dropped = self.inner.dropped.load(Ordering::Relaxed);
        let _ = writeln!(
            text,
            "# HELP sd_agent_series_dropped_total Series that are not kept because there are too many\n\
             # TYPE sd_agent_series_dropped_total counter\nsd_agent_series_dropped_total {dropped}"
        );
        text
    }

    fn describe(&self, key: &KeyName, description: &SharedString) {
        let mut families = self
            .inner
            .families
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        families
            .help
            .insert(key.as_str().to_owned(), Printable(description).to_string());
    }

    /// The series of a key, made if there is room. `None` also if the name is that of another kind.
    fn series<T: Default>(
        &self,
        key: &Key,
        new: fn() -> Family,
        all: fn(&mut Family) -> Option<&mut Series<T>>,
    ) -> Option<Arc<T>> {
        let mut families = self
            .inner
            .families
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let families = &mut *families;
        let labels = labels(key);
        if let Some(found) = families
            .by_name
            .get_mut(key.name())
            .and_then(all)
            .and_then(|all| all.get(&labels))
        {
            return Some(Arc::clone(found));
        }
        // Of the agent's own there are few, and names that callers choose leave them their room.
        let is_own = key.name().starts_with("sd_agent_");
        if !is_own && families.series >= MOST_SERIES {
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let family = families
            .by_name
            .entry(key.name().to_owned())
            .or_insert_with(new);
        let made = all(family)?.entry(labels).or_default();
        families.series += usize::from(!is_own);
        Some(Arc::clone(made))
    }
}

impl Buckets {
    fn render(&self, name: &str, labels: &str, text: &mut String) {
        let mut count = 0;
        for (bucket, in_it) in self.counts.iter().enumerate() {
            count += in_it.load(Ordering::Relaxed);
            let bound = BOUNDS
                .get(bucket)
                .map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let _ = writeln!(
                text,
                "{name}_bucket{} {count}",
                braced(labels, &format!("le=\"{bound}\""))
            );
        }
        let sum = std::time::Duration::from_micros(self.sum.load(Ordering::Relaxed)).as_secs_f64();
        let _ = writeln!(
            text,
            "{name}_sum{} {sum}\n{name}_count{} {count}",
            braced(labels, ""),
            braced(labels, "")
        );
    }
}

fn braced(labels: &str, more: &str) -> String {
    match (labels.is_empty(), more.is_empty()) {
        (true, true) => String::new(),
        (false, false) => format!("{{{labels},{more}}}"),
        _ => format!("{{{labels}{more}}}"),
    }
}

/// The labels as Prometheus writes them. Nothing in them breaks a line or moves a cursor.
fn labels(key: &Key) -> String {
    let mut text = String::new();
    for label in key.labels() {
        if !text.is_empty() {
            text.push(',');
        }
        let value = label.value().replace('\\', "\\\\").replace('"', "\\\"");
        let _ = write!(text, "{}=\"", label.key());
        for c in value.chars() {
            if Printable::is_printable(c) {
                text.push(c);
            } else {
                // The only escape that Prometheus knows for them is that of a backslash itself.
                let _ = write!(text, "\\\\u{{{:x}}}", u32::from(c));
            }
        }
        text.push('"');
    }
    text
}

impl Recorder for Metrics {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.series(key, || Family::Counters(BTreeMap::new()), Family::counters)
            .map_or(Counter::noop(), Counter::from_arc)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.series(key, || Family::Gauges(BTreeMap::new()), Family::gauges)
            .map_or(Gauge::noop(), Gauge::from_arc)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.series(
            key,
            || Family::Histograms(BTreeMap::new()),
            Family::histograms,
        )
        .map_or(Histogram::noop(), Histogram::from_arc)
    }
}

#[cfg(test)]
mod tests {
    use metrics::{counter, describe_counter, gauge, histogram, with_local_recorder};

    use super::*;

    #[test]
    fn each_kind_is_written_as_prometheus_reads_it() {
        let metrics = Metrics::default();
        with_local_recorder(&metrics, || {
            describe_counter!("a_total", "How often");
            counter!("a_total", "service" => "x\"\\\n\u{1b}").increment(2);
            counter!("a_total").increment(1);
            gauge!("b").set(1.5);
            gauge!("b").decrement(0.5);
            histogram!("c_seconds", "k" => "v").record(0.02);
            histogram!("c_seconds", "k" => "v").record(70.0);
        });
        let text = metrics.render();
        for line in [
            "# HELP a_total How often",
            "# TYPE a_total counter",
            "a_total 1",
            "a_total{service=\"x\\\"\\\\\\\\u{a}\\\\u{1b}\"} 2",
            "# TYPE b gauge",
            "b 1",
            "c_seconds_bucket{k=\"v\",le=\"0.01\"} 0",
            "c_seconds_bucket{k=\"v\",le=\"0.05\"} 1",
            "c_seconds_bucket{k=\"v\",le=\"+Inf\"} 2",
            "c_seconds_sum{k=\"v\"} 70.02",
            "c_seconds_count{k=\"v\"} 2",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }

    #[test]
    fn however_many_labels_there_are_few_series_are_kept_and_the_rest_counted() {
        let metrics = Metrics::default();
        with_local_recorder(&metrics, || {
            for service in 0..MOST_SERIES + 7 {
                counter!("a_total", "service" => service.to_string()).increment(1);
            }
            counter!("a_total", "service" => "0").increment(1);
            gauge!("sd_agent_late").set(3.0);
        });
        let text = metrics.render();
        assert!(text.contains("a_total{service=\"0\"} 2\n"));
        assert!(text.contains("sd_agent_series_dropped_total 7\n"));
        assert!(text.contains("sd_agent_late 3\n"));
        assert!(text.lines().count() < MOST_SERIES + 10);
    }
}
