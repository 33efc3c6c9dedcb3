//! One value for each instance of a service: a connection, a client, a pool.
//!
//! ```
//! use std::convert::Infallible;
//! use std::sync::Arc;
//! use std::time::Duration;
//! use sd_core::balance::Outcome;
//! use sd_core::{EndpointCache, Instance, memory::Memory};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> sd_core::Result<()> {
//! let registry = Memory::new().connect();
//! let _guard = registry.register(Instance::new("greeter", "10.0.0.7:50051")?).await?;
//!
//! let connect = |instance: Arc<Instance>| async move {
//!     Ok::<_, Infallible>(format!("a client of {:?}", instance.endpoint()))
//! };
//! let clients = EndpointCache::builder(registry.subscribe("greeter")?, connect).build()?;
//! clients.wait_until_ready(Duration::from_secs(1)).await?;
//! // Held for as long as the call lasts, so that the policy knows of it.
//! let picked = clients.pick().expect("an endpoint");
//! let answer: Result<usize, Infallible> = Ok(picked.value().len());
//! picked.end(Outcome::of(&answer));
//! # Ok(())
//! # }
//! ```

mod builder;
mod cached_endpoint;
mod driver;
mod dump;
mod parts;
mod picked;
mod retry;
mod retry_error;
mod set;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::builder::EndpointCacheBuilder;
pub use self::cached_endpoint::{CachedEndpoint, MissingEndpoint};
pub use self::dump::{EndpointCacheDump, EndpointDump};
pub use self::picked::Picked;
pub use self::retry::RetryPolicy;
pub use self::retry_error::{AttemptError, FailedAttempt, GaveUp, RetryError};
pub use self::set::EndpointSet;
use crate::balance::CallInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::subscription::Subscription;
use crate::model::instance::Instance;
use crate::runtime::runtime;

/// Keeps one value for each instance of a service.
///
/// A task makes values as instances appear, several at once. It retries failed ones while the others are served. An instance
/// that leaves is out of the set at once; its value is closed after a drain time. A new run, or the same run at a new address,
/// gets a new value. A change of weight, readiness or metadata keeps the value.
///
/// Reading loads the latest set and never waits, whatever is being made or closed. Dropping the cache ends the task and closes
/// all values at once; [`close`](Self::close) waits for that. Share the cache in an [`Arc`].
pub struct EndpointCache<T> {
    sets: Arc<ArcSwap<EndpointSet<T>>>,
    /// Signals each new set. Closed when the task has ended.
    news: watch::Receiver<()>,
    subscription: Subscription,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl<T: Send + Sync + 'static> EndpointCache<T> {
    /// A cache of the values that `make` makes of the instances in `subscription`. `make` may fail, take long or panic without
    /// harm to other instances.
    pub fn builder<F, E>(
        subscription: Subscription,
        make: impl Fn(Arc<Instance>) -> F + Send + Sync + 'static,
    ) -> EndpointCacheBuilder<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        EndpointCacheBuilder::new(subscription, make)
    }

    /// The latest set. Takes no lock and never waits.
    pub fn endpoints(&self) -> Arc<EndpointSet<T>> {
        self.sets.load_full()
    }

    /// Picks an endpoint for a call, by the [policy](EndpointCacheBuilder::policy), among those that want calls and are
    /// [selected](EndpointCacheBuilder::selection). `None` if there is none now. Takes no lock and never waits.
    pub fn pick(&self) -> Option<Picked<T>> {
        self.sets.load().pick()
    }

    /// Picks an endpoint for a call of which something is known. An endpoint that the call has `tried` is picked only if there is no
    /// other.
    pub fn pick_for(
        &self,
        call: &CallInfo<'_>,
        tried: impl Fn(&CachedEndpoint<T>) -> bool + Sync,
    ) -> Option<Picked<T>> {
        self.sets.load().pick_for(call, tried)
    }

    /// Waits for at most `limit` until there is an endpoint to pick, and returns the set.
    ///
    /// # Errors
    /// `Timeout` with the reason: the set is unknown or empty, or no value could be made. `Closed` after
    /// [`close`](Self::close). `InvalidInput` outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn wait_until_ready(&self, limit: Duration) -> Result<Arc<EndpointSet<T>>> {
        const OP: &str = "wait until ready";
        runtime(OP)?;
        let mut news = self.news.clone();
        let ready = async {
            loop {
                news.mark_unchanged();
                let set = self.endpoints();
                if set.has_choice() {
                    return Ok(set);
                }
                if news.changed().await.is_err() {
                    return Err(Error::new(ErrorKind::Closed, OP));
                }
            }
        };
        timeout(limit, ready).await.unwrap_or_else(|_| {
            let when = format!("within {limit:?}");
            Err(self.why_not_ready(Error::new(ErrorKind::Timeout, OP), &when))
        })
    }

    /// Adds to `error` why there was no endpoint `when` it was needed.
    fn why_not_ready(&self, error: Error, when: &str) -> Error {
        let (set, state) = (self.endpoints(), self.subscription.state());
        let service = self.subscription.service();
        let unmade = set.missing().iter().find_map(MissingEndpoint::error);
        match unmade.or(state.status().error()) {
            Some(reason) => error.with_source(reason.clone()),
            None if !state.is_known() => {
                error.because(format!("the source of {service} did not answer {when}"))
            }
            None if state.snapshot().is_empty() => {
                error.because(format!("{service} has no instance"))
            }
            None if set.is_empty() && set.missing().is_empty() => error.because(format!(
                "none of the {} instances of {service} has the labels that are selected",
                state.snapshot().len(),
            )),
            None => error.because(format!(
                "no instance of {service} wants calls and has a value {when}"
            )),
        }
    }

    /// Empties the set, ends the task and closes all values without a drain. Returns when they are closed, or when the time for
    /// closing is over. Idempotent.
    ///
    /// # Cancel safety
    /// If the future is dropped, the closing goes on.
    pub async fn close(&self) {
        self.stop.cancel();
        let mut news = self.news.clone();
        while news.changed().await.is_ok() {}
    }

    /// What the cache holds and why, for people and tests.
    pub fn dump(&self) -> EndpointCacheDump {
        EndpointCacheDump::new(self.subscription.dump(), &self.endpoints())
    }
}

