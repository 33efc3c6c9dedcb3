//! From what a source tells to what readers see: mass-loss hold, coalescing, and status.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind};
use crate::feed::config::{Coalescing, SubscriptionConfig};
use crate::feed::mass_loss::Holder;
use crate::instrument;
use crate::model::newest_run::NewestRuns;
use crate::model::snapshot::{Revision, Snapshot};
use crate::model::state::{State, Status};
use crate::printable::Printable;
use crate::retry::later;

/// A set that waits for the end of a burst.
#[derive(Debug)]
struct Pending {
    snapshot: Snapshot,
    since: Instant,
}

/// The one writer of a subscription's state.
#[derive(Debug)]
pub(crate) struct Publisher {
    out: watch::Sender<State>,
    clock: Arc<dyn Clock>,
    coalescing: Coalescing,
    metered: bool,
    newest_runs: NewestRuns,
    holder: Holder,
    last_change: Option<Instant>,
    pending: Option<Pending>,
    /// The trouble that the source reported last. Publishing a set that waited or was held must not hide it.
    trouble: Option<Error>,
}

impl Publisher {
    pub(crate) fn new(
        out: watch::Sender<State>,
        clock: Arc<dyn Clock>,
        config: &SubscriptionConfig,
    ) -> Self {
        Self {
            out,
            clock,
            coalescing: config.coalescing,
            metered: config.metered,
            newest_runs: NewestRuns::default(),
            holder: Holder::new(config.mass_loss_hold),
            last_change: None,
            pending: None,
            trouble: None,
        }
    }

    /// Takes a full set from the source.
    pub(crate) fn set(&mut self, listed: &Snapshot) {
        self.trouble = None;
        self.take(listed);
    }

    /// Takes a full set of which the source cannot vouch for all.
    pub(crate) fn partial_set(&mut self, listed: &Snapshot, error: &Error) {
        self.trouble(error);
        self.take(listed);
    }

    fn take(&mut self, listed: &Snapshot) {
        for skipped in listed.skipped() {
            let [key, reason] = [&skipped.key, &skipped.reason].map(|text| Printable(text));
            debug!(%key, %reason, "entry skipped");
        }
        let now = Instant::now();
        let current = self.newest_runs.of(listed.clone());
        if current.len() < listed.len() {
            debug!(
                older_runs = listed.len() - current.len(),
                "several runs at one address"
            );
        }
        let served = self.holder.take(now, &current);
        self.offer(now, served);
    }

    /// The source answered that nothing changed up to `revision`.
    pub(crate) fn alive(&mut self, revision: &Revision, as_of: Moment) {
        self.trouble = None;
        if let Some(pending) = &mut self.pending {
            pending.snapshot = pending
                .snapshot
                .clone()
                .with_position(revision.clone(), as_of);
        } else {
            let snapshot = self
                .out
                .borrow()
                .snapshot
                .clone()
                .with_position(revision.clone(), as_of);
            self.publish(snapshot, false);
        }
    }

    /// The source has trouble: the set stays, the status says why.
    pub(crate) fn trouble(&mut self, error: &Error) {
        self.trouble = Some(error.clone());
        let now = self.clock.now();
        self.out.send_modify(|state| {
            let was_well = matches!(
                state.status,
                Status::Live | Status::Initializing { error: None, .. }
            );
            if was_well {
                if self.metered {
                    instrument::stale(&state.snapshot);
                }
                if error.kind() == ErrorKind::Outdated {
                    debug!(error = %error.report(), "feed outdated, reading everything again");
                } else {
                    warn!(error = %error.report(), "source has trouble, keeping what is known");
                }
            } else {
                debug!(error = %error.report(), "source still has trouble");
            }
            state.status.blame(now, error);
        });
    }

    /// Nothing is published any more. Readers are not woken: that the writer is gone wakes them.
    pub(crate) fn end(&mut self, error: &Error) {
        let now = self.clock.now();
        self.out.send_if_modified(|state| {
            state.status.blame(now, error);
            false
        });
    }

