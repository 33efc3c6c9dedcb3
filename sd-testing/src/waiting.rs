//! Waiting for an expected event. Panics with what did not happen.

use std::time::Duration;

use sd_core::{Error, RegistrationEvent, RegistrationGuard, State, Subscription};
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(30);

/// Waits until a subscription's state is as wanted.
///
/// # Panics
/// If it is not within [`LONG`], or the registry is closed.
pub async fn until(
    subscription: &mut Subscription,
    what: &str,
    wanted: impl Fn(&State) -> bool,
) -> State {
    let waiting = async {
        let mut state = subscription.state_and_mark_seen();
        while !wanted(&state) {
            state = subscription.changed().await?;
        }
        Ok::<_, Error>(state)
    };
    let answer = timeout(LONG, waiting)
        .await
        .unwrap_or_else(|_| panic!("not {what} within {LONG:?}: {:?}", subscription.state()));
    answer.unwrap_or_else(|error| panic!("not {what}: {}", error.report()))
}

/// For [`until`]: the source is followed, and the set has `count` instances.
pub fn is_live_with(count: usize) -> impl Fn(&State) -> bool {
    move |state| state.status().as_str() == "live" && state.snapshot().len() == count
}

/// For [`until`]: the source fails, after a set was known.
pub fn is_stale(state: &State) -> bool {
    state.status().as_str() == "stale"
}

/// Waits for the event `name`, and returns all events up to it.
///
/// # Panics
/// If the event does not come within [`LONG`], or the registration ends first.
pub async fn event(guard: &mut RegistrationGuard, name: &str) -> Vec<RegistrationEvent> {
    let mut seen = Vec::new();
    let waiting = async {
        while let Some(event) = guard.next_event().await {
            let found = event.as_str() == name;
            seen.push(event);
            if found {
                return true;
            }
        }
        false
    };
    let found = timeout(LONG, waiting).await;
    assert_eq!(found, Ok(true), "no {name} event, but {seen:?}");
    seen
}

/// Asks every 10 ms until the answer is true, and returns how long that took.
///
/// # Panics
/// If the answer is not true within `limit`.
pub async fn eventually<F: Future<Output = bool>>(
    what: &str,
    limit: Duration,
    mut is_so: impl FnMut() -> F,
) -> Duration {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < limit, "not {what} within {limit:?}");
        sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}
