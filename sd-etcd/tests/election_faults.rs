//! Elections when answers are lost, connections die, servers restart and operators interfere, over a real etcd.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::election::{
    Booth, after, first, gone, leader_told, leads, name, now, ticket, ticket_for, told_at_last,
    waits,
};
use common::faults::OwnServer;
use common::{
    LONG, entries, eventually, keys, leases, own_server, own_server_behind_proxy, raw, revision,
};
use etcd_client::{Client, KeyValue, Txn, TxnOp};
use sd_core::port::{Predecessor, Ticket};
use sd_core::{Elector, ErrorKind};
use sd_testing::{Fault, ServerProcess, TcpProxy, faults};
use server_programs::{Etcd, LocalServer};
use tokio::time::{Instant, sleep, timeout};

/// So that nothing expires while a test runs.
const LASTING: Duration = Duration::from_secs(5 * 60);
/// How much later everything arrives, so that there is time to cut the line between a request and its answer.
const LATE: Duration = Duration::from_millis(300);
/// How soon a candidate whose line is dead must know it: the ping interval, its time-out, and slack for a busy machine.
const KNOWN_WITHIN: Duration = Duration::from_secs(12);

/// Two ways to one server: `far` goes through a proxy.
struct Scene {
    _server: ServerProcess<Etcd>,
    proxy: TcpProxy,
    near: Booth,
    far: Booth,
    raw: Client,
}

impl Scene {
    async fn new() -> Self {
        let (server, proxy, far) = own_server_behind_proxy().await;
        let near = Booth::at(&server.program().url());
        Self {
            far: Booth::again(&far, &near.prefix),
            raw: raw(&server.program().url()).await,
            near,
            _server: server,
            proxy,
        }
    }

    async fn entries(&self) -> Vec<(String, i64)> {
        let found = entries(&mut self.raw.clone(), &self.near.prefix).await;
        let entry =
            |kv: &etcd_client::KeyValue| (kv.key_str().unwrap().to_owned(), kv.create_revision());
        found.iter().map(entry).collect()
    }

    /// Cuts the line as soon as the server has done what is asked for, before its answer arrives.
    async fn cut_when<F: Future<Output = bool>>(&self, what: &str, done: impl FnMut() -> F) {
        eventually(what, LONG, done).await;
        self.proxy.set(Fault::Cut);
    }
}

#[derive(Clone, Copy, Debug)]
enum Lost {
    Grant,
    Put,
}

