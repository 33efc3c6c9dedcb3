//! What a subscription does with a source that changes, fails, hangs and comes back. The clock is paused.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::{Moment, TokioClock};
use sd_core::combine;
use sd_core::port::Feed;
use sd_core::{
    Error, ErrorKind, Incarnation, Instance, InstanceId, MassLossHold, Registry, RegistryConfig,
    Revision, ServiceName, Snapshot, State, Subscription, SubscriptionConfig,
};
use sd_testing::{Answer, ScriptedBackend, ScriptedInstancer};
use tokio::time::{Instant, advance, sleep, timeout};

const MILLIS: Duration = Duration::from_millis(1);

fn service() -> ServiceName {
    ServiceName::new("s").unwrap()
}

/// One run of the instance with this id, at a version of its metadata.
fn instance(id: &str, version: u64) -> Arc<Instance> {
    let instance = Instance::new("s", "10.0.0.7:50051").unwrap();
    let instance = instance
        .with_id(InstanceId::new(id).unwrap())
        .with_incarnation(Incarnation::from_u64(1))
        .with_metadata("version", version.to_string());
    Arc::new(instance)
}

fn at(value: u64) -> Revision {
    Revision::new("history", value)
}

fn set(revision: u64, ids: &[&str]) -> Snapshot {
    let instances = ids.iter().map(|id| instance(id, 0)).collect();
    Snapshot::new(service(), at(revision), Moment::ZERO, instances)
}

/// One instance, with the revision in its metadata.
fn version(revision: u64) -> Snapshot {
    set(revision, &[]).with_instances(vec![instance("a", revision)])
}

fn version_of(state: &State) -> String {
    state.snapshot().instances()[0].metadata()["version"].clone()
}

fn alive(revision: u64) -> Feed {
    Feed::Alive {
        revision: at(revision),
        as_of: Moment::ZERO,
    }
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "scripted").because("the server is down")
}

fn config() -> SubscriptionConfig {
    let mut config = SubscriptionConfig::default();
    config.anti_entropy = None;
    config
}

fn subscribe_with(source: &ScriptedInstancer, config: SubscriptionConfig) -> Subscription {
    let source = Arc::new(source.clone());
    Subscription::spawn(source, service(), config, Arc::new(TokioClock)).unwrap()
}

fn subscribe(source: &ScriptedInstancer) -> Subscription {
    source.set_silence_limit(Duration::from_secs(24 * 3600));
    subscribe_with(source, config())
}

/// A subscription whose source has told these.
async fn subscribed(source: &ScriptedInstancer, ids: &[&str]) -> Subscription {
    source.tell(Ok(Feed::Set(set(1, ids))));
    let mut subscription = subscribe(source);
    soon(subscription.changed()).await.unwrap();
    subscription
}

fn registry(backend: &ScriptedBackend) -> Registry {
    let config = RegistryConfig::default()
        .with_clock(Arc::new(TokioClock))
        .with_subscription(config());
    Registry::with_config(Arc::new(backend.clone()), config)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(3600);
    timeout(limit, what).await.expect("something never happens")
}

fn ids(state: &State) -> Vec<&str> {
    let instances = state.snapshot().instances().iter();
    instances.map(|instance| instance.id().as_str()).collect()
}

fn told(state: &State) -> (&'static str, Vec<&str>) {
    (state.status().as_str(), ids(state))
}

#[tokio::test(start_paused = true)]
async fn keeps_the_last_set_while_the_source_fails_and_comes_back_by_itself() {
    let source = ScriptedInstancer::default();
    let mut subscription = subscribed(&source, &["a", "b"]).await;
    for _ in 0..3 {
        source.answer_opening(Answer::Fail(down()));
    }
    let trouble_at = sd_core::clock::Clock::now(&TokioClock);
    source.tell(Err(down()));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("stale", vec!["a", "b"]));
    let error = state.status().error().unwrap().report().to_string();
    assert!(error.contains("the server is down"), "{error}");

    soon(source.opened(5)).await;
    assert_eq!(told(&subscription.state()), ("stale", vec!["a", "b"]));
    assert_eq!(subscription.state().status().since(), Some(trouble_at));
    source.tell(Ok(alive(1)));
    soon(async { while subscription.changed().await.unwrap().status().as_str() != "live" {} })
        .await;
    assert_eq!(told(&subscription.state()), ("live", vec!["a", "b"]));
}

