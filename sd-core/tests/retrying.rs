//! Calls through an endpoint cache that are tried at several endpoints. The clock is paused.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::future::{pending, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use sd_core::balance::{Candidates, Load, Outcome, Picker, Policy, RoundRobin};
use sd_core::combine::Static;
use sd_core::endpoints::{AttemptError, CachedEndpoint, EndpointCacheBuilder, GaveUp, RetryPolicy};
use sd_core::sync::lock;
use sd_core::{
    Discovery, EndpointCache, Error, ErrorKind, Instance, InstanceId, ServiceName, Subscription,
};
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Passing,
    Final,
}

fn retry() -> RetryPolicy<Trouble> {
    RetryPolicy::new(|trouble| *trouble == Trouble::Passing)
}

fn subscription(ids: &[&str]) -> Subscription {
    let instances = (1..).zip(ids).map(|(port, id)| {
        let instance = Instance::new("s", format!("h:{port}")).unwrap();
        instance.with_id(InstanceId::new(id).unwrap())
    });
    let source = Arc::new(Static::new(instances).unwrap());
    source.subscribe(&ServiceName::new("s").unwrap()).unwrap()
}

fn builder(ids: &[&str]) -> EndpointCacheBuilder<String> {
    EndpointCache::builder(subscription(ids), |instance: Arc<Instance>| {
        ready(Ok::<_, Error>(instance.id().to_string()))
    })
}

async fn cache(ids: &[&str]) -> EndpointCache<String> {
    made(builder(ids), ids.len()).await
}

async fn made(builder: EndpointCacheBuilder<String>, count: usize) -> EndpointCache<String> {
    let cache = builder.build().unwrap();
    while cache.endpoints().len() < count {
        sleep(Duration::from_millis(1)).await;
    }
    cache
}

