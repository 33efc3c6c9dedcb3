//! Elections when one answer is lost, or late, over a running Consul behind a proxy.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::election::{Booth, first, leads, name, ticket, waits};
use common::{LONG, Operator, server};
use sd_core::testing::{HttpProxy, HttpRequest, HttpRule, HttpState};
use sd_core::{Elector, ErrorKind, LeaderFeed};
use serde_json::json;
use tokio::time::timeout;

/// For how long a transaction is held: many times what a read takes, and less than a request may take.
const HELD: Duration = Duration::from_secs(1);

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
        other => panic!("nobody leads: {other:?}"),
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
