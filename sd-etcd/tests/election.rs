//! Elections over a running etcd, beyond what every backend must do: other programs' entries, guarded writes, what is promised.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::election::{Booth, after, first, gone, leader_told, leads, name, now, ticket, waits};
use common::{LONG, prefix, raw, server};
use etcd_client::{Client, Compare, PutOptions, Txn, TxnOp};
use sd_core::memory::Memory;
use sd_core::port::CandidateId;
use sd_core::{Backend, ErrorKind, FencingToken, Instancer};
use sd_etcd::{EtcdBackend, EtcdConfig};
use sd_testing::{Fault, TcpProxy, faults, required_env};
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn the_first_to_join_leads_and_the_next_follows_when_it_leaves() {
    let booth = Booth::at(&server());
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
    one.leave(&a).await.unwrap();
    let later = first(timeout(LONG, next).await.unwrap().unwrap()).0;
    assert!(later > token, "{later:?} {token:?}");
    let confirmed = waiter.confirm().await.unwrap();
    assert_eq!(confirmed.ttl, b.ttl);
    two.leave(&b).await.unwrap();
}

/// Its key is the same, and it is there when those behind it look.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn who_leaves_and_joins_again_is_behind_those_who_waited_behind_it() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let tickets = ["a", "b", "c"].map(ticket);
    let [a, b, c] = &tickets;
    leads(&*elector.join(a).await.unwrap()).await;
    let middle = elector.join(b).await.unwrap();
    let last = elector.join(c).await.unwrap();
    let waiting = waits(&*last).await;
    elector.leave(b).await.unwrap();
    gone(now(&*middle).await);
    let middle = elector.join(b).await.unwrap();
    let told = async {
        let standing = after(&*last, &waiting).await;
        first(standing)
    };
    let leaving = async {
        // Until it waits for events.
        sleep(Duration::from_millis(300)).await;
        elector.leave(a).await.unwrap();
    };
    tokio::join!(told, leaving);
    waits(&*middle).await;
    elector.leave(c).await.unwrap();
    leads(&*middle).await;
    elector.leave(b).await.unwrap();
}

async fn write(client: &mut Client, key: &str, condition: Compare) -> bool {
    let txn = Txn::new()
        .when([condition])
        .and_then([TxnOp::put(key, "written", None)]);
    client.txn(txn).await.unwrap().succeeded()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_guarded_write_succeeds_while_the_term_lasts_and_never_after() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let mut client = raw(&server()).await;
    let target = format!("{}-target", booth.prefix);
    let (a, b) = (ticket("a"), ticket("b"));
    let leader = elector.join(&a).await.unwrap();
    let stale = leads(&*leader).await;
    let next = elector.join(&b).await.unwrap();
    let registry = booth.registry();
    let condition = async |id, token: &FencingToken| {
        let leads = sd_etcd::leads(&registry, &name(), id, token).await;
        leads.unwrap()
    };
    let while_a = condition(a.id, &stale).await;
    assert!(write(&mut client, &target, while_a.clone()).await);
    leader.proclaim(b"still the same term").await.unwrap();
    assert!(write(&mut client, &target, while_a.clone()).await);

    elector.leave(&a).await.unwrap();
    let current = leads(&*next).await;
    assert!(!write(&mut client, &target, while_a.clone()).await);
    let while_b = condition(b.id, &current).await;
    assert!(write(&mut client, &target, while_b.clone()).await);
    // The same candidate in another term.
    elector.join(&a).await.unwrap();
    assert!(!write(&mut client, &target, while_a.clone()).await);
    elector.leave(&a).await.unwrap();
    // What is no token of a term, for a key that is not there.
    for value in [0, u64::MAX] {
        let none = FencingToken::new(current.domain(), value);
        let never = condition(a.id, &none).await;
        assert!(!write(&mut client, &target, never).await);
    }
    elector.leave(&b).await.unwrap();
    assert!(!write(&mut client, &target, while_b).await);
}