    /// When [`on_timer`](Self::on_timer) has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        let burst_ends = self.pending.as_ref().map(|pending| {
            let quiet = self
                .last_change
                .map_or(pending.since, |at| later(at, self.coalescing.quiet));
            quiet.min(later(pending.since, self.coalescing.longest))
        });
        [burst_ends, self.holder.due()].into_iter().flatten().min()
    }

    /// Publishes what waited for the end of a burst, and lets go of what was held for long enough.
    pub(crate) fn on_timer(&mut self) {
        let now = Instant::now();
        if self.holder.due().is_some_and(|due| due <= now) {
            if let Some(released) = self.holder.release(now) {
                self.offer(now, released);
            }
        } else {
            // What waits differs from what was published: a set that equals it ends the wait.
            self.flush();
        }
    }

    /// Publishes what waits for the end of a burst.
    pub(crate) fn flush(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.publish(pending.snapshot, true);
        }
    }

    fn offer(&mut self, now: Instant, served: Snapshot) {
        let (known, same) = {
            let state = self.out.borrow();
            (state.is_known(), state.snapshot.is_same_set(&served))
        };
        if known && same {
            self.pending = None;
            return self.publish(served, false);
        }
        let in_burst = self
            .last_change
            .is_some_and(|last| now.saturating_duration_since(last) < self.coalescing.quiet);
        self.last_change = Some(now);
        if known && (in_burst || self.pending.is_some()) {
            let since = self.pending.as_ref().map_or(now, |pending| pending.since);
            self.pending = Some(Pending {
                snapshot: served,
                since,
            });
        } else {
            self.publish(served, !same);
        }
    }

    /// Replaces the state; wakes readers only if they would see a difference. `differs` says whether the set is another one.
    fn publish(&mut self, snapshot: Snapshot, differs: bool) {
        let now = self.clock.now();
        self.out.send_if_modified(|state| {
            let was_live = matches!(state.status, Status::Live);
            let status = match &self.trouble {
                None => Status::Live,
                Some(error) => Status::Stale {
                    since: state.status.since().unwrap_or(now),
                    error: error.clone(),
                },
            };
            let is_live = self.trouble.is_none();
            let changed = differs || !state.is_known();
            if changed {
                info!(
                    instances = snapshot.len(),
                    held = snapshot.held().len(),
                    skipped = snapshot.skipped_count(),
                    revision = snapshot.revision().value(),
                    "set changed"
                );
            } else if is_live && !was_live {
                info!(
                    revision = snapshot.revision().value(),
                    "source is well again"
                );
            }
            if self.metered {
                instrument::published(&snapshot, changed, is_live);
            }
            *state = State { snapshot, status };
            changed || is_live != was_live
        });
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if self.metered {
            instrument::ended(self.out.borrow().snapshot.service());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    use super::*;
    use crate::clock::TokioClock;
    use crate::model::instance::Instance;
    use crate::model::name::ServiceName;

    fn publisher() -> (Publisher, watch::Receiver<State>) {
        let service = ServiceName::new("s").unwrap();
        let clock = Arc::new(TokioClock);
        let since = clock.now();
        let (out, states) = watch::channel(State {
            snapshot: Snapshot::unread(service, since),
            status: Status::Initializing { since, error: None },
        });
        let config = SubscriptionConfig::default();
        (Publisher::new(out, clock, &config), states)
    }

    fn set(revision: u64, ports: std::ops::Range<u16>) -> Snapshot {
        let instances = ports
            .map(|port| {
                let id = crate::InstanceId::new(format!("i{port}")).unwrap();
                let instance = Instance::new("s", format!("h:{port}")).unwrap();
                Arc::new(
                    instance
                        .with_id(id)
                        .with_incarnation(crate::Incarnation::from_u64(1)),
                )
            })
            .collect();
        let service = ServiceName::new("s").unwrap();
        Snapshot::new(
            service,
            Revision::new("d", revision),
            TokioClock.now(),
            instances,
        )
    }

    /// The gauges by their names, as the bits of their values.
    #[derive(Debug, Default)]
    struct Gauges(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

    impl Gauges {
        /// The values of these.
        fn show(&self, names: &[&str]) -> String {
            let gauges = self.0.lock().unwrap();
            let show = |name: &&str| f64::from_bits(gauges[*name].load(Ordering::Relaxed));
            let shown: Vec<_> = names.iter().map(|name| show(name).to_string()).collect();
            shown.join(" ")
        }
    }

    impl Recorder for Gauges {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            let mut gauges = self.0.lock().unwrap();
            let gauge = gauges.entry(key.name().to_owned()).or_default();
            Gauge::from_arc(Arc::clone(gauge))
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gauges_show_a_source_that_was_never_read_and_go_to_zero_in_the_end() {
        let gauges = Gauges::default();
        let _recording = metrics::set_default_local_recorder(&gauges);
        let (mut publisher, _states) = publisher();
        publisher.trouble(&down());
        assert_eq!(gauges.show(&[instrument::STALE]), "1");
        publisher.set(&set(1, 1..5));
        assert_eq!(gauges.show(&[instrument::STALE]), "0");
        tokio::time::advance(Duration::from_secs(1)).await;
        publisher.set(&set(2, 1..2));
        publisher.trouble(&down());
        let all = [
            instrument::STALE,
            instrument::INSTANCES,
            instrument::INSTANCES_HELD,
        ];
        assert_eq!(gauges.show(&all), "1 4 3");
        drop(publisher);
        assert_eq!(gauges.show(&all), "0 0 0");
    }

    fn down() -> Error {
        Error::new(ErrorKind::Unavailable, "test")
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_that_waited_for_the_end_of_a_burst_does_not_hide_that_the_source_is_down() {
        let (mut publisher, states) = publisher();
        publisher.set(&set(1, 1..3));
        publisher.set(&set(2, 1..4));
        publisher.trouble(&down());
        tokio::time::sleep_until(publisher.due().unwrap()).await;
        publisher.on_timer();
        let state = states.borrow().clone();
        assert_eq!((state.snapshot.len(), state.status.as_str()), (3, "stale"));
        publisher.alive(&Revision::new("d", 2), TokioClock.now());
        assert_eq!(states.borrow().status.as_str(), "live");
    }

    #[tokio::test(start_paused = true)]
    async fn letting_go_of_held_instances_does_not_hide_that_the_source_is_down() {
        let (mut publisher, states) = publisher();
        publisher.set(&set(1, 1..5));
        tokio::time::advance(Duration::from_secs(1)).await;
        publisher.set(&set(2, 1..2));
        assert_eq!(states.borrow().snapshot.held().len(), 3);
        publisher.trouble(&down());
        tokio::time::sleep_until(publisher.due().unwrap()).await;
        publisher.on_timer();
        let state = states.borrow().clone();
        assert_eq!((state.snapshot.len(), state.status.as_str()), (1, "stale"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_partial_set_is_served_and_stays_stale_since_the_trouble_began() {
        let (mut publisher, states) = publisher();
        publisher.partial_set(&set(1, 1..2), &down());
        let since = states.borrow().status.since();
        assert!(since.is_some() && states.borrow().is_known());
        tokio::time::advance(Duration::from_secs(5)).await;
        publisher.partial_set(&set(2, 1..3), &down());
        let state = states.borrow().clone();
        assert_eq!((state.snapshot.len(), state.status.since()), (2, since));
        publisher.set(&set(3, 1..3));
        assert_eq!(states.borrow().status.as_str(), "live");
    }
}
