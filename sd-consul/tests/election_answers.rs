//! Elections when one answer is lost, or late, over a running Consul behind a proxy.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::election::{Booth, after, first, leads, name, ticket, waits};
use common::{LONG, Operator, server};
use sd_core::port::LeaderFeed;
use sd_core::{Elector, ErrorKind};
use sd_testing::{HttpProxy, HttpRequest, HttpRule, HttpState};
use serde_json::json;
use tokio::time::{Instant, timeout};

/// For how long a transaction is held: many times what a read takes, and less than a request may take.
const HELD: Duration = Duration::from_secs(1);
/// How long a leader that has given up the lock lets the next one go first.
const GIVES_WAY: Duration = Duration::from_millis(5);
/// How many successions are looked at, since the agent has a part in what is seen.
const ROUNDS: usize = 5;

async fn proxy() -> HttpProxy {
    let target = server().strip_prefix("http://").unwrap().parse().unwrap();
    HttpProxy::start(target).await.unwrap()
}

/// Returns when such a request waits for its answer.
async fn waiting(proxy: &HttpProxy, is_such: impl Fn(&HttpRequest) -> bool) {
    let waits = |request: &HttpRequest| request.state == HttpState::Waiting && is_such(request);
    let seen = proxy.seen(|requests| requests.iter().any(waits));
    timeout(LONG, seen).await.unwrap();
}

/// What observers are told.
async fn value(elector: &dyn Elector) -> String {
    let mut feed = elector.observe(&name()).await.unwrap();
    match timeout(LONG, feed.next()).await.unwrap().unwrap() {
        LeaderFeed::Leader {
            leader: Some(leader),
            ..
        } => String::from_utf8(leader.value.to_vec()).unwrap(),
        other => panic!("no leader: {other:?}"),
    }
}

/// A session that is lost is replaced by one of the same name, whose id is not known if the answer is lost.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn leaving_after_a_session_was_lost_ends_also_one_whose_making_was_not_answered() {
    let (proxy, operator) = (proxy().await, Operator::at(&server()));
    let booth = Booth::at(&proxy.url());
    let (elector, ticket) = (booth.elector(), ticket("a"));
    leads(&*elector.join(&ticket).await.unwrap()).await;
    let [lost] = &booth.sessions(&operator).await[..] else {
        panic!("one session");
    };
    let session = operator.get(&format!("/v1/session/info/{lost}")).await;
    operator.destroy_session(lost).await;

    let create = "/v1/session/create";
    let unanswered = HttpRule::new("PUT", create).answer(500, "rpc error making call: EOF");
    proxy.set_rules([unanswered.times(1)]);
    let error = elector.join(&ticket).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    // A server carried it out all the same.
    let made = json!({"Name": session[0]["Name"], "TTL": "300s", "LockDelay": "1s"});
    operator.put(create, &made.to_string()).await;
    assert_eq!(booth.sessions(&operator).await.len(), 1);
    elector.leave(&ticket).await.unwrap();
    assert!(booth.sessions(&operator).await.is_empty());
}

/// Whether the lock is written with the old value or the new one is open when the proclamation begins.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_value_that_is_proclaimed_while_the_lock_is_being_taken_is_what_observers_are_told() {
    let proxy = proxy().await;
    let near = Booth::at(&server());
    let far = Booth::again(&proxy.url(), &near.prefix);
    let (one, two) = (near.elector(), far.elector());
    let (a, b) = (ticket("a"), ticket("b"));
    let token = leads(&*one.join(&a).await.unwrap()).await;
    let next = two.join(&b).await.unwrap();
    let standing = waits(&*next).await;
    let proclaiming = async {
        waiting(&proxy, |request| request.query.contains("index=")).await;
        proxy.set_rules([HttpRule::new("PUT", "/v1/txn").delay(HELD).times(1)]);
        one.leave(&a).await.unwrap();
        waiting(&proxy, |request| request.path == "/v1/txn").await;
        next.proclaim(b"b, ready").await
    };
    let (told, proclaimed) = tokio::join!(
        timeout(LONG, next.standing(Some(&standing))),
        timeout(LONG, proclaiming)
    );
    proclaimed.unwrap().unwrap();
    let led = first(told.unwrap().unwrap()).0;
    assert!(led > token, "{led:?} {token:?}");
    assert_eq!(value(&*one).await, "b, ready");
    assert_eq!(leads(&*next).await, led);
    two.leave(&b).await.unwrap();
}