#[tokio::test]
async fn a_registry_over_something_else_guards_no_write() {
    let (registry, token) = (Memory::new().connect(), FencingToken::new("a", 1));
    let guarded = sd_etcd::leads(&registry, &name(), ticket("a").id, &token).await;
    let error = guarded.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(
        error.report().to_string().contains("over memory"),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_token_is_the_create_revision_in_the_cluster_that_its_domain_names() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let ticket = ticket("a");
    let token = leads(&*elector.join(&ticket).await.unwrap()).await;
    let mut client = raw(&server()).await;
    let key = format!("{}/{}/.entries/{}", booth.prefix, name(), ticket.id);
    let found = client.get(key, None).await.unwrap();
    let created = found.kvs()[0].create_revision();
    assert_eq!(token.value(), created.cast_unsigned());
    let cluster = found.header().unwrap().cluster_id();
    assert_eq!(token.domain(), format!("{cluster:016x}"));
    elector.leave(&ticket).await.unwrap();
}

/// Go's `concurrency.Election` writes the id of its lease without leading zeros; others may write anything.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn other_programs_candidates_queue_with_ours_and_are_told_to_observers() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let mut client = raw(&server()).await;
    let mut feed = elector.observe(&name()).await.unwrap();
    assert_eq!(leader_told(feed.as_mut()).await, None);

    let lease = client.lease_grant(60, None).await.unwrap().id();
    let go = format!("{}/{}/.entries/{lease:x}", booth.prefix, name());
    let odd = format!("{}/{}/.entries/host-7", booth.prefix, name());
    let attached = PutOptions::new().with_lease(lease);
    client.put(&*go, "go", Some(attached)).await.unwrap();
    let leader = leader_told(feed.as_mut()).await.unwrap();
    assert_eq!(leader.id, CandidateId::from_u64(lease.cast_unsigned()));
    assert_eq!(&*leader.value, b"go");

    client.put(&*odd, "odd", None).await.unwrap();
    let ours = ticket("ours");
    let entry = elector.join(&ours).await.unwrap();
    let waiting = waits(&*entry).await;
    client.lease_revoke(lease).await.unwrap();
    let leader = leader_told(feed.as_mut()).await.unwrap();
    assert_eq!((leader.id, &*leader.value), (None, &b"odd"[..]));
    client.delete(odd, None).await.unwrap();
    let (token, _) = first(after(&*entry, &waiting).await);
    let leader = leader_told(feed.as_mut()).await.unwrap();
    assert_eq!((leader.id, leader.token), (Some(ours.id), token));
    elector.leave(&ours).await.unwrap();
    assert_eq!(leader_told(feed.as_mut()).await, None);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn what_an_operator_puts_over_an_entry_ends_it() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let mut client = raw(&server()).await;
    let ticket = ticket("a");
    let entry = elector.join(&ticket).await.unwrap();
    leads(&*entry).await;
    let key = format!("{}/{}/.entries/{}", booth.prefix, name(), ticket.id);
    // On no lease, so it would stay for ever.
    client.put(&*key, "other", None).await.unwrap();
    let confirmed = entry.confirm().await.unwrap_err();
    assert_eq!(confirmed.kind(), ErrorKind::Conflict);
    let proclaimed = entry.proclaim(b"mine").await.unwrap_err();
    assert_eq!(proclaimed.kind(), ErrorKind::Conflict);
    let joined = elector.join(&ticket).await.unwrap_err();
    assert_eq!(joined.kind(), ErrorKind::Conflict);
    elector.leave(&ticket).await.unwrap();
    // It is not ours to delete.
    assert_eq!(client.get(&*key, None).await.unwrap().count(), 1);
    client.delete(key, None).await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn servers_with_flaws_that_matter_are_warned_of() {
    let safety = Booth::at(&server()).elector().safety().await.unwrap();
    let codes: Vec<_> = safety.warnings().map(|note| note.code).collect();
    if required_env("SD_TEST_ETCD_VERSION").unwrap() == "3.4.23" {
        let known = [
            "lease-revoked-by-stuck-leader",
            "lease-renewed-after-revoke",
        ];
        assert_eq!(codes, known);
    } else {
        assert_eq!(codes, [""; 0]);
    }
    assert!(safety.fair && safety.notes.len() == codes.len());
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_member_that_tells_no_version_is_named_and_delays_nothing() {
    let url = server();
    let proxy = TcpProxy::start(url.trim_start_matches("http://").parse().unwrap());
    let proxy = proxy.await.unwrap();
    proxy.set(Fault::BlackHole);
    let silent = format!("http://{}", proxy.address());
    let config = EtcdConfig::new([url, silent.clone()]).with_election_prefix(prefix());
    let backend = Arc::new(EtcdBackend::new(config).unwrap());
    let elector = Backend::elector(backend).unwrap().into_any();
    let since = Instant::now();
    let safety = elector.safety().await.unwrap();
    let took = since.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let [.., note] = &safety.notes[..] else {
        panic!("{safety:?}")
    };
    assert!(note.code == "version-unknown" && !note.warning);
    assert!(note.text.contains(&silent), "{}", note.text);
}

#[test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
fn an_election_goes_on_while_the_application_is_blocked() {
    let backend = Booth::at(&server()).backend;
    faults::an_election_goes_on_while_the_application_is_blocked(&(backend as Arc<dyn Backend>));
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_elector_outlives_the_runtime_that_it_was_first_used_on() {
    let backend = Booth::at(&server()).backend;
    faults::an_elector_outlives_the_runtime_that_it_was_first_used_on(
        &(backend as Arc<dyn Backend>),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn elections_and_services_do_not_see_each_other() {
    let prefix = prefix();
    let booth = Booth::again(&server(), &prefix);
    let elector = booth.elector();
    let ticket = ticket("a");
    elector.join(&ticket).await.unwrap();
    assert_eq!(booth.backend.services().await.unwrap(), []);
    elector.leave(&ticket).await.unwrap();
}