/// A join of which the server did everything up to a step, and whose answer to that step was lost.
async fn join_and_lose(scene: &Scene, elector: &dyn Elector, ticket: &Ticket, lost: Lost) {
    // Connected before everything is late.
    elector.safety().await.unwrap();
    let (leases_before, entries_before) = (
        leases(&mut scene.raw.clone()).await,
        scene.entries().await.len(),
    );
    scene.proxy.set(Fault::Delay(LATE));
    let cutting = scene.cut_when("done", async || match lost {
        Lost::Grant => leases(&mut scene.raw.clone()).await > leases_before,
        Lost::Put => scene.entries().await.len() > entries_before,
    });
    let (joined, ()) = tokio::join!(elector.join(ticket), cutting);
    let error = joined.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    scene.proxy.set(Fault::Pass);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_join_whose_answer_was_lost_is_joined_again_as_one_entry() {
    for lost in [Lost::Grant, Lost::Put] {
        let scene = Scene::new().await;
        let (elector, ticket) = (scene.far.elector(), ticket_for("a", LASTING));
        join_and_lose(&scene, &*elector, &ticket, lost).await;
        let before = scene.entries().await;
        let entry = elector.join(&ticket).await.unwrap();
        let token = leads(&*entry).await;
        let entries = scene.entries().await;
        assert_eq!(
            (entries.len(), leases(&mut scene.raw.clone()).await),
            (1, 1)
        );
        assert_eq!(entries[0].1.cast_unsigned(), token.value());
        if let Lost::Put = lost {
            assert_eq!(entries, before);
        }
        entry.confirm().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn leaving_after_a_join_whose_answer_was_lost_leaves_nothing() {
    for lost in [Lost::Grant, Lost::Put] {
        let scene = Scene::new().await;
        let (elector, ticket) = (scene.far.elector(), ticket_for("a", LASTING));
        join_and_lose(&scene, &*elector, &ticket, lost).await;
        elector.leave(&ticket).await.unwrap();
        assert_eq!(scene.entries().await, []);
        assert_eq!(leases(&mut scene.raw.clone()).await, 0);
    }
}

/// A lease of the other one's choosing could not tell the two apart.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_second_candidate_with_one_id_is_refused_also_when_its_answers_were_lost() {
    let scene = Scene::new().await;
    let ticket = ticket_for("a", LASTING);
    let holder = scene.near.elector();
    let entry = holder.join(&ticket).await.unwrap();
    let token = leads(&*entry).await;

    let second = scene.far.elector();
    let lost = Lost::Grant;
    join_and_lose(&scene, &*second, &ticket, lost).await;
    for _ in 0..2 {
        let refused = second.join(&ticket).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
    }
    second.leave(&ticket).await.unwrap();
    entry.confirm().await.unwrap();
    assert_eq!(leads(&*entry).await, token);
    // Nothing of the second one is left, either.
    assert_eq!(leases(&mut scene.raw.clone()).await, 1);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn killed_and_restarted_the_server_still_has_the_queue() {
    faults::killed_and_restarted_the_server_still_has_the_candidates(OwnServer::start().await)
        .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn restarted_without_its_data_the_server_has_no_candidate() {
    faults::restarted_without_its_data_the_server_has_no_candidate(OwnServer::start().await).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_candidate_that_was_cut_off_sees_what_happened_meanwhile() {
    faults::a_candidate_that_was_cut_off_sees_what_happened_meanwhile(OwnServer::start().await)
        .await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_candidate_in_a_black_hole_knows_it_by_itself() {
    let scene = Scene::new().await;
    let far = scene.far.elector();
    let ticket = ticket_for("a", LASTING);
    let entry = far.join(&ticket).await.unwrap();
    let leading = now(&*entry).await;
    let early = timeout(Duration::from_millis(300), entry.standing(Some(&leading))).await;
    assert!(early.is_err(), "{early:?}");
    scene.proxy.set(Fault::BlackHole);
    let told = timeout(KNOWN_WITHIN, entry.standing(Some(&leading))).await;
    let error = told.unwrap().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout),
        "{error:?}"
    );
}

/// The caller's limit on a confirmation is shorter than the pings', and the vigil does not outlive the connection.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_confirmation_without_an_answer_also_ends_the_wait_on_that_connection() {
    let scene = Scene::new().await;
    let (near, far) = (scene.near.elector(), scene.far.elector());
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    near.join(&a).await.unwrap();
    let next = far.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    let opened = scene.proxy.counts().accepted;
    let confirming = async {
        let limit = Duration::from_millis(500);
        let early = timeout(limit, std::future::pending::<()>()).await;
        assert!(early.is_err());
        scene.proxy.set(Fault::BlackHole);
        // No candidate leaves until the line is known to be dead: what is told then comes over another one.
        let confirmed = timeout(limit, next.confirm()).await;
        assert!(confirmed.is_err(), "{confirmed:?}");
        let since = Instant::now();
        scene.proxy.counted(|counts| counts.accepted > opened).await;
        let took = since.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        near.leave(&a).await.unwrap();
        scene.proxy.set(Fault::Pass);
    };
    let (standing, ()) = tokio::join!(told_at_last(&*next, &waiting), confirming);
    first(standing);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn compaction_hides_no_handover_from_those_who_wait_or_observe() {
    let mut scene = Scene::new().await;
    let elector = scene.far.elector();
    let tickets = ["a", "b", "c"].map(|value| ticket_for(value, LASTING));
    let [a, b, c] = &tickets;
    let leader = elector.join(a).await.unwrap();
    let next = elector.join(b).await.unwrap();
    let last = elector.join(c).await.unwrap();
    let token = leads(&*leader).await;
    let (waiting, waiting_last) = (waits(&*next).await, waits(&*last).await);
    let mut feed = elector.observe(&name()).await.unwrap();
    let leader = leader_told(feed.as_mut()).await.unwrap();
    assert_eq!(leader.token, token);

    // While they watch.
    let now = revision(&mut scene.raw).await;
    scene.raw.compact(now, None).await.unwrap();
    elector.leave(a).await.unwrap();
    let second = first(after(&*next, &waiting).await).0;
    let leader = leader_told(feed.as_mut()).await.unwrap();
    assert_eq!(leader.token, second);

    // While they are cut off.
    scene.proxy.set(Fault::Cut);
    let ended = timeout(LONG, async { while feed.next().await.is_ok() {} }).await;
    assert!(ended.is_ok());
    let key = format!("{}/{}/.entries/{}", scene.near.prefix, name(), b.id);
    scene.raw.delete(key, None).await.unwrap();
    let now = revision(&mut scene.raw).await;
    scene.raw.compact(now, None).await.unwrap();
    scene.proxy.set(Fault::Pass);
    let third = first(told_at_last(&*last, &waiting_last).await).0;
    assert!(third > second);
    let mut feed = elector.observe(&name()).await.unwrap();
    let leader = leader_told(feed.as_mut()).await.unwrap();
    assert_eq!(leader.token, third);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn what_was_before_a_term_is_told_right_when_the_answer_to_its_record_was_lost() {
    let scene = Scene::new().await;
    let elector = scene.far.elector();
    let term = format!("{}/{}/.term", scene.near.prefix, name());
    let modified = async || {
        let found = scene.raw.clone().get(&*term, None).await.unwrap();
        found.kvs().first().map_or(0, KeyValue::mod_revision)
    };
    // The one before had another time-to-live, and did not resign.
    let before = ticket_for("before", LASTING * 2).with_term_record();
    let near = scene.near.elector();
    leads(&*near.join(&before).await.unwrap()).await;
    let key = format!("{}/{}/.entries/{}", scene.near.prefix, name(), before.id);
    scene.raw.clone().delete(key, None).await.unwrap();

    let ticket = ticket_for("a", LASTING).with_term_record();
    let entry = elector.join(&ticket).await.unwrap();
    let written = modified().await;
    scene.proxy.set(Fault::Delay(LATE));
    let cutting = scene.cut_when("recorded", async || modified().await > written);
    let (told, ()) = tokio::join!(entry.standing(None), cutting);
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Unavailable);
    scene.proxy.set(Fault::Pass);
    let written = modified().await;
    let expected = Predecessor::Unknown { ttl: LASTING * 2 };
    assert_eq!(first(now(&*entry).await).1, expected);
    // And it was written once.
    assert_eq!(modified().await, written);

    // Found again without the memory of the first attempt.
    let again = elector.join(&ticket).await.unwrap();
    assert_eq!(first(now(&*again).await).1, expected);
    elector.leave(&ticket).await.unwrap();
    let next = ticket_for("next", LASTING).with_term_record();
    let next = near.join(&next).await.unwrap();
    assert_eq!(first(now(&*next).await).1, Predecessor::Resigned);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_leader_that_stopped_says_so_also_after_its_lease_has_ended() {
    let scene = Scene::new().await;
    let elector = scene.near.elector();
    let ticket = ticket("a").with_term_record();
    leads(&*elector.join(&ticket).await.unwrap()).await;
    eventually("expired", LONG, async || {
        let entries = format!("{}/{}/.entries", scene.near.prefix, name());
        keys(&mut scene.raw.clone(), &entries).await.is_empty()
    })
    .await;
    elector.leave(&ticket).await.unwrap();
    let next = ticket_for("next", LASTING).with_term_record();
    let next = elector.join(&next).await.unwrap();
    assert_eq!(first(now(&*next).await).1, Predecessor::Resigned);
    // What this one leaves behind is its own term, not that of another participation with its id.
    elector.leave(&ticket).await.unwrap();
    next.confirm().await.unwrap();
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_closed_backend_lets_go_of_the_connections_of_its_electors() {
    faults::a_closed_backend_lets_go_of_the_connections_of_its_electors(OwnServer::start().await)
        .await;
}

/// What is told of the leader's entry says nothing of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn an_entry_that_is_deleted_with_the_leaders_or_just_before_it_never_leads() {
    const ROUNDS: usize = 30;
    let server = own_server().await;
    let booth = Booth::at(&server.program().url());
    let operator = raw(&server.program().url()).await;
    for round in 0..ROUNDS {
        let (one, two) = (booth.elector(), booth.elector());
        let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
        leads(&*one.join(&a).await.unwrap()).await;
        let next = two.join(&b).await.unwrap();
        let waiting = waits(&*next).await;
        let told = after(&*next, &waiting);
        let of =
            |ticket: &Ticket| format!("{}/{}/.entries/{}", booth.prefix, ticket.name, ticket.id);
        let (own, leaders) = (of(&b), of(&a));
        let delete = |key: &str| TxnOp::delete(key, None);
        let exit = async {
            // It may be at any step of its waiting.
            sleep(Duration::from_millis(round as u64)).await;
            let mut operator = operator.clone();
            if round % 2 == 0 {
                let deletions = Txn::new().and_then([delete(&leaders), delete(&own)]);
                operator.txn(deletions).await.unwrap();
            } else {
                operator.delete(own.as_str(), None).await.unwrap();
                operator.delete(leaders.as_str(), None).await.unwrap();
            }
        };
        let (told, ()) = tokio::join!(told, exit);
        gone(told);
        one.leave(&a).await.unwrap();
        two.leave(&b).await.unwrap();
    }
}
