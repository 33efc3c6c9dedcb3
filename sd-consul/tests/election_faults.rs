//! Elections when answers are lost, connections die, agents restart and the servers have no leader, over Consuls of our own.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::future::Future;
use std::time::Duration;

use common::election::{
    Booth, SESSION_TTL, after, first, gone, leads, name, now, ticket, ticket_for, told_at_last,
    waits,
};
use common::faults::OwnAgent;
use common::{LONG, Operator, eventually, own_server_behind_proxy};
use sd_core::port::{LeaderFeed, Ticket};
use sd_core::{Elector, ErrorKind};
use sd_testing::{Direction, Fault, ServerProcess, TcpProxy, faults};
use server_programs::{Consul, LocalServer};
use tokio::time::{Instant, timeout};

/// How soon a candidate whose line is dead must know it: a third of the time-to-live, the request timeout, and slack for a busy
/// machine.
const KNOWN_WITHIN: Duration = Duration::from_secs(12);

/// Two ways to one Consul: `far` goes through a proxy.
struct Scene {
    _server: ServerProcess<Consul>,
    proxy: TcpProxy,
    near: Booth,
    far: Booth,
    operator: Operator,
}

impl Scene {
    async fn new() -> Self {
        let (server, proxy, far) = own_server_behind_proxy().await;
        let near = Booth::at(&server.program().url());
        Self {
            far: Booth::again(&far, &near.prefix),
            operator: Operator::at(&server.program().url()),
            near,
            _server: server,
            proxy,
        }
    }

    async fn sessions(&self) -> Vec<String> {
        self.near.sessions(&self.operator).await
    }

    /// Cuts the line as soon as the server has done what is asked for. Its answer is on its way, but arrives no more.
    async fn cut_when<F: Future<Output = bool>>(&self, what: &str, done: impl FnMut() -> F) {
        eventually(what, LONG, done).await;
        self.proxy.set(Fault::Cut);
    }
}

#[derive(Clone, Copy, Debug)]
enum Lost {
    Session,
    Lock,
}

/// A join of which Consul did everything up to a step, and whose answer to that step was lost.
async fn join_and_lose(scene: &Scene, elector: &dyn Elector, ticket: &Ticket, lost: Lost) {
    scene.proxy.set(Fault::Delay(Duration::from_millis(300)));
    let cutting = scene.cut_when("done", async || match lost {
        Lost::Session => !scene.sessions().await.is_empty(),
        Lost::Lock => !scene.near.leader(&scene.operator).await["Session"].is_null(),
    });
    let (joined, ()) = tokio::join!(elector.join(ticket), cutting);
    let error = joined.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    scene.proxy.set(Fault::Pass);
}

