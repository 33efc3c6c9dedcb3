//! The first healthy one of several sources.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::chooser::{Chooser, Policy};
use super::relay::{Relay, SILENCE_LIMIT, View};
use super::source::{NamedSource, Part, Source, changed, default_config, reread, states, trouble};
use crate::clock::{BootClock, Clock};
use crate::error::{Error, Result};
use crate::feed::config::SubscriptionConfig;
use crate::instrument;
use crate::model::name::ServiceName;
use crate::model::snapshot::Snapshot;
use crate::model::state::State;
use crate::port::instancer::{Feed, Instancer, ServiceList, Watcher};

/// The first healthy source of several, in the order given. Falls back when the source in use fails, and returns to a preferred
/// source when that has recovered.
///
/// A source is healthy while it is live. One that has failed for less than [`with_fall_back_after`](Self::with_fall_back_after)
/// is kept: a short outage changes only the status. While no source is healthy, the last set stays and is stale, with the
/// reason of each source. All sources are watched all the time, so falling back needs no connecting.
///
/// A set keeps the revision of its source. Instances that leave the set because the source changed were not lost, so there is
/// no mass-loss hold for them. Each source has a hold of its own.
#[derive(Debug)]
pub struct Fallback {
    sources: Vec<NamedSource>,
    config: SubscriptionConfig,
    clock: Arc<dyn Clock>,
    policy: Policy,
}

impl Fallback {
    /// A fallback with this preferred source. [`or`](Self::or) adds others. Errors and logs show the name.
    pub fn new(name: &str, source: impl Into<Source>) -> Self {
        Self {
            sources: vec![NamedSource::new(name, source.into())],
            config: default_config(),
            clock: Arc::new(BootClock),
            policy: Policy {
                fall_back_after: Duration::from_secs(3),
                return_after: Duration::from_secs(1),
                skip_empty: false,
            },
        }
    }

    /// Adds a source that is used while no earlier one is healthy.
    #[must_use]
    pub fn or(mut self, name: &str, source: impl Into<Source>) -> Self {
        self.sources.push(NamedSource::new(name, source.into()));
        self
    }

    /// Sets how long a source must have failed before the next one is used. Default 3 s.
    #[must_use]
    pub fn with_fall_back_after(mut self, grace: Duration) -> Self {
        self.policy.fall_back_after = grace;
        self
    }

    /// Sets how long a preferred source must have been healthy before it is used again. Default 1 s.
    #[must_use]
    pub fn with_return_after(mut self, stable: Duration) -> Self {
        self.policy.return_after = stable;
        self
    }

    /// Counts a source without instances as unhealthy. By default an empty set is used like any other.
    #[must_use]
    pub fn skip_empty(mut self) -> Self {
        self.policy.skip_empty = true;
        self
    }

    /// Sets how each [`Instancer`] is watched; a registry has its own settings. By default as in any subscription but without
    /// coalescing, which the subscription to the fallback does.
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

/// Joins the reasons of all sources, after none has answered.
fn all_failed(op: &'static str, sources: &[NamedSource], errors: &[Error]) -> Error {
    let kind = errors
        .first()
        .map_or(crate::ErrorKind::Unavailable, Error::kind);
    let reasons: Vec<_> = sources
        .iter()
        .zip(errors)
        .map(|(source, error)| format!("{}: {}", source.name(), error.report()))
        .collect();
    Error::new(kind, op).because(reasons.join("; "))
}

#[async_trait]
impl Instancer for Fallback {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(self.list_services().await?.services)
    }

    async fn list_services(&self) -> Result<ServiceList> {
        let mut errors = Vec::new();
        for source in &self.sources {
            match source.list_services().await {
                Ok(services) => return Ok(services),
                Err(error) => errors.push(error),
            }
        }
        Err(all_failed(
            "fallback: list services",
            &self.sources,
            &errors,
        ))
    }

    /// Asks the sources one after the other until one answers.
    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let mut errors = Vec::new();
        let mut empty = None;
        for source in &self.sources {
            match source.list(service).await {
                Ok(set) if self.policy.skip_empty && set.is_empty() => {
                    empty = empty.or(Some(set));
                }
                Ok(set) => return Ok(set),
                Err(error) => errors.push(error),
            }
        }
        empty.ok_or_else(|| all_failed("fallback: list service", &self.sources, &errors))
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
        Ok(Box::new(FallbackWatcher {
            service: service.clone(),
            chooser: Chooser::new(
                Instant::now(),
                parts.iter().map(Part::failing_for),
                self.policy,
            ),
            parts,
            relay: Relay::new(known),
        }))
    }
}

#[derive(Debug)]
struct FallbackWatcher {
    service: ServiceName,
    parts: Vec<Part>,
    chooser: Chooser,
    relay: Relay,
}

impl FallbackWatcher {
    fn view(&mut self, now: Instant) -> View {
        let states = states(&mut self.parts);
        let policy = self.chooser.policy();
        self.chooser
            .observe(now, states.iter().map(|state| policy.is_healthy(state)));
        let before = self.chooser.current();
        self.chooser.choose(now);
        if before != self.chooser.current() {
            self.tell_switch(before);
        }
        match self.chooser.current() {
            Some(current) => self.view_of(current, &states),
            None => self.view_of_none(now, &states),
        }
    }