impl<T> fmt::Debug for EndpointCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointCache")
            .field("service", self.subscription.service())
            .field("endpoints", &self.sets.load())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::combine::switched::{Switched, instance, subscribe};
    use crate::sync::lock;
    use crate::{Discovery, Incarnation, Status};

    /// What a factory was asked for and a closer was given, at which time.
    #[derive(Clone, Debug, Default)]
    struct Journal(Arc<Mutex<Vec<(Instant, String)>>>);

    impl Journal {
        fn write(&self, line: String) -> usize {
            let mut lines = lock(&self.0);
            lines.push((Instant::now(), line));
            lines.len()
        }

        fn lines(&self, beginning: &str) -> Vec<(Instant, String)> {
            let lines = self.0.lock().unwrap();
            let fitting = lines.iter().filter(|(_, line)| line.starts_with(beginning));
            fitting.cloned().collect()
        }

        fn count(&self, line: &str) -> usize {
            self.lines(line).len()
        }

        /// A factory that always succeeds and a closer; the value is unique.
        fn cache(&self, source: Arc<Switched>) -> EndpointCacheBuilder<String> {
            let (made, closed) = (self.clone(), self.clone());
            EndpointCache::builder(subscribe(source), move |instance: Arc<Instance>| {
                let made = made.clone();
                async move {
                    let number = made.write(format!("make {}", instance.id()));
                    Ok::<_, Error>(format!("{}#{number}", instance.id()))
                }
            })
            .closer(move |value: Arc<String>| {
                closed.write(format!("close {value}"));
                std::future::ready(())
            })
        }
    }

    fn values(cache: &EndpointCache<String>) -> Vec<String> {
        let set = cache.endpoints();
        let values = set.endpoints().iter().map(|made| made.value().to_string());
        values.collect()
    }

    /// Waits until the latest set is as wanted.
    async fn until<T: Send + Sync + 'static>(
        cache: &EndpointCache<T>,
        wanted: impl Fn(&EndpointSet<T>) -> bool,
    ) -> Arc<EndpointSet<T>> {
        let mut news = cache.news.clone();
        let waiting = async {
            loop {
                news.mark_unchanged();
                let set = cache.endpoints();
                if wanted(&set) {
                    return set;
                }
                news.changed().await.unwrap();
            }
        };
        let set = timeout(Duration::from_secs(5 * 60), waiting).await.ok();
        set.unwrap_or_else(|| panic!("{:?}", cache.endpoints()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_factory_that_fails_twice_is_asked_again_while_the_others_are_served() {
        let journal = Journal::default();
        let attempts = journal.clone();
        let source = Switched::up(["bad", "good"].map(instance));
        let make = move |instance: Arc<Instance>| {
            let name = instance.id().to_string();
            attempts.write(name.clone());
            let failing = name == "bad" && attempts.count("bad") < 3;
            let outcome = if failing { Err("refused") } else { Ok(name) };
            std::future::ready(outcome)
        };
        let cache = EndpointCache::builder(subscribe(source), make)
            .build()
            .unwrap();
        let set = until(&cache, |set| {
            set.missing().iter().any(|bad| bad.failures() == 1)
        })
        .await;
        assert_eq!(values(&cache), ["good"]);
        let reason = set.missing()[0].error().unwrap().report().to_string();
        assert!(reason.ends_with("refused"), "{reason}");
        until(&cache, |set| set.len() == 2 && set.missing().is_empty()).await;
        assert_eq!((journal.count("bad"), journal.count("good")), (3, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_factory_that_panics_or_hangs_harms_no_other_instance() {
        let source = Switched::up(["good", "hangs", "panics"].map(instance));
        let make = |instance: Arc<Instance>| {
            let name = instance.id().to_string();
            assert!(name != "panics", "as the test wants it");
            async move {
                if name == "hangs" {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Error>(name)
            }
        };
        let cache = EndpointCache::builder(subscribe(source), make)
            .build()
            .unwrap();
        let failed = |set: &EndpointSet<_>| {
            set.missing().len() == 2 && set.missing().iter().all(|missing| missing.failures() > 0)
        };
        let set = until(&cache, failed).await;
        assert_eq!(values(&cache), ["good"]);
        let dump = serde_json::to_string(&cache.dump()).unwrap();
        for reason in ["panicked", "took longer than 10s"] {
            assert!(dump.contains(reason), "{dump}");
        }
        assert_eq!(set.pick().unwrap().value().as_str(), "good");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_values_are_made_at_once_than_allowed() {
        let source = Switched::up((0..20).map(|n| instance(&format!("i{n}"))));
        let running = Arc::new(Mutex::new((0, 0)));
        let seen = Arc::clone(&running);
        let make = move |_| {
            let running = Arc::clone(&running);
            async move {
                {
                    let (now, most) = &mut *running.lock().unwrap();
                    *now += 1;
                    *most = (*most).max(*now);
                }
                sleep(Duration::from_millis(50)).await;
                running.lock().unwrap().0 -= 1;
                Ok::<_, Error>(())
            }
        };
        let cache = EndpointCache::builder(subscribe(source), make)
            .made_at_once(3)
            .build()
            .unwrap();
        until(&cache, |set| set.len() == 20).await;
        assert_eq!(*seen.lock().unwrap(), (0, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_instance_leaves_at_once_and_its_value_is_closed_once_after_the_drain() {
        let journal = Journal::default();
        let source = Switched::up(["a", "b"].map(instance));
        let drain = Duration::from_secs(7);
        let cache = journal.cache(Arc::clone(&source));
        let cache = cache.drain(drain).build().unwrap();
        until(&cache, |set| set.len() == 2).await;
        let removed_at = Instant::now();
        source.set([instance("b")]);
        let set = until(&cache, |set| set.len() == 1).await;
        assert_eq!((journal.count("close"), set.draining()), (0, 1));
        until(&cache, |set| set.draining() == 0).await;
        cache.close().await;
        let closed = journal.lines("close a");
        let [(at, _)] = &closed[..] else {
            panic!("{closed:?}");
        };
        let drained = at.duration_since(removed_at);
        assert!(
            drained >= drain && drained < drain + Duration::from_secs(1),
            "{drained:?}"
        );
        assert_eq!(journal.count("close b"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_metadata_keeps_the_value_and_shows_the_new_instance() {
        let journal = Journal::default();
        let source = Switched::up(["a", "b"].map(instance));
        let cache = journal.cache(Arc::clone(&source)).build().unwrap();
        until(&cache, |set| set.len() == 2).await;
        let before = values(&cache);
        source.set([
            instance("a").with_ready(false),
            instance("b").with_metadata("k", "v"),
        ]);
        let b = instance("b");
        let set = until(&cache, |set| {
            !set.get(b.id()).unwrap().instance().metadata().is_empty()
        })
        .await;
        assert_eq!((values(&cache), journal.count("make")), (before, 2));
        let picked = (0..10).map(|_| set.pick().unwrap().instance().id().clone());
        assert!(picked.into_iter().all(|id| id == *b.id()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_run_and_a_new_address_get_new_values_and_the_old_ones_are_closed() {
        let journal = Journal::default();
        let source = Switched::up(["a", "b", "c"].map(instance));
        let cache = journal.cache(Arc::clone(&source)).build().unwrap();
        until(&cache, |set| set.len() == 3).await;
        let before = values(&cache);
        source.set([
            instance("a").with_incarnation(Incarnation::from_u64(2)),
            instance("b").with_endpoint("h:2".parse().unwrap()),
            instance("c"),
        ]);
        until(&cache, |set| set.len() == 3 && set.draining() == 2).await;
        let after = values(&cache);
        assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2]);
        until(&cache, |set| set.draining() == 0).await;
        cache.close().await;
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for (_, line) in journal.lines("close") {
            *times.entry(line).or_default() += 1;
        }
        assert_eq!(times.len(), 5);
        assert!(times.values().all(|times| *times == 1), "{times:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_leaves_while_its_value_is_made_is_not_waited_for() {
        let source = Switched::up([instance("slow")]);
        let make = |instance: Arc<Instance>| async move {
            if instance.id().as_str() == "slow" {
                std::future::pending::<()>().await;
            }
            Ok::<_, Error>(())
        };
        let cache = EndpointCache::builder(subscribe(Arc::<Switched>::clone(&source)), make)
            .made_at_once(1)
            .make_within(Duration::from_secs(3600))
            .build()
            .unwrap();
        until(&cache, |set| set.missing().len() == 1).await;
        source.set([instance("quick")]);
        until(&cache, |set| set.len() == 1 && set.missing().is_empty()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_is_finished_when_its_run_has_ended_is_closed_and_never_shown() {
        let run = |run| instance("a").with_incarnation(Incarnation::from_u64(run));
        // Whether the driver sees the end of the run or the value first differs from round to round.
        for _ in 0..32 {
            let source = Switched::up([run(1)]);
            let (gate, opened) = watch::channel(false);
            let journal = Journal::default();
            let (makes, closes) = (journal.clone(), journal.clone());
            let make = move |instance: Arc<Instance>| {
                let (mut opened, makes) = (opened.clone(), makes.clone());
                async move {
                    let run = instance.incarnation();
                    if run == Incarnation::from_u64(1) {
                        opened.wait_for(|open| *open).await?;
                    }
                    makes.write(format!("make {run}"));
                    Ok::<_, watch::error::RecvError>(run)
                }
            };
            let cache = EndpointCache::builder(subscribe(Arc::<Switched>::clone(&source)), make)
                .closer(move |run: Arc<Incarnation>| {
                    closes.write(format!("close {run}"));
                    std::future::ready(())
                })
                .build()
                .unwrap();
            until(&cache, |set| set.missing().len() == 1).await;
            // After quiet the change passes the subscription at once, so that both reach the driver together.
            sleep(Duration::from_secs(1)).await;
            source.set([run(2)]);
            gate.send_replace(true);
            let set = until(&cache, |set| {
                let shown = set.endpoints().first();
                shown
                    .is_some_and(|shown| shown.instance().incarnation() == Incarnation::from_u64(2))
            })
            .await;
            assert_eq!(**set.endpoints()[0].value(), Incarnation::from_u64(2));
            cache.close().await;
            assert_eq!(journal.count("close"), journal.count("make"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_fails_for_too_long_empties_the_set_without_a_reader_until_it_is_well() {
        let journal = Journal::default();
        let source = Switched::up(["a", "b"].map(instance));
        let cache = journal.cache(Arc::clone(&source));
        let limit = Duration::from_secs(60);
        let cache = cache
            .invalidate_after(limit)
            .drain(Duration::ZERO)
            .build()
            .unwrap();
        until(&cache, |set| set.len() == 2).await;
        source.turn(false);
        let failed_at = Instant::now();
        sleep(Duration::from_secs(59)).await;
        assert_eq!((cache.endpoints().len(), journal.count("close")), (2, 0));
        sleep(Duration::from_secs(2)).await;
        let closed = journal.lines("close");
        assert_eq!(closed.len(), 2);
        assert!(
            closed
                .iter()
                .all(|(at, _)| at.duration_since(failed_at) >= limit)
        );
        assert!(cache.endpoints().is_invalidated() && cache.pick().is_none());
        source.turn(true);
        let set = until(&cache, |set| set.len() == 2).await;
        assert!(!set.is_invalidated());
        assert_eq!(journal.count("make"), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_fails_leaves_the_set_alone_by_default() {
        let journal = Journal::default();
        let source = Switched::up([instance("a")]);
        let cache = journal.cache(Arc::clone(&source)).build().unwrap();
        until(&cache, |set| set.len() == 1).await;
        source.turn(false);
        sleep(Duration::from_secs(2 * 3600)).await;
        assert!(matches!(
            cache.subscription.state().status(),
            Status::Stale { .. }
        ));
        assert!(cache.pick().is_some() && journal.count("close") == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_and_a_patience_without_end_end_with_the_cache() {
        let journal = Journal::default();
        let source = Switched::up(["a", "b"].map(instance));
        let cache = journal.cache(Arc::clone(&source));
        let cache = cache
            .drain(Duration::MAX)
            .invalidate_after(Duration::MAX)
            .build()
            .unwrap();
        until(&cache, |set| set.len() == 2).await;
        source.set([instance("b")]);
        until(&cache, |set| set.draining() == 1).await;
        source.turn(false);
        sleep(Duration::from_secs(24 * 3600)).await;
        assert_eq!((cache.endpoints().len(), journal.count("close")), (1, 0));
        cache.close().await;
        assert_eq!(journal.count("close"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_cache_closes_all_values_without_drain_and_ends_task_and_feed() {
        let journal = Journal::default();
        let source = Switched::up(["a", "b"].map(instance));
        let cache = journal.cache(Arc::clone(&source)).build().unwrap();
        until(&cache, |set| set.len() == 2).await;
        source.set([instance("b")]);
        until(&cache, |set| set.draining() == 1).await;
        let mut news = cache.news.clone();
        let dropped_at = Instant::now();
        drop(cache);
        while news.changed().await.is_ok() {}
        source.feeds_end().await;
        assert!(dropped_at.elapsed() < Duration::from_secs(1));
        assert_eq!(journal.count("close"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closer_that_hangs_or_panics_does_not_keep_the_others_from_closing() {
        let journal = Journal::default();
        let source = Switched::up(["good", "hangs", "panics"].map(instance));
        let closed = journal.clone();
        let cache = journal
            .cache(source)
            .closer(move |value: Arc<String>| {
                closed.write(format!("close {value}"));
                async move {
                    assert!(!value.starts_with("panics"), "as the test wants it");
                    if value.starts_with("hangs") {
                        std::future::pending::<()>().await;
                    }
                }
            })
            .build()
            .unwrap();
        until(&cache, |set| set.len() == 3).await;
        let asked_at = Instant::now();
        cache.close().await;
        assert!(asked_at.elapsed() < Duration::from_secs(6));
        assert_eq!(journal.count("close"), 3);
        assert!(cache.pick().is_none());
        let error = cache
            .wait_until_ready(Duration::from_secs(1))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_in_vain_says_why() {
        async fn reason(source: Arc<Switched>, fails: bool) -> String {
            let make = move |_| std::future::ready(if fails { Err("refused") } else { Ok(()) });
            let cache = EndpointCache::builder(subscribe(source), make)
                .build()
                .unwrap();
            let waited = cache.wait_until_ready(Duration::from_secs(2)).await;
            waited.unwrap_err().report().to_string()
        }
        let unready = Switched::up([instance("a").with_ready(false)]);
        for (source, fails, expected) in [
            (Switched::down(), false, "switched off"),
            (Switched::up([]), false, "s has no instance"),
            (Switched::up([instance("a")]), true, "refused"),
            (unready, false, "wants calls"),
        ] {
            let reason = reason(source, fails).await;
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_set_stays_when_the_registry_is_closed() {
        let registry = crate::memory::Memory::new().connect();
        let _guard = registry.register(instance("a")).await.unwrap();
        let service = crate::combine::switched::service();
        let subscription = Discovery::subscribe(&registry, &service).unwrap();
        let make = |_| std::future::ready(Ok::<_, Error>(()));
        let cache = EndpointCache::builder(subscription, make).build().unwrap();
        until(&cache, |set| set.len() == 1).await;
        registry.close().await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(cache.endpoints().len(), 1);
    }
}