/// Consul chooses the ids of sessions, so one whose making was not answered is found by its name.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_join_whose_answer_was_lost_is_joined_again_as_one_entry() {
    let scene = Scene::new().await;
    for lost in [Lost::Session, Lost::Lock] {
        let (elector, ticket) = (scene.far.elector(), ticket("a"));
        join_and_lose(&scene, &*elector, &ticket, lost).await;
        let before = scene.sessions().await;
        let locked = scene.near.leader(&scene.operator).await;
        let entry = elector.join(&ticket).await.unwrap();
        let token = leads(&*entry).await;
        assert_eq!((before.len(), scene.sessions().await), (1, before));
        if let Lost::Lock = lost {
            assert_eq!(locked["ModifyIndex"], token.value());
        }
        entry.confirm().await.unwrap();
        elector.leave(&ticket).await.unwrap();
        assert!(scene.sessions().await.is_empty());
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn leaving_after_a_join_whose_answer_was_lost_leaves_nothing() {
    let scene = Scene::new().await;
    for lost in [Lost::Session, Lost::Lock] {
        let (elector, ticket) = (scene.far.elector(), ticket("a"));
        join_and_lose(&scene, &*elector, &ticket, lost).await;
        elector.leave(&ticket).await.unwrap();
        assert!(scene.sessions().await.is_empty());
        // It was released before, so there is no lock-delay.
        let next = scene.near.elector();
        let next_ticket = common::election::ticket("next");
        leads(&*next.join(&next_ticket).await.unwrap()).await;
        next.leave(&next_ticket).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn killed_and_restarted_the_server_still_has_the_leader() {
    faults::killed_and_restarted_the_server_still_has_the_candidates(OwnAgent::start().await).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn restarted_without_its_data_the_server_has_no_candidate_and_its_tokens_are_of_another_history()
 {
    let agent = OwnAgent::start().await;
    let [before, after] =
        faults::restarted_without_its_data_the_server_has_no_candidate(agent).await;
    assert_eq!(after.partial_cmp(&before), None, "{after:?} {before:?}");
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_candidate_that_was_cut_off_sees_what_happened_meanwhile() {
    faults::a_candidate_that_was_cut_off_sees_what_happened_meanwhile(OwnAgent::start().await)
        .await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_leader_in_a_black_hole_knows_it_by_itself_and_is_replaced() {
    let scene = Scene::new().await;
    let (near, far) = (scene.near.elector(), scene.far.elector());
    let leader = far.join(&ticket_for("a", SESSION_TTL)).await.unwrap();
    let leading = now(&*leader).await;
    let next = near.join(&ticket("b")).await.unwrap();
    let waiting = waits(&*next).await;
    let safety = near.safety().await.unwrap();
    let since = Instant::now();
    scene.proxy.set(Fault::BlackHole);
    let cut_off = async {
        let told = timeout(KNOWN_WITHIN, leader.standing(Some(&leading))).await;
        told.unwrap().unwrap_err().kind()
    };
    let (known, standing) = tokio::join!(cut_off, after(&*next, &waiting));
    assert!(
        matches!(known, ErrorKind::Unavailable | ErrorKind::Timeout),
        "{known:?}"
    );
    first(standing);
    let took = since.elapsed();
    assert!(took >= SESSION_TTL, "{took:?}");
    let promised = safety.failover_within(SESSION_TTL) + Duration::from_secs(3);
    assert!(took < promised, "{took:?} {promised:?}");
    scene.proxy.set(Fault::Pass);
    gone(told_at_last(&*leader, &leading).await);
}

/// The request was carried out, and the client does not know: a second lock would move the index that is the token.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_lock_whose_answer_was_lost_has_the_token_of_its_first_time() {
    let scene = Scene::new().await;
    let (near, far) = (scene.near.elector(), scene.far.elector());
    let (a, b) = (ticket("a"), ticket("b"));
    let leader = near.join(&a).await.unwrap();
    leads(&*leader).await;
    let next = far.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    let losing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // From here on nothing of what the server says arrives, but what it is told does.
        near.leave(&a).await.unwrap();
        scene
            .cut_when("locked", async || {
                scene.near.leader(&scene.operator).await["Session"].is_string()
            })
            .await;
    };
    scene.proxy.set(Fault::Delay(Duration::from_millis(200)));
    let (told, ()) = tokio::join!(timeout(LONG, next.standing(Some(&waiting))), losing);
    assert_eq!(told.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    let locked = scene.near.leader(&scene.operator).await;
    scene.proxy.set(Fault::Pass);
    let token = first(told_at_last(&*next, &waiting).await).0;
    assert_eq!(locked["ModifyIndex"], token.value());
    let again = scene.near.leader(&scene.operator).await;
    assert_eq!(again["ModifyIndex"], token.value());
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_server_that_hangs_confirms_nothing() {
    let scene = Scene::new().await;
    let far = scene.far.elector();
    let entry = far.join(&ticket("a")).await.unwrap();
    leads(&*entry).await;
    scene.proxy.set(Fault::Hold(Direction::ToClient));
    let error = timeout(LONG, entry.confirm()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{}", error.report());
    scene.proxy.set(Fault::Pass);
    entry.confirm().await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn observers_are_told_of_every_handover_also_after_they_were_cut_off() {
    let scene = Scene::new().await;
    let elector = scene.far.elector();
    let near = scene.near.elector();
    let (a, b) = (ticket("a"), ticket("b"));
    near.join(&a).await.unwrap();
    let mut feed = elector.observe(&name()).await.unwrap();
    let first_told = feed.next().await.unwrap();
    assert!(
        matches!(
            first_told,
            LeaderFeed::Leader {
                leader: Some(_),
                ..
            }
        ),
        "{first_told:?}"
    );
    scene.proxy.set(Fault::Cut);
    let ended = timeout(LONG, async { while feed.next().await.is_ok() {} }).await;
    assert!(ended.is_ok());
    near.leave(&a).await.unwrap();
    near.join(&b).await.unwrap();
    scene.proxy.set(Fault::Pass);
    let mut feed = elector.observe(&name()).await.unwrap();
    let LeaderFeed::Leader {
        leader: Some(leader),
        ..
    } = feed.next().await.unwrap()
    else {
        panic!("a candidate leads");
    };
    assert_eq!(leader.id, Some(b.id));
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_closed_backend_lets_go_of_the_connections_of_its_electors() {
    faults::a_closed_backend_lets_go_of_the_connections_of_its_electors(OwnAgent::start().await)
        .await;
}