    fn view_of(&self, current: usize, states: &[State]) -> View {
        let Some(state) = states.get(current) else {
            return View::default();
        };
        if self.chooser.is_healthy(current) {
            return View {
                set: Some(state.snapshot.clone()),
                trouble: None,
            };
        }
        let others_are_well = (0..states.len()).any(|index| self.chooser.is_healthy(index));
        let blamed = self.parts.iter().zip(states).enumerate();
        let blamed = blamed
            .filter(|(index, _)| *index == current || !others_are_well)
            .map(|(_, pair)| pair);
        View {
            // An empty set that is not believed must not replace a believed one.
            set: (!state.snapshot.is_empty() || !self.chooser.policy().skip_empty)
                .then(|| state.snapshot.clone()),
            trouble: trouble("fallback", blamed),
        }
    }

    /// No source is chosen yet. While one is healthy, the sources before it get time to answer. Once all have failed, a set
    /// that any of them has is better than none.
    fn view_of_none(&self, now: Instant, states: &[State]) -> View {
        let all_have_failed = self.chooser.all_have_failed(now);
        let none_is_well = (0..states.len()).all(|index| !self.chooser.is_healthy(index));
        let all_have_spoken = states
            .iter()
            .all(|state| state.is_known() || state.status.error().is_some());
        let known = states.iter().find(|state| state.is_known());
        View {
            set: known
                .filter(|_| all_have_failed)
                .map(|state| state.snapshot.clone()),
            trouble: (all_have_failed || none_is_well && all_have_spoken)
                .then(|| trouble("fallback", self.parts.iter().zip(states)))
                .flatten(),
        }
    }

    fn tell_switch(&self, before: Option<usize>) {
        let name = |index: Option<usize>| {
            index
                .and_then(|index| self.parts.get(index))
                .map(|part| part.name.as_ref())
        };
        let (from, to) = (name(before), name(self.chooser.current()));
        if before.is_some() {
            info!(from, to, "fallback switched to another source");
        } else {
            debug!(to, "fallback uses its first source");
        }
        if let Some(index) = self.chooser.current() {
            instrument::fallback_source(&self.service, index);
        }
    }
}

