//! Several sources as one set.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use super::relay::{Relay, SILENCE_LIMIT, View};
use super::source::{NamedSource, Part, Source, changed, default_config, reread, states, trouble};
use crate::clock::{BootClock, Clock};
use crate::error::Result;
use crate::feed::config::SubscriptionConfig;
use crate::model::instance::{Incarnation, Instance};
use crate::model::name::{InstanceId, ServiceName};
use crate::model::snapshot::{Revision, Skipped, Snapshot};
use crate::model::state::{State, Status};
use crate::port::instancer::{Feed, Instancer, ServiceList, Watcher};
use crate::retry::later;

/// Several sources as one set: several datacenters, or the old and the new registry during a migration.
///
/// **Identity.** Ids are not changed. If two sources have the same id, the source given first wins; if the other one means
/// another run, that run is named in [`Snapshot::skipped`]. (A prefix for each source would change the identity of every
/// instance as soon as a second source is added, and would list instances twice that are registered in both.)
///
/// **Trouble.** A source that is down keeps its last part, and the others go on. The part of a source that has never answered
/// is missing. In both cases the set is served and is stale, with the name and the reason of the source, until all sources have
/// recovered. The mass-loss hold applies to each source separately.
#[derive(Debug)]
pub struct Merge {
    sources: Vec<NamedSource>,
    config: SubscriptionConfig,
    clock: Arc<dyn Clock>,
    wait_for_all: Duration,
    position: Position,
}

/// The source of revisions: a history of our own, since those of the sources cannot be added up.
#[derive(Clone, Debug)]
struct Position {
    domain: Arc<str>,
    last: Arc<AtomicU64>,
}

impl Position {
    fn advance(&self) -> Revision {
        let value = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        Revision::new(Arc::clone(&self.domain), value)
    }
}

impl Merge {
    /// A merge of this one source. [`and`](Self::and) adds others. Errors show the name.
    pub fn new(name: &str, source: impl Into<Source>) -> Self {
        Self {
            sources: vec![NamedSource::new(name, source.into())],
            config: default_config(),
            clock: Arc::new(BootClock),
            wait_for_all: Duration::from_secs(3),
            position: Position {
                domain: format!("merge-{}", Incarnation::random()).into(),
                last: Arc::default(),
            },
        }
    }

    /// Adds another source.
    #[must_use]
    pub fn and(mut self, name: &str, source: impl Into<Source>) -> Self {
        self.sources.push(NamedSource::new(name, source.into()));
        self
    }

    /// Sets how long the first set waits for sources that have neither answered nor failed. Default 3 s.
    #[must_use]
    pub fn with_wait_for_all(mut self, limit: Duration) -> Self {
        self.wait_for_all = limit;
        self
    }

    /// Sets how each [`Instancer`] is watched; a registry has its own settings. By default as in any subscription but without
    /// coalescing, which the subscription to the merge does.
    #[must_use]
    pub fn with_subscription(mut self, config: SubscriptionConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the clock that measures ages. Default [`BootClock`].
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

#[async_trait]
impl Instancer for Merge {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(self.list_services().await?.services)
    }

    async fn list_services(&self) -> Result<ServiceList> {
        const OP: &str = "merge: list services";
        let asked = self.sources.iter().map(NamedSource::list_services);
        let mut all = ServiceList::default();
        for (source, answer) in self.sources.iter().zip(join_all(asked).await) {
            let list = answer.map_err(|error| source.blame(OP, &error))?;
            all.services.extend(list.services);
            all.unlisted += list.unlisted;
        }
        all.services.sort();
        all.services.dedup();
        Ok(all)
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        const OP: &str = "merge: list service";
        let asked = self.sources.iter().map(|source| source.list(service));
        let mut sets = Vec::new();
        for (source, answer) in self.sources.iter().zip(join_all(asked).await) {
            sets.push((
                source.name(),
                answer.map_err(|error| source.blame(OP, &error))?,
            ));
        }
        let sets = sets.iter().map(|(name, set)| (*name, set));
        Ok(merge(service, sets, self.clock.as_ref())
            .with_position(self.position.advance(), self.clock.now()))
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        let parts = self
            .sources
            .iter()
            .map(|source| source.subscribe(service, &self.config, &self.clock));
        let parts: Vec<_> = parts.collect::<Result<_>>()?;
        if known.is_none() {
            reread(&parts).await;
        }
        Ok(Box::new(MergeWatcher {
            service: service.clone(),
            parts,
            clock: Arc::clone(&self.clock),
            first_by: later(Instant::now(), self.wait_for_all),
            position: self.position.clone(),
            relay: Relay::new(known),
        }))
    }
}

#[derive(Debug)]
struct MergeWatcher {
    service: ServiceName,
    parts: Vec<Part>,
    clock: Arc<dyn Clock>,
    /// When the first set is published even if a source has not answered.
    first_by: Instant,
    position: Position,
    relay: Relay,
}

impl MergeWatcher {
    fn view(&mut self) -> View {
        let states = states(&mut self.parts);
        if self.is_too_early(&states) {
            return View::default();
        }
        // In a merge, a source without instances is no trouble.
        let not_live = self
            .parts
            .iter()
            .zip(&states)
            .filter(|(_, state)| !matches!(state.status, Status::Live));
        let trouble = trouble("merge", not_live);
        let known = self
            .parts
            .iter()
            .zip(&states)
            .filter(|(_, state)| state.is_known());
        let mut sets = known
            .map(|(part, state)| (part.name.as_ref(), &state.snapshot))
            .peekable();
        let set = sets.peek().is_some().then(|| {
            let set = merge(&self.service, sets, self.clock.as_ref());
            let as_of = set.as_of();
            let revision = match self.relay.told() {
                Some(told) if told.is_same_set(&set) => told.revision().clone(),
                _ => self.position.advance(),
            };
            set.with_position(revision, as_of)
        });
        View { set, trouble }
    }

