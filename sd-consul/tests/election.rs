//! Elections over a running Consul, beyond what every backend must do: what is stored, other programs' locks, guarded writes, what is
//! promised.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::election::{
    Booth, SESSION_TTL, after, first, gone, leader_told, leads, name, now, prefix, ticket,
    ticket_for, waits,
};
use common::{Operator, server};
use reqwest::Method;
use sd_consul::DEFAULT_LOCK_DELAY;
use sd_core::port::{Predecessor, Standing};
use sd_core::{Backend, ErrorKind, FencingToken};
use sd_testing::faults;
use serde_json::json;
use tokio::time::{Instant, timeout};

fn default_lock_delay(config: sd_consul::ConsulConfig) -> sd_consul::ConsulConfig {
    config.with_lock_delay(DEFAULT_LOCK_DELAY)
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_leader_that_resigns_is_replaced_at_once_whatever_the_lock_delay() {
    let booth = Booth::with(&server(), &prefix(), default_lock_delay);
    let (one, two) = (booth.elector(), booth.elector());
    let (a, b) = (ticket("a"), ticket("b"));
    let leader = one.join(&a).await.unwrap();
    let token = leads(&*leader).await;
    let waiter = two.join(&b).await.unwrap();
    let waiting = waits(&*waiter).await;
    let next = waiter.standing(Some(&waiting));
    tokio::pin!(next);
    let early = timeout(Duration::from_millis(300), &mut next).await;
    assert!(early.is_err(), "{early:?}");
    let since = Instant::now();
    let (left, told) = tokio::join!(one.leave(&a), next);
    left.unwrap();
    assert!(first(told.unwrap()).0 > token);
    assert!(
        since.elapsed() < Duration::from_secs(2),
        "{:?}",
        since.elapsed()
    );
    two.leave(&b).await.unwrap();
    // Nor is a later candidate kept waiting.
    let late = one.join(&ticket("late")).await.unwrap();
    leads(&*late).await;
}

/// A token is the index at which the lock was taken, whatever is written to the key later.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn the_token_is_the_index_of_the_first_lock_and_stays_when_the_value_is_replaced() {
    let (booth, operator) = (Booth::at(&server()), Operator::at(&server()));
    let elector = booth.elector();
    let ticket = ticket("host-7");
    let entry = elector.join(&ticket).await.unwrap();
    let token = leads(&*entry).await;
    let stored = booth.leader(&operator).await;
    assert_eq!(stored["ModifyIndex"], token.value());
    let text = STANDARD.decode(stored["Value"].as_str().unwrap()).unwrap();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        format!(r#"{{"id":"{}","value":"host-7"}}"#, ticket.id)
    );

    entry.proclaim(b"host-7, busy").await.unwrap();
    let stored = booth.leader(&operator).await;
    assert!(stored["ModifyIndex"].as_u64().unwrap() > token.value());
    assert_eq!(stored["LockIndex"], 1);
    assert_eq!(leads(&*entry).await, token);
    // Also for one that does not remember it.
    let again = elector.join(&ticket).await.unwrap();
    assert_eq!(leads(&*again).await, token);
    // A lost leader's value does not lend its token to the next.
    let [session] = &booth.sessions(&operator).await[..] else {
        panic!("one session");
    };
    operator.destroy_session(session).await;
    gone(now(&*entry).await);
    elector.leave(&ticket).await.unwrap();
    let next = elector
        .join(&common::election::ticket("next"))
        .await
        .unwrap();
    let first_try = now(&*next).await;
    let next_token = match first_try {
        Standing::First { token, .. } => token,
        // The lock-delay after the loss.
        waiting => first(after(&*next, &waiting).await).0,
    };
    assert!(next_token > token, "{next_token:?} {token:?}");
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn no_candidate_leads_before_the_lock_delay_after_a_leader_was_lost() {
    let operator = Operator::at(&server());
    let booth = Booth::with(&server(), &prefix(), |config| {
        config.with_lock_delay(Duration::from_secs(3))
    });
    let (one, two) = (booth.elector(), booth.elector());
    let leader = one.join(&ticket("a")).await.unwrap();
    leads(&*leader).await;
    let [session] = &booth.sessions(&operator).await[..] else {
        panic!("one session");
    };
    let b = ticket("b");
    let waiter = two.join(&b).await.unwrap();
    let waiting = waits(&*waiter).await;
    let since = Instant::now();
    let (standing, ()) = tokio::join!(after(&*waiter, &waiting), operator.destroy_session(session));
    first(standing);
    let took = since.elapsed();
    assert!(
        took >= Duration::from_secs(3) && took < Duration::from_secs(8),
        "{took:?}"
    );
    // The one that was lost says so at once.
    let error = gone(now(&*leader).await);
    assert_eq!(error.kind(), ErrorKind::Conflict);
    two.leave(&b).await.unwrap();
}

async fn transact(operator: &Operator, steps: &serde_json::Value) -> u16 {
    operator
        .ask(Method::PUT, "/v1/txn", &steps.to_string())
        .await
        .0
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_guarded_write_succeeds_while_the_term_lasts_and_never_after() {
    let (booth, operator) = (Booth::at(&server()), Operator::at(&server()));
    let elector = booth.elector();
    let (a, b) = (ticket("a"), ticket("b"));
    let leader = elector.join(&a).await.unwrap();
    let stale = leads(&*leader).await;
    let next = elector.join(&b).await.unwrap();
    let target = format!("{}-target", booth.prefix);
    let write = json!({"KV": {"Verb": "set", "Key": target, "Value": "eA=="}});
    let registry = booth.registry();
    let condition =
        async |id, token: &FencingToken| sd_consul::leads(&registry, &name(), id, token).await;
    let while_a = condition(a.id, &stale).await.unwrap();
    assert_eq!(
        (while_a.key(), while_a.session().len()),
        (&*booth.key(), 36)
    );
    assert_eq!(transact(&operator, &json!([while_a, write])).await, 200);
    leader.proclaim(b"still the same term").await.unwrap();
    assert_eq!(transact(&operator, &json!([while_a, write])).await, 200);
    assert_eq!(condition(a.id, &stale).await.unwrap(), while_a);

    elector.leave(&a).await.unwrap();
    let current = leads(&*next).await;
    assert_eq!(transact(&operator, &json!([while_a, write])).await, 409);
    let while_b = condition(b.id, &current).await.unwrap();
    assert_eq!(transact(&operator, &json!([while_b, write])).await, 200);
    for (id, token) in [(a.id, &stale), (a.id, &current), (b.id, &stale)] {
        let over = condition(id, token).await.unwrap_err();
        assert_eq!(over.kind(), ErrorKind::Conflict);
    }
    elector.leave(&b).await.unwrap();
    assert_eq!(transact(&operator, &json!([while_b, write])).await, 409);
}

/// Consul's own clients take such a lock with a value of their own.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn other_programs_locks_are_waited_for_and_told_to_observers() {
    let (booth, operator) = (Booth::at(&server()), Operator::at(&server()));
    let elector = booth.elector();
    let mut feed = elector.observe(&name()).await.unwrap();
    assert_eq!(leader_told(feed.as_mut()).await, None);
    let session = operator
        .put("/v1/session/create", r#"{"TTL":"300s","NodeChecks":[]}"#)
        .await;
    let session = session["ID"].as_str().unwrap();
    let key = booth.key();
    assert_eq!(
        operator
            .put(&format!("/v1/kv/{key}?acquire={session}"), "go")
            .await,
        true
    );
    let leader = leader_told(feed.as_mut()).await.unwrap();
    assert_eq!((leader.id, &*leader.value), (None, &b"go"[..]));
    let ours = ticket("ours");
    let entry = elector.join(&ours).await.unwrap();
    let waiting = waits(&*entry).await;
    let release = format!("/v1/kv/{key}?release={session}");
    let (standing, released) = tokio::join!(after(&*entry, &waiting), operator.put(&release, "go"));
    assert_eq!(released, true);
    let token = first(standing).0;
    let leader = loop {
        // A moment without a leader may be told, or not.
        if let Some(leader) = leader_told(feed.as_mut()).await {
            break leader;
        }
    };
    assert_eq!((leader.id, leader.token), (Some(ours.id), token));
    elector.leave(&ours).await.unwrap();
    assert_eq!(leader_told(feed.as_mut()).await, None);
    operator.destroy_session(session).await;
}

/// Consul does not report that a key was deleted under its lock, and lets the next one take it.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_key_that_an_operator_deletes_ends_the_term_at_once() {
    let (booth, operator) = (Booth::at(&server()), Operator::at(&server()));
    let elector = booth.elector();
    let a = ticket("a");
    let leader = elector.join(&a).await.unwrap();
    let leading = now(&*leader).await;
    let delete = format!("/v1/kv/{}", booth.key());
    let since = Instant::now();
    let (standing, _) = tokio::join!(
        after(&*leader, &leading),
        operator.ask(Method::DELETE, &delete, "")
    );
    let error = gone(standing);
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report());
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(
        leader.confirm().await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    // The next one has a greater token, though its lock is the first of a new key.
    let next = elector.join(&ticket("b")).await.unwrap();
    assert!(leads(&*next).await > first(leading).0);
    assert_eq!(booth.leader(&operator).await["LockIndex"], 1);
    gone(now(&*leader).await);
    elector.leave(&a).await.unwrap();
    leads(&*next).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_released_lock_ends_the_term_though_the_session_lives() {
    let (booth, operator) = (Booth::at(&server()), Operator::at(&server()));
    let elector = booth.elector();
    let a = ticket("a");
    let leader = elector.join(&a).await.unwrap();
    leads(&*leader).await;
    let session = booth.leader(&operator).await["Session"]
        .as_str()
        .unwrap()
        .to_owned();
    let release = format!("/v1/kv/{}?release={session}", booth.key());
    operator.put(&release, "").await;
    assert_eq!(
        leader.confirm().await.unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
    gone(now(&*leader).await);
    // Its own session does not make it lead again.
    assert!(booth.leader(&operator).await["Session"].is_null());
    elector.leave(&a).await.unwrap();
    assert!(booth.sessions(&operator).await.is_empty());
}

/// Consul ends a session after twice its time-to-live.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_leader_that_stopped_says_so_also_after_its_session_has_ended() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let a = ticket_for("a", SESSION_TTL).with_term_record();
    let leader = elector.join(&a).await.unwrap();
    let leading = now(&*leader).await;
    let since = Instant::now();
    gone(after(&*leader, &leading).await);
    let lived = since.elapsed();
    assert!(lived >= SESSION_TTL && lived < SESSION_TTL * 3, "{lived:?}");
    elector.leave(&a).await.unwrap();
    let b = ticket("b").with_term_record();
    let next = elector.join(&b).await.unwrap();
    let standing = match now(&*next).await {
        Standing::Waiting { ahead } => after(&*next, &Standing::Waiting { ahead }).await,
        standing => standing,
    };
    assert_eq!(first(standing).1, Predecessor::Resigned);
    // What this one leaves behind is its own term, not that of another participation with its id.
    elector.leave(&a).await.unwrap();
    next.confirm().await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_ttl_that_consul_would_refuse_is_refused_before_it_is_sent() {
    let (booth, operator) = (Booth::at(&server()), Operator::at(&server()));
    let elector = booth.elector();
    let short = ticket_for("a", Duration::from_secs(9));
    let refused = elector.join(&short).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(
        refused.report().to_string().contains("10s"),
        "{}",
        refused.report()
    );
    assert!(booth.sessions(&operator).await.is_empty());
    // And what we take, Consul takes.
    let long = ticket_for("a", Duration::from_secs(24 * 3600));
    elector.join(&long).await.unwrap();
    elector.leave(&long).await.unwrap();
}

#[test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
fn an_election_goes_on_while_the_application_is_blocked() {
    let backend = Booth::at(&server()).backend;
    faults::an_election_goes_on_while_the_application_is_blocked(&(backend as Arc<dyn Backend>));
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_elector_outlives_the_runtime_that_it_was_first_used_on() {
    let backend: Arc<dyn Backend> = Booth::at(&server()).backend;
    let failed = faults::an_elector_outlives_the_runtime_that_it_was_first_used_on(&backend).await;
    // What a candidate sends first is a read, which is safe to send twice.
    assert!(!failed);
}