#[async_trait]
impl Watcher for FallbackWatcher {
    async fn next(&mut self) -> Result<Feed> {
        loop {
            let now = Instant::now();
            let view = self.view(now);
            if let Some(news) = self.relay.news(view) {
                return Ok(news);
            }
            let repeat_at = self.relay.repeat_at();
            let wake_at = self
                .chooser
                .due(now)
                .map_or(repeat_at, |due| due.min(repeat_at));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;
    use crate::combine::switched::{Switched, instance, seen, service, subscribe, until};

    fn fallback_of(first: &Arc<Switched>, second: &Arc<Switched>) -> Fallback {
        let (first, second): (Arc<Switched>, Arc<Switched>) =
            (Arc::clone(first), Arc::clone(second));
        Fallback::new("first", first)
            .or("second", second)
            .with_clock(Arc::new(TokioClock))
    }

    fn pair() -> (Arc<Switched>, Arc<Switched>) {
        (Switched::up([instance("a")]), Switched::up([instance("b")]))
    }

    #[tokio::test(start_paused = true)]
    async fn falls_back_after_the_grace_and_returns_when_the_preferred_source_is_stable() {
        let (first, second) = pair();
        let mut one = subscribe(Arc::new(fallback_of(&first, &second)));
        assert_eq!(seen(&one.changed().await.unwrap()), "a live");

        let failed_at = Instant::now();
        first.turn(false);
        let state = until(&mut one, "a stale").await;
        let reason = state.status().error().unwrap().report().to_string();
        assert!(
            reason.contains("first: ") && !reason.contains("second"),
            "{reason}"
        );
        assert!(failed_at.elapsed() < Duration::from_millis(100));
        until(&mut one, "b live").await;
        let grace = failed_at.elapsed();
        assert!(
            grace >= Duration::from_secs(3) && grace < Duration::from_millis(3_100),
            "{grace:?}"
        );

        first.turn(true);
        let up_at = Instant::now();
        until(&mut one, "a live").await;
        // At most one back-off of 5 s until the source is found to be well, then 1 s of being well.
        let back = up_at.elapsed();
        assert!(
            back >= Duration::from_secs(1) && back < Duration::from_millis(6_200),
            "{back:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_grace_without_end_never_falls_back_and_one_of_being_well_never_returns() {
        let (first, second) = pair();
        let patient = fallback_of(&first, &second).with_fall_back_after(Duration::MAX);
        let settled = fallback_of(&first, &second).with_return_after(Duration::MAX);
        let mut one = subscribe(Arc::new(patient));
        let mut two = subscribe(Arc::new(settled));
        until(&mut one, "a live").await;
        first.turn(false);
        until(&mut two, "b live").await;
        first.turn(true);
        tokio::time::sleep(Duration::from_secs(3 * 60)).await;
        assert_eq!(
            (seen(&one.state()), seen(&two.state())),
            ("a live".into(), "b live".into())
        );
        first.turn(false);
        tokio::time::sleep(Duration::from_secs(3 * 60)).await;
        assert_eq!(seen(&one.state()), "a stale");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_flickers_faster_than_the_grace_changes_no_set() {
        let (first, second) = pair();
        let config = SubscriptionConfig {
            backoff_cap: Duration::from_millis(100),
            ..default_config()
        };
        let one = fallback_of(&first, &second).with_subscription(config);
        let mut one = subscribe(Arc::new(one));
        until(&mut one, "a live").await;
        for _ in 0..10 {
            first.turn(false);
            until(&mut one, "a stale").await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(seen(&one.state()), "a stale");
            first.turn(true);
            until(&mut one, "a live").await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_preferred_source_that_is_well_for_a_moment_only_is_not_returned_to() {
        let (first, second) = (Switched::down(), Switched::up([instance("b")]));
        first.set([instance("a")]);
        let config = SubscriptionConfig {
            backoff_cap: Duration::from_millis(100),
            ..default_config()
        };
        let one = fallback_of(&first, &second).with_subscription(config);
        let mut one = subscribe(Arc::new(one));
        until(&mut one, "b live").await;
        for _ in 0..10 {
            first.turn(true);
            tokio::time::sleep(Duration::from_millis(800)).await;
            first.turn(false);
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(
                one.state_and_mark_seen()
                    .snapshot()
                    .get(instance("b").id())
                    .is_some()
            );
        }
        first.turn(true);
        until(&mut one, "a live").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_feed_reopened_during_an_outage_goes_on_with_the_spare_source_at_once() {
        let (first, second) = pair();
        let one = fallback_of(&first, &second);
        let mut old = one.watch(&service(), None).await.unwrap();
        assert!(matches!(old.next().await.unwrap(), Feed::Set(_)));
        first.turn(false);
        while !matches!(old.next().await.unwrap(), Feed::Set(_)) {}
        tokio::time::sleep(Duration::from_secs(60)).await;
        let opened_at = Instant::now();
        let mut new = one.watch(&service(), None).await.unwrap();
        let Feed::Set(set) = new.next().await.unwrap() else {
            panic!("no set");
        };
        assert!(set.get(instance("b").id()).is_some());
        assert_eq!(opened_at.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn while_no_source_is_well_the_last_set_stays_and_every_source_is_blamed() {
        let (first, second) = pair();
        let mut one = subscribe(Arc::new(fallback_of(&first, &second)));
        until(&mut one, "a live").await;
        first.turn(false);
        second.turn(false);
        tokio::time::sleep(Duration::from_secs(20)).await;
        let state = until(&mut one, "a stale").await;
        let reason = state.status().error().unwrap().report().to_string();
        assert!(
            reason.contains("first: ") && reason.contains("second: "),
            "{reason}"
        );
        second.turn(true);
        until(&mut one, "b live").await;
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_answer_the_set_is_unknown_with_the_reasons_and_the_first_answer_counts() {
        let (first, second) = (Switched::down(), Switched::down());
        let mut one = subscribe(Arc::new(fallback_of(&first, &second)));
        let state = one.changed().await.unwrap();
        assert_eq!(seen(&state), "initializing");
        assert!(state.status().error().is_some());
        second.set([instance("b")]);
        second.turn(true);
        until(&mut one, "b live").await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_source_is_obeyed_unless_it_is_to_be_skipped() {
        let (first, second) = (Switched::up([]), Switched::up([instance("b")]));
        let mut one = subscribe(Arc::new(fallback_of(&first, &second)));
        assert_eq!(seen(&one.changed().await.unwrap()), "live");

        let skipping = Arc::new(fallback_of(&first, &second).skip_empty());
        assert_eq!(skipping.list(&service()).await.unwrap().len(), 1);
        let mut skipping = subscribe(skipping);
        until(&mut skipping, "b live").await;
        first.set([instance("a")]);
        until(&mut skipping, "a live").await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_set_that_is_to_be_skipped_replaces_no_other_during_the_grace() {
        let (first, second) = pair();
        let skipping = fallback_of(&first, &second).skip_empty();
        let mut feed = skipping.watch(&service(), None).await.unwrap();
        assert!(matches!(feed.next().await.unwrap(), Feed::Set(_)));
        first.set([]);
        let Feed::Degraded(error) = feed.next().await.unwrap() else {
            panic!("the empty set was believed");
        };
        let reason = error.report().to_string();
        assert!(reason.contains("first: lists no instance"), "{reason}");
        let Feed::Set(set) = feed.next().await.unwrap() else {
            panic!("no fall-back");
        };
        assert!(set.get(instance("b").id()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_leaves_by_a_change_of_source_is_not_held() {
        let (first, second) = pair();
        first.set(["a", "x", "y", "z"].map(instance));
        let mut one = subscribe(Arc::new(fallback_of(&first, &second)));
        until(&mut one, "a x y z live").await;
        first.turn(false);
        until(&mut one, "b live").await;
    }
}
