//! The server's clock is put forward and back. What is stored has its times by that clock alone, so they are moved against it instead.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{
    BACK_WITHIN, LONG, Operator, TTL, event, eventually, instance, is_live_with, key, prefix,
    registry, server, told, until,
};
use sd_core::RegistrationGuard;
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);

/// Moves all times of a service and of the list, as a clock seems to them that is stepped the other way.
async fn move_times(raw: &Operator, prefix: &str, millis: i64) {
    const MOVE: &str = "
        for _, times in ipairs({ KEYS[1], KEYS[3] }) do
          local all = redis.call('ZRANGE', times, 0, -1, 'WITHSCORES')
          for at = 1, #all, 2 do
            redis.call('ZADD', times, string.format('%.0f', all[at + 1] + ARGV[1]), all[at])
          end
        end
        local made = redis.call('HGET', KEYS[2], 'made')
        return redis.call('HSET', KEYS[2], 'made', string.format('%.0f', made + ARGV[1] * 1000))";
    let [ends, state] = ["ends", "state"].map(|part| key(prefix, "greeter", part));
    let (list, millis) = (format!("{prefix}:list"), millis.to_string());
    raw.ask::<i64>(&["EVAL", MOVE, "3", &ends, &state, &list, &millis])
        .await;
}

/// In how long the record of a guard ends.
async fn rest_of(raw: &Operator, prefix: &str, guard: &RegistrationGuard) -> Duration {
    let now: (u64, u64) = raw.ask(&["TIME"]).await;
    let ends = key(prefix, "greeter", "ends");
    let id = guard.record_id().id.as_str();
    let at: f64 = raw.ask(&["ZSCORE", &ends, id]).await;
    let now = Duration::new(now.0, 0) + Duration::from_micros(now.1);
    Duration::from_secs_f64(at / 1000.0).saturating_sub(now)
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn put_forward_all_records_end_and_are_there_again_while_readers_hold_them() {
    let (prefix, raw) = (prefix(), Operator::at(&server()).await);
    let (owner, reader) = (registry(&prefix), registry(&prefix));
    let mut guards = Vec::new();
    for port in 1..=3 {
        guards.push(owner.register(instance(port)).await.unwrap());
    }
    let mut seen = reader.subscribe("greeter").unwrap();
    until(&mut seen, "all", is_live_with(3)).await;
    let millis = i64::try_from(HOUR.as_millis()).unwrap();
    let since = Instant::now();
    move_times(&raw, &prefix, -millis).await;
    let are_back = async || raw.records(&prefix, "greeter").await.len() == 3;
    eventually("back", BACK_WITHIN, are_back).await;
    assert!(since.elapsed() < BACK_WITHIN, "{:?}", since.elapsed());
    for guard in &mut guards {
        event(guard, "registered").await;
    }
    until(&mut seen, "all again", is_live_with(3)).await;
    assert_eq!(owner.services().await.unwrap().len(), 1);
    let left = guards.pop().unwrap();
    left.deregister().await.unwrap();
    until(&mut seen, "two", is_live_with(2)).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn put_back_nothing_flaps_and_what_has_crashed_ends_within_the_longest_time_to_live() {
    let (prefix, raw) = (prefix(), Operator::at(&server()).await);
    let (owner, reader) = (registry(&prefix), registry(&prefix));
    let mut guard = owner.register(instance(1)).await.unwrap();
    let crashed = owner.register(instance(2)).ttl(LONG).await.unwrap();
    let mut seen = reader.subscribe("greeter").unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
    told(&mut guard);
    let crashed_id = crashed.record_id().id.to_string();
    crashed.release().await.unwrap();
    let state = key(&prefix, "greeter", "state");
    let made: u64 = raw.ask(&["HGET", &state, "made"]).await;
    let millis = i64::try_from((HOUR * 72).as_millis()).unwrap();
    move_times(&raw, &prefix, millis).await;

    // The one that lives is renewed by the clock as it is now, and the other one is bounded.
    let is_renewed = async || rest_of(&raw, &prefix, &guard).await <= TTL;
    eventually("renewed", BACK_WITHIN, is_renewed).await;
    let is_bounded = async || {
        let ends = key(&prefix, "greeter", "ends");
        let now: (u64, u64) = raw.ask(&["TIME"]).await;
        let most = (Duration::from_secs(now.0 + 1) + LONGEST_TTL).as_secs_f64() * 1000.0;
        let end: f64 = raw.ask(&["ZSCORE", &ends, &crashed_id]).await;
        end <= most
    };
    eventually("bounded", LONG, is_bounded).await;
    // Records are made in order, although the clock has been put back.
    let _later = owner.register(instance(3)).await.unwrap();
    let later: u64 = raw.ask(&["HGET", &state, "made"]).await;
    assert!(later > made + 71 * 3600 * 1_000_000, "{later} {made}");
    until(&mut seen, "all", is_live_with(3)).await;
    let events = told(&mut guard);
    assert!(events.is_empty(), "{events:?}");
}