/// The agent holds a transaction, and the lock is still free when it has been given up and the value is proclaimed.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_lock_that_is_taken_after_it_was_given_up_gets_the_value_that_was_proclaimed_meanwhile() {
    let (proxy, operator) = (proxy().await, Operator::at(&server()));
    let near = Booth::at(&server());
    let far = Booth::again(&proxy.url(), &near.prefix);
    let (one, two) = (near.elector(), far.elector());
    let (a, b) = (ticket("a"), ticket("b"));
    one.join(&a).await.unwrap();
    let next = two.join(&b).await.unwrap();
    waits(&*next).await;
    one.leave(&a).await.unwrap();
    let unanswered = HttpRule::new("PUT", "/v1/txn").answer(500, "rpc error making call: EOF");
    proxy.set_rules([unanswered.times(1)]);
    let error = next.standing(None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    next.proclaim(b"b, ready").await.unwrap();

    // A server carries it out all the same.
    let [session] = &near.sessions(&operator).await[..] else {
        panic!("one session");
    };
    let taking = format!("/v1/kv/{}?acquire={session}", near.key());
    let lead = json!({"id": b.id.to_string(), "value": "b"});
    assert_eq!(operator.put(&taking, &lead.to_string()).await, true);
    let index = near.leader(&operator).await["ModifyIndex"].as_u64();
    let token = leads(&*next).await;
    assert_eq!(Some(token.value()), index);
    assert_eq!(value(&*one).await, "b, ready");
    // The term goes on though its key was written again.
    next.proclaim(b"b, busy").await.unwrap();
    assert_eq!(value(&*one).await, "b, busy");
    assert_eq!(leads(&*next).await, token);
    two.leave(&b).await.unwrap();
}

/// The servers carry out one thing after the other, and the next leader should not wait until a session has ended.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_leader_that_leaves_lets_the_next_one_take_the_lock_before_its_session_ends() {
    let mut in_order = 0;
    for _ in 0..ROUNDS {
        let (paused, taken_first) = succession().await;
        assert!(paused >= GIVES_WAY, "{paused:?}");
        in_order += usize::from(taken_first);
    }
    // How soon the next one is told is up to the agent.
    assert!(in_order > ROUNDS / 2, "{in_order} of {ROUNDS}");
}

/// A leader leaves while another candidate waits. Returns how long it waits between giving up the lock and ending its session, and
/// whether the other one asked for the lock before that.
async fn succession() -> (Duration, bool) {
    let proxy = proxy().await;
    let booth = Booth::at(&proxy.url());
    let (one, two) = (booth.elector(), booth.elector());
    let (a, b) = (ticket("a"), ticket("b"));
    leads(&*one.join(&a).await.unwrap()).await;
    let next = two.join(&b).await.unwrap();
    let standing = waits(&*next).await;
    let leaving = async {
        waiting(&proxy, |request| request.query.contains("index=")).await;
        one.leave(&a).await.unwrap();
    };
    let released = async {
        let seen = proxy.seen(|requests| requests.iter().any(is_released));
        timeout(LONG, seen).await.unwrap();
        Instant::now()
    };
    let ended = async {
        let seen = proxy.seen(|requests| requests.iter().any(is_end));
        timeout(LONG, seen).await.unwrap();
        Instant::now()
    };
    let (told, released, ended, ()) =
        tokio::join!(after(&*next, &standing), released, ended, leaving);
    first(told);
    let requests = proxy.requests();
    let taken = requests
        .iter()
        .rposition(|request| request.path == "/v1/txn");
    let taken_first = taken < requests.iter().position(is_end);
    two.leave(&b).await.unwrap();
    (ended - released, taken_first)
}

/// A lock was given up.
fn is_released(request: &HttpRequest) -> bool {
    request.query.contains("release=") && request.state == HttpState::Answered(200)
}

/// A session is to end.
fn is_end(request: &HttpRequest) -> bool {
    request.path.starts_with("/v1/session/destroy/")
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_candidate_that_never_led_leaves_with_one_release_and_no_session() {
    let (proxy, operator) = (proxy().await, Operator::at(&server()));
    let near = Booth::at(&server());
    let far = Booth::again(&proxy.url(), &near.prefix);
    let (one, two) = (near.elector(), far.elector());
    let (a, b) = (ticket("a"), ticket("b"));
    leads(&*one.join(&a).await.unwrap()).await;
    let leader = near.sessions(&operator).await;
    waits(&*two.join(&b).await.unwrap()).await;
    assert_eq!(near.sessions(&operator).await.len(), 2);
    two.leave(&b).await.unwrap();
    let releases = proxy.requests().into_iter();
    let releases = releases.filter(|request| request.query.contains("release="));
    let states: Vec<_> = releases.map(|request| request.state).collect();
    assert_eq!(states, [HttpState::Answered(200)]);
    assert_eq!(near.sessions(&operator).await, leader);
    one.leave(&a).await.unwrap();
}