    /// Whether a first set would lack a source that may soon answer.
    fn is_too_early(&self, states: &[State]) -> bool {
        let waiting =
            |state: &State| matches!(state.status, Status::Initializing { error: None, .. });
        self.relay.told().is_none() && Instant::now() < self.first_by && states.iter().any(waiting)
    }

    fn wake_at(&self) -> Instant {
        let repeat_at = self.relay.repeat_at();
        if self.relay.told().is_none() && Instant::now() < self.first_by {
            repeat_at.min(self.first_by)
        } else {
            repeat_at
        }
    }
}

#[async_trait]
impl Watcher for MergeWatcher {
    async fn next(&mut self) -> Result<Feed> {
        loop {
            let view = self.view();
            if let Some(news) = self.relay.news(view) {
                return Ok(news);
            }
            let wake_at = self.wake_at();
            tokio::select! {
                () = changed(&mut self.parts) => {}
                () = sleep_until(wake_at) => {}
            }
        }
    }

    fn silence_limit(&self) -> Duration {
        SILENCE_LIMIT
    }
}

/// One set of all, as old as the oldest part. If two instances have one id, the first source's stays.
fn merge<'a>(
    service: &ServiceName,
    sets: impl Iterator<Item = (&'a str, &'a Snapshot)>,
    clock: &dyn Clock,
) -> Snapshot {
    let mut chosen: BTreeMap<&InstanceId, (&str, &Arc<Instance>)> = BTreeMap::new();
    let (mut held, mut skipped) = (Vec::new(), Vec::new());
    // Of what a source skips it names the first ones only.
    let mut unnamed = 0;
    let mut as_of = clock.now();
    for (source, set) in sets {
        as_of = as_of.min(set.as_of());
        let named = set.skipped().iter();
        skipped.extend(
            named.map(|entry| Skipped::new(format!("{source}: {}", entry.key), &entry.reason)),
        );
        unnamed += set.skipped_count() - set.skipped().len();
        let held_there: HashSet<_> = set.held().iter().collect();
        for instance in set.instances() {
            let id = instance.id();
            match chosen.get(id) {
                None => {
                    chosen.insert(id, (source, instance));
                    if held_there.contains(id) {
                        held.push(id.clone());
                    }
                }
                Some((winner, other)) if !other.is_same_run(instance) => {
                    let reason = format!("{winner} lists another run with this id, which wins");
                    skipped.push(Skipped::new(format!("{source}: {id}"), reason));
                }
                Some(_) => {}
            }
        }
    }
    let instances = chosen
        .into_values()
        .map(|(_, instance)| Arc::clone(instance))
        .collect();
    let unplaced = Snapshot::unread(service.clone(), as_of);
    let skipped_count = skipped.len() + unnamed;
    unplaced
        .with_instances(instances)
        .with_skipped(skipped)
        .with_skipped_count(skipped_count)
        .with_held(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;
    use crate::combine::switched::{Switched, instance, seen, service, subscribe, until};

    fn merge_of(eu: &Arc<Switched>, us: &Arc<Switched>) -> Arc<Merge> {
        let (eu, us): (Arc<Switched>, Arc<Switched>) = (Arc::clone(eu), Arc::clone(us));
        Arc::new(
            Merge::new("eu", eu)
                .and("us", us)
                .with_clock(Arc::new(TokioClock)),
        )
    }

    fn reason(state: &State) -> String {
        state.status().error().unwrap().report().to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_set_is_whole_and_changes_of_every_source_follow_at_new_revisions() {
        let (eu, us) = (Switched::up([instance("a")]), Switched::up([instance("b")]));
        let mut all = subscribe(merge_of(&eu, &us));
        let first = all.changed().await.unwrap();
        assert_eq!(seen(&first), "a b live");
        us.set([instance("b"), instance("c")]);
        let second = until(&mut all, "a b c live").await;
        assert!(first.snapshot().revision() < second.snapshot().revision());
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_goes_down_keeps_its_part_while_the_other_one_changes() {
        let (eu, us) = (Switched::up([instance("a")]), Switched::up([instance("b")]));
        let mut all = subscribe(merge_of(&eu, &us));
        until(&mut all, "a b live").await;
        us.turn(false);
        let stale = until(&mut all, "a b stale").await;
        assert!(reason(&stale).contains("us: test source"), "{stale:?}");
        eu.set([instance("a"), instance("c")]);
        let changed = until(&mut all, "a b c stale").await;
        assert_eq!(changed.status().since(), stale.status().since());
        us.turn(true);
        until(&mut all, "a b c live").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_never_answered_is_named_and_the_rest_is_served() {
        let (eu, us) = (Switched::up([instance("a")]), Switched::down());
        let mut all = subscribe(merge_of(&eu, &us));
        let state = until(&mut all, "a stale").await;
        assert!(
            reason(&state).contains("us: test source: unavailable"),
            "{state:?}"
        );
        us.set([instance("b")]);
        us.turn(true);
        until(&mut all, "a b live").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_all_without_end_still_ends_when_all_have_answered_or_failed() {
        let (eu, us) = (Switched::up([instance("a")]), Switched::down());
        let eu: Arc<Switched> = Arc::clone(&eu);
        let merge = Merge::new("eu", eu).and("us", us);
        let merge = merge
            .with_wait_for_all(Duration::MAX)
            .with_clock(Arc::new(TokioClock));
        until(&mut subscribe(Arc::new(merge)), "a stale").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reopened_feed_still_has_the_part_of_a_source_that_is_down() {
        let (eu, us) = (Switched::up([instance("a")]), Switched::up([instance("b")]));
        let merge = merge_of(&eu, &us);
        let mut old = merge.watch(&service(), None).await.unwrap();
        assert!(matches!(old.next().await.unwrap(), Feed::Set(set) if set.len() == 2));
        us.turn(false);
        assert!(matches!(old.next().await.unwrap(), Feed::Degraded(_)));
        let mut new = merge.watch(&service(), None).await.unwrap();
        drop(old);
        assert!(matches!(new.next().await.unwrap(), Feed::Partial { set, .. } if set.len() == 2));
        assert_eq!(eu.feeds(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_hold_of_a_source_ends_the_loss_and_the_whole_does_not_hold_once_more() {
        let four = ["a", "b", "c", "d"].map(instance);
        let (eu, us) = (Switched::up(four), Switched::up([]));
        let mut all = subscribe(merge_of(&eu, &us));
        until(&mut all, "a b c d live").await;
        let lost_at = Instant::now();
        eu.set([instance("a")]);
        let held = all.changed().await.unwrap();
        assert_eq!(
            (held.snapshot().len(), held.snapshot().held().len()),
            (4, 3)
        );
        until(&mut all, "a live").await;
        assert!(lost_at.elapsed() < Duration::from_secs(31));
    }

    #[test]
    fn many_held_instances_are_merged_in_no_time() {
        let many: Vec<_> = (0..50_000)
            .map(|n| Arc::new(instance(&format!("i{n:05}"))))
            .collect();
        let ids = many.iter().map(|instance| instance.id().clone()).collect();
        let set = Snapshot::unread(service(), TokioClock.now())
            .with_instances(many)
            .with_held(ids);
        let start = Instant::now();
        let merged = merge(&service(), [("eu", &set)].into_iter(), &TokioClock);
        assert_eq!(merged.held().len(), 50_000);
        // Time that grows with the square of their number would be many times this.
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_runs_with_one_id_the_first_source_wins_and_the_other_is_named() {
        let other_run = instance("a").with_incarnation(Incarnation::from_u64(2));
        let twice = instance("b");
        let eu = Switched::up([instance("a"), twice.clone()]);
        let us = Switched::up([other_run.clone(), twice]);
        let mut all = subscribe(merge_of(&eu, &us));
        let state = until(&mut all, "a b live").await;
        let [skipped] = state.snapshot().skipped() else {
            panic!("{state:?}");
        };
        assert_eq!(skipped.key, "us: a");
        eu.set([instance("b")]);
        let state = all.changed().await.unwrap();
        assert_eq!(
            state.snapshot().get(other_run.id()).unwrap().as_ref(),
            &other_run
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_names_the_source_that_could_not_be_read() {
        let (eu, us) = (Switched::up([instance("a")]), Switched::up([instance("b")]));
        let merge = merge_of(&eu, &us);
        assert_eq!(merge.list(&service()).await.unwrap().len(), 2);
        assert_eq!(merge.services().await.unwrap(), [service()]);
        us.turn(false);
        let error = merge.list(&service()).await.unwrap_err();
        assert!(
            error.report().to_string().contains("us: test source"),
            "{error:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_last_reader_ends_the_feeds_of_all_sources() {
        let (eu, us) = (Switched::up([instance("a")]), Switched::up([instance("b")]));
        let mut all = subscribe(merge_of(&eu, &us));
        until(&mut all, "a b live").await;
        assert_eq!((eu.feeds(), us.feeds()), (1, 1));
        drop(all);
        eu.feeds_end().await;
        us.feeds_end().await;
    }
}