#[tokio::test(start_paused = true)]
async fn resumes_after_an_error_and_reads_everything_when_the_position_is_outdated() {
    let source = ScriptedInstancer::default();
    let subscription = subscribed(&source, &["a"]).await;
    source.tell(Ok(alive(7)));
    source.tell(Err(down()));
    soon(source.opened(2)).await;
    source.tell(Err(Error::new(ErrorKind::Outdated, "scripted")));
    soon(source.opened(3)).await;
    let known: Vec<_> = source.openings().into_iter().map(|o| o.known).collect();
    assert_eq!(known, [None, Some(at(7)), None]);
    assert_eq!(ids(&subscription.state()), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn delays_between_feeds_grow_to_their_cap_and_start_over_after_a_stable_feed() {
    const FAILURES: usize = 30;
    let source = ScriptedInstancer::default();
    for _ in 0..FAILURES {
        source.answer_opening(Answer::Fail(down()));
    }
    let _subscription = subscribe(&source);
    soon(source.opened(FAILURES + 1)).await;
    let openings = source.openings();
    let mut ceiling = 100 * MILLIS;
    for pair in openings.windows(2) {
        let delay = pair[1].at - pair[0].at;
        assert!(delay <= ceiling + MILLIS, "{delay:?} > {ceiling:?}");
        ceiling = (ceiling * 2).min(Duration::from_secs(5));
    }
    // Without growth, 30 delays of at most 100 ms would be 3 s.
    let all = openings[FAILURES].at - openings[0].at;
    assert!(all > Duration::from_secs(10), "{all:?}");

    sleep(Duration::from_secs(11)).await;
    let ended_at = Instant::now();
    source.tell(Err(down()));
    soon(source.opened(FAILURES + 2)).await;
    assert!(ended_at.elapsed() <= 101 * MILLIS);
}

#[tokio::test(start_paused = true)]
async fn feeds_that_open_and_fail_at_once_are_not_opened_in_a_hurry() {
    const FEEDS: usize = 30;
    let source = ScriptedInstancer::default();
    for _ in 0..FEEDS {
        source.tell(Err(down()));
    }
    let _subscription = subscribe(&source);
    let start = Instant::now();
    soon(source.opened(FEEDS + 1)).await;
    assert!(start.elapsed() > Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn the_delay_that_a_server_asks_for_is_kept() {
    let source = ScriptedInstancer::default();
    let after = Duration::from_secs(42);
    let busy = ErrorKind::RateLimited {
        retry_after: Some(after),
    };
    source.answer_opening(Answer::Fail(Error::new(busy, "scripted")));
    let _subscription = subscribe(&source);
    soon(source.opened(2)).await;
    let openings = source.openings();
    let delay = openings[1].at - openings[0].at;
    assert!((after..after + 2 * MILLIS).contains(&delay), "{delay:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_no_delay_or_an_absurd_one_gets_a_sensible_one() {
    const TRIES: usize = 30;
    let busy = |after| {
        let retry_after = Some(after);
        Answer::Fail(Error::new(
            ErrorKind::RateLimited { retry_after },
            "scripted",
        ))
    };
    let source = ScriptedInstancer::default();
    for _ in 0..TRIES {
        source.answer_opening(busy(Duration::ZERO));
    }
    source.answer_opening(busy(Duration::MAX));
    let _subscription = subscribe(&source);
    soon(source.opened(TRIES + 2)).await;
    let openings = source.openings();
    let pace = openings[TRIES].at - openings[0].at;
    assert!(pace > Duration::from_secs(10), "{pace:?}");
    let pause = (openings[TRIES + 1].at - openings[TRIES].at).as_secs();
    assert!((299..=301).contains(&pause), "{pause}");
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_falls_silent_is_opened_again() {
    let source = ScriptedInstancer::default();
    source.tell(Ok(Feed::Set(set(1, &["a"]))));
    source.set_silence_limit(Duration::from_secs(30));
    let mut subscription = subscribe_with(&source, config());
    soon(subscription.changed()).await.unwrap();
    let silent_since = Instant::now();
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("stale", vec!["a"]));
    assert_eq!(state.status().error().unwrap().kind(), ErrorKind::Timeout);
    soon(source.opened(2)).await;
    let silence = silent_since.elapsed();
    assert!((30..32).contains(&silence.as_secs()), "{silence:?}");
    assert_eq!(source.open_feeds(), 1);
    source.tell(Ok(alive(2)));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("live", vec!["a"]));
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_keep_a_quiet_feed_open() {
    let source = ScriptedInstancer::default();
    source.tell(Ok(Feed::Set(set(1, &["a"]))));
    source.set_silence_limit(Duration::from_secs(30));
    let mut subscription = subscribe_with(&source, config());
    soon(subscription.changed()).await.unwrap();
    for round in 0..10 {
        sleep(Duration::from_secs(20)).await;
        source.tell(Ok(alive(round)));
    }
    assert_eq!(source.openings().len(), 1);
    assert_eq!(subscription.state().status().as_str(), "live");
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_hangs_is_given_up() {
    let source = ScriptedInstancer::default();
    source.answer_opening(Answer::Hang);
    let subscription = subscribe(&source);
    soon(source.opened(2)).await;
    let openings = source.openings();
    let hung = openings[1].at - openings[0].at;
    assert!((5000..5102).contains(&hung.as_millis()), "{hung:?}");
    let state = subscription.state();
    assert_eq!(told(&state), ("initializing", vec![]));
    assert_eq!(state.status().error().unwrap().kind(), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn everything_is_read_again_now_and_then_and_the_difference_published_once() {
    let source = ScriptedInstancer::default();
    source.set_silence_limit(Duration::from_secs(24 * 3600));
    source.tell(Ok(Feed::Set(set(1, &["a"]))));
    let mut subscription = subscribe_with(&source, SubscriptionConfig::default());
    soon(subscription.changed()).await.unwrap();
    let start = Instant::now();
    soon(source.opened(2)).await;
    let waited = start.elapsed().as_secs();
    assert!((240..=361).contains(&waited), "{waited}");
    assert_eq!(source.openings()[1].known, None);
    assert_eq!(source.open_feeds(), 1);

    source.tell(Ok(Feed::Set(set(2, &["a", "b"]))));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("live", vec!["a", "b"]));
    source.tell(Ok(Feed::Set(set(3, &["a", "b"]))));
    assert!(
        timeout(Duration::from_secs(10), subscription.changed())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_rereading_that_fails_leaves_the_good_feed_alone() {
    let source = ScriptedInstancer::default();
    source.set_silence_limit(Duration::from_secs(24 * 3600));
    source.tell(Ok(Feed::Set(set(1, &["a"]))));
    let mut subscription = subscribe_with(&source, SubscriptionConfig::default());
    soon(subscription.changed()).await.unwrap();
    source.answer_opening(Answer::Fail(down()));
    soon(source.opened(2)).await;
    source.tell(Ok(Feed::Set(set(2, &["a", "b"]))));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("live", vec!["a", "b"]));
    assert_eq!(source.openings().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_old_feed_is_followed_until_the_one_that_reads_everything_is_open() {
    let source = ScriptedInstancer::default();
    source.set_silence_limit(Duration::from_secs(24 * 3600));
    source.tell(Ok(Feed::Set(set(1, &["a", "b", "c"]))));
    let mut subscription = subscribe_with(&source, SubscriptionConfig::default());
    soon(subscription.changed()).await.unwrap();
    let slow = Duration::from_secs(4);
    source.answer_opening(Answer::SucceedAfter(slow));
    soon(source.opened(2)).await;

    let asked_at = Instant::now();
    let withdrawn = ["b", "c"].map(|id| InstanceId::new(id).unwrap());
    let told_by_old = set(3, &["a"]).with_withdrawn(withdrawn.into());
    source.tell(Ok(Feed::Set(told_by_old)));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("live", vec!["a"]));
    assert!(asked_at.elapsed() < slow, "{:?}", asked_at.elapsed());

    sleep(slow + Duration::from_secs(1)).await;
    // What the new feed read before that is no news.
    source.tell(Ok(Feed::Set(set(2, &["a", "b", "c"]))));
    source.tell(Ok(Feed::Set(set(4, &["a", "d"]))));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("live", vec!["a", "d"]));
    // The next one may tell what it likes.
    source.tell(Ok(Feed::Set(set(1, &["a"]))));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(ids(&state), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_however_often_reading_everything_again_fails() {
    let source = ScriptedInstancer::default();
    source.set_silence_limit(Duration::from_secs(30));
    source.tell(Ok(Feed::Set(set(1, &["a"]))));
    let mut config = config();
    config.anti_entropy = Some(Duration::from_secs(5));
    let mut subscription = subscribe_with(&source, config);
    soon(subscription.changed()).await.unwrap();
    for _ in 0..20 {
        source.answer_opening(Answer::Fail(down()));
    }
    let start = Instant::now();
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("stale", vec!["a"]));
    assert!(start.elapsed() < Duration::from_secs(31));
}

#[tokio::test(start_paused = true)]
async fn an_anti_entropy_of_nothing_reads_once_a_second() {
    let source = ScriptedInstancer::default();
    source.set_silence_limit(Duration::from_secs(24 * 3600));
    source.tell(Ok(Feed::Set(set(1, &["a"]))));
    let mut config = config();
    config.anti_entropy = Some(Duration::ZERO);
    let _subscription = subscribe_with(&source, config);
    let start = Instant::now();
    soon(source.opened(11)).await;
    let waited = start.elapsed();
    assert!((8..=13).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn spans_without_end_in_the_configuration_are_spans_without_end() {
    let source = ScriptedInstancer::default();
    source.set_silence_limit(Duration::MAX);
    let mut config = config();
    config.open_timeout = Duration::MAX;
    config.stable_after = Duration::MAX;
    config.anti_entropy = Some(Duration::MAX);
    config.mass_loss_hold = Some(MassLossHold::new(Duration::MAX, Duration::MAX));
    config.coalescing.longest = Duration::MAX;
    let mut subscription = subscribe_with(&source, config);
    source.tell(Ok(Feed::Set(set(1, &["a", "b", "c"]))));
    soon(subscription.changed()).await.unwrap();
    source.tell(Ok(Feed::Set(set(2, &[]))));
    let held = soon(subscription.changed()).await.unwrap();
    assert_eq!(held.snapshot().held().len(), 3);
    sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(told(&subscription.state()), ("live", vec!["a", "b", "c"]));

    let mut config = self::config();
    config.coalescing.quiet = Duration::MAX;
    config.coalescing.longest = Duration::MAX;
    let mut subscription = subscribe_with(&source, config);
    for revision in 3..6 {
        source.tell(Ok(Feed::Set(version(revision))));
    }
    soon(subscription.changed()).await.unwrap();
    let day = Duration::from_secs(24 * 3600);
    assert!(timeout(day, subscription.changed()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_skips_to_the_newest_state_and_delays_no_other() {
    let source = ScriptedInstancer::default();
    let mut fast = subscribed(&source, &["a"]).await;
    let mut slow = fast.clone();
    for revision in 2..10 {
        source.tell(Ok(Feed::Set(version(revision))));
        let state = soon(fast.changed()).await.unwrap();
        assert_eq!(version_of(&state), revision.to_string());
        sleep(Duration::from_secs(1)).await;
    }
    let state = soon(slow.changed()).await.unwrap();
    assert_eq!(version_of(&state), "9");
    assert!(
        timeout(Duration::from_secs(10), slow.changed())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn all_subscribers_of_a_registry_share_one_feed() {
    let backend = ScriptedBackend::default();
    let source = &backend.instancer;
    source.set_silence_limit(Duration::from_secs(24 * 3600));
    source.tell(Ok(Feed::Set(set(1, &["a"]))));
    let registry = registry(&backend);
    let mut all: Vec<_> = (0..20).map(|_| registry.subscribe("s").unwrap()).collect();
    for subscription in &all {
        let state = subscription.wait_until_ready(Duration::from_secs(1)).await;
        assert_eq!(ids(&state.unwrap()), ["a"]);
    }
    assert_eq!((source.openings().len(), source.open_feeds()), (1, 1));
    all.truncate(1);
    source.tell(Ok(Feed::Set(set(2, &["b"]))));
    soon(async {
        while ids(&all[0].state()) != ["b"] {
            all[0].changed().await.unwrap();
        }
    })
    .await;
    all.clear();
    soon(source.feeds_are_open(0)).await;
    let _again = registry.subscribe("s").unwrap();
    soon(source.opened(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_metadata_alone_is_published_and_an_equal_set_is_not() {
    let source = ScriptedInstancer::default();
    let mut subscription = subscribed(&source, &["a"]).await;
    source.tell(Ok(Feed::Set(version(2))));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(version_of(&state), "2");
    source.tell(Ok(Feed::Set(version(2).with_position(at(3), Moment::ZERO))));
    assert!(
        timeout(Duration::from_secs(10), subscription.changed())
            .await
            .is_err()
    );
    assert_eq!(subscription.state().snapshot().revision(), &at(3));
}

#[tokio::test(start_paused = true)]
async fn the_first_change_after_quiet_is_published_at_once_and_its_followers_together() {
    let source = ScriptedInstancer::default();
    let mut subscription = subscribed(&source, &["a"]).await;
    sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    source.tell(Ok(Feed::Set(version(2))));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(version_of(&state), "2");
    assert_eq!(start.elapsed(), Duration::ZERO);

    for revision in 3..=5 {
        advance(3 * MILLIS).await;
        source.tell(Ok(Feed::Set(version(revision))));
    }
    let last_told = Instant::now();
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(version_of(&state), "5");
    assert!(last_told.elapsed() <= 11 * MILLIS);
}

#[tokio::test(start_paused = true)]
async fn under_constant_change_no_change_waits_longer_than_100_ms() {
    let source = ScriptedInstancer::default();
    let mut subscription = subscribed(&source, &["a"]).await;
    sleep(Duration::from_secs(1)).await;
    let writer = source.clone();
    let changing = tokio::spawn(async move {
        for revision in 2..202 {
            writer.tell(Ok(Feed::Set(version(revision))));
            sleep(5 * MILLIS).await;
        }
    });
    let mut published = vec![Instant::now()];
    while subscription.state().snapshot().revision() != &at(201) {
        soon(subscription.changed()).await.unwrap();
        published.push(Instant::now());
    }
    changing.await.unwrap();
    for pair in published.windows(2) {
        assert!(pair[1] - pair[0] <= 106 * MILLIS);
    }
    // 200 changes in a second.
    assert!((10..=15).contains(&published.len()), "{}", published.len());
}

#[tokio::test(start_paused = true)]
async fn instances_that_vanish_together_are_served_on_marked_for_a_while() {
    let source = ScriptedInstancer::default();
    let mut subscription = subscribed(&source, &["a", "b", "c", "d"]).await;
    source.tell(Ok(Feed::Set(set(2, &["a"]))));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("live", vec!["a", "b", "c", "d"]));
    assert_eq!(state.snapshot().held().len(), 3);
    let start = Instant::now();
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!((ids(&state), state.snapshot().held().len()), (vec!["a"], 0));
    let held = start.elapsed();
    assert!((29_900..30_110).contains(&held.as_millis()), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn withdrawn_instances_and_those_of_a_subscription_without_hold_go_at_once() {
    let source = ScriptedInstancer::default();
    let mut subscription = subscribed(&source, &["a", "b", "c"]).await;
    let gone = ["b", "c"].map(|id| InstanceId::new(id).unwrap());
    source.tell(Ok(Feed::Set(set(2, &["a"]).with_withdrawn(gone.into()))));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(ids(&state), ["a"]);

    let source = ScriptedInstancer::default();
    source.tell(Ok(Feed::Set(set(1, &["a", "b", "c"]))));
    let mut config = config();
    config.mass_loss_hold = None;
    let mut subscription = subscribe_with(&source, config);
    soon(subscription.changed()).await.unwrap();
    source.tell(Ok(Feed::Set(set(2, &[]))));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("live", vec![]));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_no_retry_can_mend_is_shown_and_retried_slowly() {
    let source = ScriptedInstancer::default();
    let never = || Error::new(ErrorKind::Unsupported, "scripted");
    source.answer_opening(Answer::Fail(never()));
    source.answer_opening(Answer::Fail(never()));
    let mut subscription = subscribe(&source);
    let state = soon(subscription.changed()).await.unwrap();
    let error = state.status().error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(source.openings().len(), 1);

    // The server was upgraded.
    source.tell(Ok(Feed::Set(set(1, &[]))));
    sleep(Duration::from_secs(80)).await;
    assert_eq!(source.openings().len(), 3);
    assert_eq!(told(&subscription.state()), ("live", vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_closed_source_is_not_opened_again() {
    let source = ScriptedInstancer::default();
    let closed = Error::new(ErrorKind::Closed, "scripted");
    source.answer_opening(Answer::Fail(closed));
    let mut subscription = subscribe(&source);
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(state.status().error().unwrap().kind(), ErrorKind::Closed);
    sleep(Duration::from_secs(10 * 3600)).await;
    assert_eq!(source.openings().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_empty_set_is_known_and_one_that_was_never_read_is_not() {
    let source = ScriptedInstancer::default();
    source.tell(Ok(Feed::Set(set(1, &[]))));
    let subscription = subscribe(&source);
    let limit = Duration::from_secs(3);
    let state = subscription.wait_until_known(limit).await.unwrap();
    assert_eq!(told(&state), ("live", vec![]));

    let source = ScriptedInstancer::default();
    for _ in 0..1000 {
        source.answer_opening(Answer::Fail(down()));
    }
    let subscription = subscribe(&source);
    let start = Instant::now();
    let error = subscription.wait_until_known(limit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.report().to_string().contains("the server is down"));
    assert!((3000..3010).contains(&start.elapsed().as_millis()));
    assert!(!subscription.state().is_known());
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_cannot_be_trusted_keeps_the_set_and_a_partial_one_serves_what_it_has() {
    let source = ScriptedInstancer::default();
    let mut subscription = subscribed(&source, &["a"]).await;
    source.tell(Ok(Feed::Degraded(down())));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("stale", vec!["a"]));
    source.tell(Ok(alive(2)));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("live", vec!["a"]));
    source.tell(Ok(Feed::Partial {
        set: set(3, &["a", "b"]),
        error: down(),
    }));
    soon(async { while ids(&subscription.changed().await.unwrap()) != ["a", "b"] {} }).await;
    assert_eq!(told(&subscription.state()), ("stale", vec!["a", "b"]));
    assert_eq!(source.openings().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn dropping_every_handle_ends_the_task_whatever_it_waits_for() {
    let alive_tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let hanging = || ScriptedInstancer::default().with_opening(Answer::Hang);
    let failing = || ScriptedInstancer::default().with_opening(Answer::Fail(down()));
    let hopeless = Error::new(ErrorKind::Unsupported, "scripted");
    let parked = ScriptedInstancer::default().with_opening(Answer::Fail(hopeless));
    for source in [ScriptedInstancer::default(), hanging(), failing(), parked] {
        assert_eq!(alive_tasks(), 0);
        let held = Arc::new(source.clone());
        let weak = Arc::downgrade(&held);
        let clock = Arc::new(TokioClock);
        let one = Subscription::spawn(held, service(), config(), clock).unwrap();
        let two = one.clone();
        soon(source.opened(1)).await;
        drop(one);
        sleep(MILLIS).await;
        assert_eq!(alive_tasks(), 1);
        drop(two);
        sleep(MILLIS).await;
        assert_eq!((alive_tasks(), source.open_feeds()), (0, 0));
        assert!(weak.upgrade().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn closing_the_registry_ends_its_subscriptions_and_refuses_new_ones() {
    let backend = ScriptedBackend::default();
    backend.instancer.tell(Ok(Feed::Set(set(1, &["a"]))));
    let registry = registry(&backend);
    let mut subscription = registry.subscribe("s").unwrap();
    soon(subscription.changed()).await.unwrap();
    registry.close().await.unwrap();
    registry.close().await.unwrap();
    assert_eq!(backend.instancer.open_feeds(), 0);
    let error = soon(subscription.changed()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(ids(&subscription.state()), ["a"]);
    let refused = registry.subscribe("s").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_dump_shows_set_state_and_reason() {
    let backend = ScriptedBackend::default();
    let source = &backend.instancer;
    source.tell(Ok(Feed::Set(set(7, &["a", "b"]))));
    let registry = registry(&backend);
    let mut subscription = registry.subscribe("s").unwrap();
    soon(subscription.changed()).await.unwrap();
    source.tell(Ok(Feed::Degraded(down())));
    soon(subscription.changed()).await.unwrap();
    advance(Duration::from_secs(5)).await;
    let dump = serde_json::to_value(registry.dump()).unwrap();
    let dump = &dump["subscriptions"][0];
    assert_eq!(
        (
            &dump["service"],
            &dump["status"],
            &dump["instances"],
            &dump["revision"]
        ),
        (&"s".into(), &"stale".into(), &2.into(), &7.into())
    );
    assert_eq!(dump["error"], "scripted: unavailable: the server is down");
    assert!(dump["for_seconds"].as_f64().unwrap() >= 5.0, "{dump}");
}

mod any_sequence {
    //! Whatever a source tells in whatever order and pace, readers see whole sets and in the end the last one.

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum News {
        Set(u8),
        Alive,
        Fails,
        Outdated,
        Degraded,
    }

    fn news() -> impl Strategy<Value = (News, u64)> {
        let what = prop_oneof![
            4 => any::<u8>().prop_map(News::Set),
            1 => Just(News::Alive),
            1 => Just(News::Fails),
            1 => Just(News::Outdated),
            1 => Just(News::Degraded),
        ];
        (what, prop_oneof![Just(0u64), 1..30u64, 100..3000u64])
    }

    /// The instances whose bits are set, as of this revision: no two revisions have an instance in common.
    fn subset(bits: u8, revision: u64) -> Snapshot {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let chosen = names
            .iter()
            .enumerate()
            .filter(|(bit, _)| bits >> bit & 1 == 1);
        let instances = chosen.map(|(_, id)| instance(id, revision)).collect();
        Snapshot::new(service(), at(revision), Moment::ZERO, instances)
    }

    /// Each step is a set, whether those that are missing in it have withdrawn, and the pause after it.
    async fn run_with_hold(script: Vec<(u8, bool, u64)>) {
        let source = ScriptedInstancer::default();
        source.set_silence_limit(Duration::from_secs(24 * 3600));
        let mut subscription = subscribe(&source);
        let mut watcher = subscription.clone();
        let seen = tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Ok(state) = timeout(Duration::from_secs(10 * 60), watcher.changed()).await {
                seen.push(state.unwrap());
            }
            seen
        });
        let mut sets = vec![subset(0, 0)];
        for (revision, (bits, on_purpose, pause)) in (1..).zip(script) {
            let mut set = subset(bits, revision);
            if on_purpose {
                let missing = subset(!bits, revision);
                let ids = missing.instances().iter().map(|gone| gone.id().clone());
                set = set.with_withdrawn(ids.collect());
            }
            source.tell(Ok(Feed::Set(set.clone())));
            sets.push(set);
            sleep(Duration::from_millis(pause)).await;
        }
        let end = MassLossHold::default().hold + Duration::from_secs(1);
        sleep(end).await;
        let state = subscription.state_and_mark_seen();
        let last = sets.last().unwrap();
        assert_eq!(state.snapshot().instances(), last.instances());
        assert!(state.snapshot().held().is_empty());
        for state in seen.await.unwrap() {
            let served = state.snapshot();
            let revision = served.revision().value();
            let listed = &sets[usize::try_from(revision).unwrap()];
            for instance in listed.instances() {
                assert_eq!(served.get(instance.id()), Some(instance));
            }
            for extra in served.instances() {
                let id = extra.id();
                if listed.get(id).is_some() {
                    continue;
                }
                assert!(served.held().contains(id), "{id} was made up");
                // It is as the last set before this one listed it that had it, and none since has said that it withdrew.
                let earlier = sets[..=usize::try_from(revision).unwrap()].iter().rev();
                let absent: Vec<_> = earlier
                    .clone()
                    .take_while(|set| set.get(id).is_none())
                    .collect();
                assert!(
                    absent.iter().all(|set| !set.withdrawn().contains(id)),
                    "{id} had withdrawn"
                );
                let listing = earlier.map(|set| set.get(id)).find(Option::is_some);
                assert_eq!(listing, Some(Some(extra)));
            }
        }
    }

    async fn run(script: Vec<(News, u64)>) {
        let source = ScriptedInstancer::default();
        source.set_silence_limit(Duration::from_secs(24 * 3600));
        let mut config = config();
        config.mass_loss_hold = None;
        let mut subscription = subscribe_with(&source, config);
        let mut watcher = subscription.clone();
        let seen = tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Ok(state) = timeout(Duration::from_secs(10 * 60), watcher.changed()).await {
                seen.push(state.unwrap());
            }
            seen
        });
        let mut sets = vec![subset(0, 0)];
        // What the newest feed has told, and whether the source is well.
        let (mut known, mut resumable, mut well) = (false, false, false);
        for (revision, (news, pause)) in (1..).zip(script) {
            match news {
                News::Set(bits) => {
                    sets.push(subset(bits, revision));
                    source.tell(Ok(Feed::Set(subset(bits, revision))));
                    (known, resumable, well) = (true, true, true);
                }
                News::Alive => {
                    source.tell(Ok(alive(revision)));
                    well = if resumable { true } else { well };
                }
                News::Fails => {
                    source.tell(Err(down()));
                    well = false;
                }
                News::Outdated => {
                    source.tell(Err(Error::new(ErrorKind::Outdated, "scripted")));
                    (resumable, well) = (false, false);
                }
                News::Degraded => {
                    source.tell(Ok(Feed::Degraded(down())));
                    well = false;
                }
            }
            sleep(Duration::from_millis(pause)).await;
        }
        sleep(Duration::from_secs(5 * 60)).await;
        let state = subscription.state_and_mark_seen();
        let expected = match (known, well) {
            (false, _) => "initializing",
            (true, true) => "live",
            (true, false) => "stale",
        };
        assert_eq!(state.status().as_str(), expected);
        let last = sets.last().unwrap();
        assert_eq!(state.snapshot().instances(), last.instances());
        let mut newest = 0;
        for state in seen.await.unwrap() {
            let is_whole = |set: &Snapshot| set.instances() == state.snapshot().instances();
            assert!(sets.iter().any(is_whole), "a mix: {state:?}");
            let revision = state.snapshot().revision().value();
            assert!(revision >= newest, "went back from {newest} to {revision}");
            newest = revision;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
        #[test]
        fn ends_with_the_last_set_and_never_shows_a_mix(script in prop::collection::vec(news(), 0..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(run(script));
        }

        #[test]
        fn with_a_hold_ends_with_the_last_set_and_never_serves_what_has_withdrawn(
            script in prop::collection::vec((any::<u8>(), any::<bool>(), prop_oneof![Just(0u64), 1..30u64, 100..40_000u64]), 0..40)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(run_with_hold(script));
        }
    }
}

/// The run with this number at an address, and when its record was made.
fn run(address: &str, number: u32, made: u64) -> (Arc<Instance>, u64) {
    let id = InstanceId::new(format!("{address}-{number:08x}")).unwrap();
    let instance = Instance::new("s", address).unwrap().with_id(id);
    let incarnation = Incarnation::from_u64(u64::from(number) << 32);
    (Arc::new(instance.with_incarnation(incarnation)), made)
}

fn unready((instance, made): (Arc<Instance>, u64)) -> (Arc<Instance>, u64) {
    (Arc::new(instance.as_ref().clone().with_ready(false)), made)
}

fn runs(revision: u64, records: Vec<(Arc<Instance>, u64)>) -> Snapshot {
    Snapshot::ordered(service(), at(revision), Moment::ZERO, records)
}

#[tokio::test(start_paused = true)]
async fn of_runs_that_crashed_at_one_address_only_the_newest_is_seen_and_none_is_held() {
    let backend = ScriptedBackend::default();
    let registry = registry(&backend);
    let other = run("h:2", 1, 1);
    let crashed = [run("h:1", 7, 2), run("h:1", 1, 3), run("h:1", 9, 4)];
    let living = run("h:1", 5, 5);
    let all = [&crashed[..], &[other.clone(), living.clone()]].concat();
    backend.instancer.tell(Ok(Feed::Set(runs(1, all))));
    let mut seen = registry.subscribe("s").unwrap();
    let state = soon(seen.changed()).await.unwrap();
    let expected = ["h:1-00000005", "h:2-00000001"];
    assert_eq!(told(&state), ("live", expected.to_vec()));
    let listed = registry.list(&service()).await.unwrap();
    assert_eq!(listed.len(), 2);
    // Their time-to-live ends: three of five records at once.
    backend
        .instancer
        .tell(Ok(Feed::Set(runs(2, vec![other, living]))));
    backend.instancer.tell(Ok(alive(3)));
    soon(async {
        while seen.state().snapshot().revision() != &at(3) {
            sleep(MILLIS).await;
        }
    })
    .await;
    assert_eq!(told(&seen.state()), ("live", expected.to_vec()));
    assert_eq!(seen.state().snapshot().held(), []);
}

#[tokio::test(start_paused = true)]
async fn servers_that_all_restart_leave_nothing_to_hold() {
    let source = ScriptedInstancer::default();
    let addresses = ["h:1", "h:2", "h:3", "h:4"];
    let before: Vec<_> = addresses.map(|address| run(address, 1, 1)).to_vec();
    let after: Vec<_> = addresses.map(|address| run(address, 2, 2)).to_vec();
    source.tell(Ok(Feed::Set(runs(1, before.clone()))));
    let mut subscription = subscribe(&source);
    soon(subscription.changed()).await.unwrap();
    // Some records of the crashed runs still stand, and some do not.
    let both = [&before[..2], &after[..]].concat();
    source.tell(Ok(Feed::Set(runs(2, both))));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(state.snapshot().held(), []);
    assert!(ids(&state).iter().all(|id| id.ends_with("-00000002")));
    assert_eq!(state.snapshot().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_draining_run_that_is_back_first_after_a_loss_does_not_replace_a_ready_one() {
    let source = ScriptedInstancer::default();
    let addresses = ["h:1", "h:2", "h:3"];
    let ready: Vec<_> = addresses.map(|address| run(address, 2, 9)).to_vec();
    source.tell(Ok(Feed::Set(runs(9, ready))));
    let mut subscription = subscribe(&source);
    soon(subscription.changed()).await.unwrap();
    // The server lost its data, and counts from the beginning.
    let draining = unready(run("h:1", 1, 1));
    source.tell(Ok(Feed::Set(runs(1, vec![draining.clone()]))));
    let held = soon(subscription.changed()).await.unwrap();
    let expected = addresses.map(|address| format!("{address}-00000002"));
    assert_eq!(ids(&held), expected);
    assert_eq!(held.snapshot().held().len(), 3);
    // A ready one that is listed wins over one that is held, however large the number of that was.
    let back = run("h:1", 3, 2);
    source.tell(Ok(Feed::Set(runs(2, vec![draining, back]))));
    let state = soon(subscription.changed()).await.unwrap();
    let expected = ["h:1-00000003", "h:2-00000002", "h:3-00000002"];
    assert_eq!(ids(&state), expected);
}

/// Tells a set whenever a feed is opened, with the number of the feed as its revision.
fn tells_each_feed_a_set(source: &ScriptedInstancer) -> tokio::task::JoinHandle<()> {
    let source = source.clone();
    tokio::spawn(async move {
        for feed in 1.. {
            source.opened(feed).await;
            source.tell(Ok(Feed::Set(version(feed as u64))));
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_refresh_reads_everything_and_returns_when_it_is_published() {
    let source = ScriptedInstancer::default();
    let script = tells_each_feed_a_set(&source);
    let subscription = subscribe(&source);
    let state = subscription.wait_until_known(MILLIS).await.unwrap();
    assert_eq!(version_of(&state), "1");
    sleep(Duration::from_secs(10)).await;
    let start = Instant::now();
    for expected in ["2", "3"] {
        let state = soon(subscription.refresh()).await.unwrap();
        assert_eq!(version_of(&state), expected);
        assert_eq!(version_of(&subscription.state()), expected);
    }
    assert!(
        source
            .openings()
            .iter()
            .all(|opening| opening.known.is_none())
    );
    // The second one had to wait.
    assert_eq!(start.elapsed().as_millis(), 1000);
    script.abort();
}

#[tokio::test(start_paused = true)]
async fn however_many_refresh_there_is_one_read_a_second() {
    let source = ScriptedInstancer::default();
    let script = tells_each_feed_a_set(&source);
    let subscription = subscribe(&source);
    subscription.wait_until_known(MILLIS).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let subscription = subscription.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    subscription.refresh().await.unwrap();
                }
            })
        })
        .collect();
    // Requests that are dropped are no reason to read more.
    for _ in 0..1000 {
        drop(timeout(MILLIS / 10, subscription.refresh()).await);
    }
    for reader in readers {
        soon(reader).await.unwrap();
    }
    let openings = source.openings();
    for pair in openings[1..].windows(2) {
        let pause = pair[1].at - pair[0].at;
        assert!(pause >= Duration::from_secs(1), "{pause:?}");
    }
    assert!(openings.len() <= 14, "{}", openings.len());
    script.abort();
}

#[tokio::test(start_paused = true)]
async fn a_refresh_while_the_source_is_down_tries_at_once_and_says_why_it_failed() {
    let source = ScriptedInstancer::default();
    let mut subscription = subscribed(&source, &["a"]).await;
    for _ in 0..20 {
        source.answer_opening(Answer::Fail(down()));
    }
    source.tell(Err(down()));
    // By now delays have grown.
    soon(source.opened(12)).await;
    let start = Instant::now();
    for _ in 0..3 {
        let error = soon(subscription.refresh()).await.unwrap_err();
        assert!(error.report().to_string().contains("the server is down"));
    }
    assert!(
        start.elapsed() <= Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(told(&subscription.state()), ("stale", vec!["a"]));
    soon(source.opened(22)).await;
    source.tell(Ok(Feed::Set(set(2, &["b"]))));
    soon(async { while ids(&subscription.changed().await.unwrap()) != ["b"] {} }).await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_does_not_hurry_a_source_that_asked_for_a_pause() {
    let source = ScriptedInstancer::default();
    let subscription = subscribed(&source, &["a"]).await;
    let asked = Duration::from_secs(60);
    let busy = ErrorKind::RateLimited {
        retry_after: Some(asked),
    };
    source.tell(Err(Error::new(busy, "scripted")));
    let start = Instant::now();
    while subscription.state().status().error().is_none() {
        sleep(MILLIS).await;
    }
    for _ in 0..20 {
        let error = soon(subscription.refresh()).await.unwrap_err();
        assert_eq!(error.kind(), busy);
    }
    assert_eq!(source.openings().len(), 1);
    soon(source.opened(2)).await;
    assert!(start.elapsed() >= asked, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_of_a_closed_source_answers_instead_of_waiting() {
    let source = ScriptedInstancer::default();
    let subscription = subscribed(&source, &["a"]).await;
    source.tell(Err(Error::new(ErrorKind::Closed, "scripted")));
    for _ in 0..3 {
        let error = soon(subscription.refresh()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
    let backend = ScriptedBackend::default();
    let registry = registry(&backend);
    let subscription = registry.subscribe("s").unwrap();
    registry.close().await.unwrap();
    let error = soon(subscription.refresh()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_of_a_merge_reads_its_sources_again() {
    use sd_core::combine::Merge;
    let (one, two) = (ScriptedInstancer::default(), ScriptedInstancer::default());
    let scripts = [&one, &two].map(tells_each_feed_a_set);
    let merge = Merge::new("one", Arc::new(one.clone())).and("two", Arc::new(two.clone()));
    let merge = Arc::new(
        merge
            .with_subscription(config())
            .with_clock(Arc::new(TokioClock)),
    );
    let subscription =
        Subscription::spawn(merge, service(), config(), Arc::new(TokioClock)).unwrap();
    subscription.wait_until_known(MILLIS * 10).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let state = soon(subscription.refresh()).await.unwrap();
    assert_eq!(version_of(&state), "2");
    assert_eq!((one.openings().len(), two.openings().len()), (2, 2));
    for script in scripts {
        script.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn ready_means_that_an_instance_wants_calls() {
    let source = ScriptedInstancer::default();
    let subscription = subscribed(&source, &[]).await;
    let not_yet = async |why: &str| {
        let error = subscription.wait_until_ready(MILLIS).await.unwrap_err();
        let report = error.report().to_string();
        assert!(report.contains(why), "{report}");
    };
    not_yet("s has no instance").await;
    let unready = set(2, &["a"]).with_instances(vec![Arc::new(
        instance("a", 0).as_ref().clone().with_ready(false),
    )]);
    source.tell(Ok(Feed::Set(unready)));
    sleep(Duration::from_secs(1)).await;
    not_yet("no instance of s is ready").await;
    source.tell(Ok(Feed::Set(set(3, &["a"]))));
    let state = subscription.wait_until_ready(Duration::from_secs(1)).await;
    assert_eq!(ids(&state.unwrap()), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_panics_is_opened_again_and_the_status_says_so_meanwhile() {
    let source = ScriptedInstancer::default();
    let mut subscription = subscribed(&source, &["a"]).await;
    source.answer_opening(Answer::Panic);
    source.panic();
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("stale", vec!["a"]));
    let why = state.status().error().unwrap().report().to_string();
    assert!(why.contains("panicked: it was written so"), "{why}");
    let shown = subscription.dump();
    assert_eq!((shown.status, shown.error), ("stale", Some(why)));

    soon(source.opened(3)).await;
    assert_eq!(source.openings().last().unwrap().known, None);
    source.tell(Ok(Feed::Set(set(2, &["a", "b"]))));
    let live = loop {
        let state = soon(subscription.changed()).await.unwrap();
        if state.status().as_str() == "live" {
            break state;
        }
    };
    assert_eq!(ids(&live), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_server_refuses_is_asked_again_and_followed_soon_after_it_recovers() {
    let source = ScriptedInstancer::default();
    let mut subscription = subscribed(&source, &["a"]).await;
    let refused = Error::new(ErrorKind::Rejected, "scripted").because("400");
    source.tell(Err(refused.clone()));
    let since = Instant::now();
    let refused_for = Duration::from_secs(6);
    let mut openings = 1;
    while since.elapsed() < refused_for {
        source.answer_opening(Answer::Fail(refused.clone()));
        openings += 1;
        soon(source.opened(openings)).await;
    }
    let state = subscription.state_and_mark_seen();
    assert_eq!(told(&state), ("stale", vec!["a"]));
    assert_eq!(state.status().error().unwrap().kind(), ErrorKind::Rejected);
    source.tell(Ok(Feed::Set(set(2, &["a", "b"]))));
    let state = soon(subscription.changed()).await.unwrap();
    assert_eq!(told(&state), ("live", vec!["a", "b"]));
    let took = since.elapsed();
    assert!(took < Duration::from_secs(17), "{took:?}");
}

#[test]
fn a_subscription_whose_runtime_has_ended_says_so_and_is_replaced_by_the_next_one() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let backend = ScriptedBackend::default();
    let registry = registry(&backend);
    let first = runtime();
    let (mut seen, services) = first.block_on(async {
        backend.instancer.tell(Ok(Feed::Set(set(1, &["a"]))));
        let mut seen = registry.subscribe("s").unwrap();
        soon(seen.changed()).await.unwrap();
        let services = registry.subscribe_services().unwrap();
        let limit = Duration::from_secs(30);
        services.wait_until_known(limit).await.unwrap();
        (seen, services)
    });
    drop(first);
    assert_eq!(told(&seen.state()), ("stale", vec!["a"]));
    let shown = &registry.dump().subscriptions[0];
    assert!(shown.error.as_ref().unwrap().contains("runtime"));
    assert_eq!(registry.health().stale, [service()]);
    assert_eq!(services.state().status().as_str(), "stale");

    runtime().block_on(async {
        assert_eq!(seen.changed().await.unwrap_err().kind(), ErrorKind::Closed);
        backend.instancer.tell(Ok(Feed::Set(set(2, &["a", "b"]))));
        let mut again = registry.subscribe("s").unwrap();
        let state = soon(again.changed()).await.unwrap();
        assert_eq!(told(&state), ("live", vec!["a", "b"]));
        let mut services = registry.subscribe_services().unwrap();
        let listed = soon(services.changed()).await.unwrap();
        assert_eq!(listed.status().as_str(), "live");
    });
}

#[tokio::test(start_paused = true)]
async fn what_vanishes_from_a_source_that_tells_no_withdrawals_goes_at_once_unless_asked_otherwise()
{
    let hold = MassLossHold::default();
    for (hold, held) in [(hold, 0), (hold.for_any_source(), 3)] {
        let source = ScriptedInstancer::default().without_withdrawals();
        source.tell(Ok(Feed::Set(set(1, &["a", "b", "c", "d"]))));
        let filtered = combine::Filter::new(Arc::new(source.clone()));
        let config = config().with_mass_loss_hold(Some(hold));
        let clock = Arc::new(TokioClock);
        let subscribed = Subscription::spawn(Arc::new(filtered), service(), config, clock);
        let mut subscription = subscribed.unwrap();
        soon(subscription.changed()).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        source.tell(Ok(Feed::Set(set(2, &["a"]))));
        let state = soon(subscription.changed()).await.unwrap();
        assert_eq!(state.snapshot().held().len(), held);
        assert_eq!(state.snapshot().len(), 1 + held);
    }
}