fn id(endpoint: &CachedEndpoint<String>) -> String {
    endpoint.value().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_call_moves_on_until_an_endpoint_answers() {
    let cache = cache(&["a", "b", "c"]).await;
    for _ in 0..20 {
        let call = |endpoint: Arc<CachedEndpoint<String>>| async move {
            let id = id(&endpoint);
            if id == "b" {
                Ok(id)
            } else {
                Err(Trouble::Passing)
            }
        };
        assert_eq!(cache.call(&retry(), call).await.unwrap(), "b");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_of_its_own_can_call() {
    let cache = Arc::new(cache(&["a"]).await);
    let calling = tokio::spawn(async move {
        let answer = |endpoint: Arc<CachedEndpoint<String>>| ready(Ok::<_, Trouble>(id(&endpoint)));
        cache.call(&retry(), answer).await.is_ok()
    });
    assert!(calling.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_failed_is_called_again_only_when_all_have_failed() {
    let cache = cache(&["a", "b", "c"]).await;
    for _ in 0..20 {
        let mut called = Vec::new();
        let failing = |endpoint: Arc<CachedEndpoint<String>>| {
            called.push(id(&endpoint));
            ready(Err::<(), _>(Trouble::Passing))
        };
        let error = cache.call(&retry().attempts(4), failing).await.unwrap_err();
        assert!(matches!(error.gave_up(), GaveUp::Attempts), "{error}");
        let first: BTreeSet<_> = called[..3].iter().collect();
        assert_eq!((called.len(), first.len()), (4, 3), "{called:?}");
        assert_eq!(error.attempts().len(), 4);
        assert_eq!(error.into_last(), Some(Trouble::Passing));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_does_not_pass_ends_the_call() {
    let cache = cache(&["a", "b"]).await;
    let mut calls = 0;
    let failing = |_| {
        calls += 1;
        ready(Err::<(), _>(Trouble::Final))
    };
    let error = cache.call(&retry(), failing).await.unwrap_err();
    assert!(matches!(error.gave_up(), GaveUp::NotRetried));
    assert_eq!((calls, error.into_last()), (1, Some(Trouble::Final)));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_moves_and_the_last_one_may_take_its_time() {
    let cache = cache(&["a", "b"]).await;
    let second = Duration::from_secs(1);
    let retry = retry().attempts(2).attempt_timeout(second);
    let began = Instant::now();
    let mut calls = 0;
    let slow = |endpoint: Arc<CachedEndpoint<String>>| {
        calls += 1;
        let is_first = calls == 1;
        async move {
            if is_first {
                pending::<()>().await;
            }
            sleep(4 * second).await;
            Ok::<_, Trouble>(id(&endpoint))
        }
    };
    cache.call(&retry, slow).await.unwrap();
    assert!(began.elapsed() >= 5 * second && began.elapsed() < 6 * second);
    assert_eq!(calls, 2);
}

#[tokio::test(start_paused = true)]
async fn the_whole_call_ends_in_time_whatever_its_attempts_do() {
    let cache = cache(&["a", "b"]).await;
    let limit = Duration::from_secs(3);
    let second = Duration::from_secs(1);
    let retry = retry().attempts(100).attempt_timeout(second).timeout(limit);
    let began = Instant::now();
    let hanging = |_| pending::<Result<(), Trouble>>();
    let error = cache.call(&retry, hanging).await.unwrap_err();
    assert!(began.elapsed() <= limit && began.elapsed() > second);
    assert!(matches!(error.gave_up(), GaveUp::Timeout(of) if *of == limit));
    let timed_out =
        |attempt: &sd_core::endpoints::FailedAttempt<_>| *attempt.error() == AttemptError::TimedOut;
    assert!(error.attempts().iter().all(timed_out));
    let text = error.to_string();
    assert!(
        text.contains("(timed out)") && text.ends_with("no time is left of 3s"),
        "{text}"
    );
    let failing = |_| ready(Err::<(), _>(Trouble::Passing));
    let error = cache.call(&retry, failing).await.unwrap_err();
    assert!(matches!(error.gave_up(), GaveUp::Timeout(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_empty_set_fails_at_once_and_a_first_value_is_waited_for() {
    let answer = |endpoint: Arc<CachedEndpoint<String>>| ready(Ok::<_, Trouble>(id(&endpoint)));
    let empty = builder(&[]).build().unwrap();
    let began = Instant::now();
    let error = empty.call(&retry(), answer).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(1));
    let GaveUp::NoEndpoint(reason) = error.gave_up() else {
        panic!("{error}");
    };
    assert_eq!(reason.kind(), ErrorKind::Unavailable);
    assert!(
        reason.report().to_string().contains("s has no instance"),
        "{reason:?}"
    );

    let slow = |instance: Arc<Instance>| async move {
        sleep(Duration::from_secs(5)).await;
        Ok::<_, Error>(instance.id().to_string())
    };
    let cache = EndpointCache::builder(subscription(&["a"]), slow)
        .build()
        .unwrap();
    assert_eq!(cache.call(&retry(), answer).await.unwrap(), "a");

    let refused = |_| ready(Err::<String, _>("refused"));
    let cache = EndpointCache::builder(subscription(&["a"]), refused)
        .build()
        .unwrap();
    let error = cache.call(&retry(), answer).await.unwrap_err();
    let GaveUp::NoEndpoint(reason) = error.gave_up() else {
        panic!("{error}");
    };
    assert!(
        reason.report().to_string().contains("refused"),
        "{reason:?}"
    );
    cache.close().await;
    assert!(cache.call(&retry(), answer).await.is_err());
}

/// Picks in turn, and notes what it hears.
#[derive(Clone, Debug, Default)]
struct Noting(Arc<Mutex<Vec<String>>>);

#[derive(Debug)]
struct NotingLoad(String, Noting);

impl Policy for Noting {
    fn new_load(&self, instance: &Arc<Instance>) -> Option<Arc<dyn Load>> {
        Some(Arc::new(NotingLoad(
            instance.id().to_string(),
            self.clone(),
        )))
    }

    fn picker(
        &self,
        candidates: &Candidates<'_>,
        previous: Option<&dyn Picker>,
    ) -> Box<dyn Picker> {
        RoundRobin::new().picker(candidates, previous)
    }
}

impl Load for NotingLoad {
    fn begin(&self) -> u64 {
        lock(&self.1.0).push(format!("{} begins", self.0));
        7
    }

    fn end(&self, begun: u64, outcome: Outcome) {
        assert_eq!(begun, 7);
        lock(&self.1.0).push(format!("{} {outcome:?}", self.0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_hears_how_each_attempt_ended() {
    let noting = Noting::default();
    let cache = made(builder(&["a"]).policy(noting.clone()), 1).await;
    let mut calls = 0;
    let second = |_| {
        calls += 1;
        ready(if calls == 2 {
            Ok(())
        } else {
            Err(Trouble::Passing)
        })
    };
    let retry = retry();
    cache.call(&retry, second).await.unwrap();
    let hanging = cache.call(&retry, |_| pending::<Result<(), Trouble>>());
    let _ = tokio::time::timeout(SOON / 60, hanging).await;
    drop(cache.pick());
    assert_eq!(
        lock(&noting.0).as_slice(),
        [
            "a begins",
            "a Failure",
            "a begins",
            "a Success",
            "a begins",
            "a Dropped",
            "a begins",
            "a Dropped"
        ]
    );
}

#[test]
fn outside_a_runtime_a_call_is_an_error_and_no_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let cache = runtime.block_on(cache(&["a"]));
    let called = cache.call(&retry(), |_| async { Ok(()) }).now_or_never();
    let refused = called.unwrap().unwrap_err();
    let GaveUp::NoEndpoint(error) = refused.gave_up() else {
        panic!("{refused:?}");
    };
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let waited = cache.wait_until_ready(SOON).now_or_never().unwrap();
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::InvalidInput);
}
