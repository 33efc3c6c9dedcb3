//! Elections when answers are lost, connections die and servers restart, over Redis servers of their own. What only strict elections promise
//! is skipped by the cases themselves.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::election::{
    Booth, LASTING, after, first, gone, is_waiting, leader_told, leads, name, now, ticket_for,
    told_at_last, waits,
};
use common::faults::OwnServer;
use common::{LONG, eventually};
use sd_core::port::{Entry, Predecessor, Ticket};
use sd_core::{ElectionName, Elector, ErrorKind};
use sd_testing::{Direction, Fault, ServerProcess, TcpProxy, faults};
use server_programs::{LocalServer, Redis};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Two ways to one server: `far` goes through a proxy.
struct Scene {
    server: ServerProcess<Redis>,
    proxy: TcpProxy,
    near: Booth,
    far: Booth,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|program| program).await
    }

    async fn with(change: impl FnOnce(Redis) -> Redis) -> Self {
        let program = change(Redis::from_env().unwrap());
        let server = ServerProcess::launch(program).await.unwrap();
        let proxy = TcpProxy::start(server.program().address()).await.unwrap();
        let near = Booth::at(&server.program().url());
        // Gives up no request by itself before the line is cut.
        let far = format!("redis://{}", proxy.address());
        let far = Booth::with(&far, &near.prefix, |config| {
            config.with_request_timeout(LONG)
        });
        Self {
            server,
            proxy,
            near,
            far,
        }
    }

    /// Holds back all answers that come after so many.
    async fn hold_back_after(&self, answers: usize) {
        for _ in 0..answers {
            let before = self.proxy.counts().bytes_to_client;
            let next = self.proxy.counted(|counts| counts.bytes_to_client > before);
            timeout(LONG, next).await.unwrap();
        }
        self.proxy.set(Fault::Hold(Direction::ToClient));
    }

    /// Lets everything pass again. Returns when the proxy listens.
    async fn mend(&self) {
        self.proxy.set(Fault::Pass);
        let listens = async || TcpStream::connect(self.proxy.address()).await.is_ok();
        eventually("mended", LONG, listens).await;
    }

    /// Cuts the line once the server has done what is asked for. Its answers are held back.
    async fn cut_when<F: Future<Output = bool>>(&self, what: &str, done: impl FnMut() -> F) {
        eventually(what, LONG, done).await;
        self.proxy.set(Fault::Cut);
    }
}

/// A join whose answer was lost after the server had made the entry. Returns an entry that has left.
async fn join_and_lose(scene: &Scene, elector: &dyn Elector, ticket: &Ticket) -> Box<dyn Entry> {
    // Connected and told of changes before no answer passes any more.
    let before = ticket_for("before", LASTING);
    let kept = elector.join(&before).await.unwrap();
    elector.leave(&before).await.unwrap();
    scene.proxy.set(Fault::Hold(Direction::ToClient));
    let cutting = scene.cut_when("made", async || scene.near.count().await > 0);
    let (joined, ()) = tokio::join!(elector.join(ticket), cutting);
    let error = joined.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    scene.mend().await;
    kept
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_join_whose_answer_was_lost_is_joined_again_as_one_entry() {
    let scene = Scene::new().await;
    let (elector, ticket) = (scene.far.elector(), ticket_for("a", LASTING));
    let _kept = join_and_lose(&scene, &*elector, &ticket).await;
    let order = scene.near.key("order");
    let all = ["ZRANGE", &order, "0", "-1", "WITHSCORES"];
    let before = scene.near.ask(&all).await;
    let entry = elector.join(&ticket).await.unwrap();
    assert_eq!(scene.near.ask(&all).await, before);
    leads(&*entry).await;
    entry.confirm().await.unwrap();
    elector.leave(&ticket).await.unwrap();
    assert_eq!(scene.near.count().await, 0);
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn leaving_after_a_join_whose_answer_was_lost_leaves_nothing() {
    let scene = Scene::new().await;
    let (elector, ticket) = (scene.far.elector(), ticket_for("a", LASTING));
    let _kept = join_and_lose(&scene, &*elector, &ticket).await;
    elector.leave(&ticket).await.unwrap();
    assert_eq!(scene.near.count().await, 0);
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn what_was_before_a_term_is_told_right_when_the_answer_to_its_record_was_lost() {
    let scene = Scene::new().await;
    let address = format!("redis://{}", scene.proxy.address());
    // No answer to a ping comes in between.
    let far = Booth::with(&address, &scene.near.prefix, |config| {
        let config = config.with_keep_alive_interval(Duration::from_secs(3600));
        config.with_request_timeout(LONG)
    });
    let (elector, near) = (far.elector(), scene.near.elector());
    let term = scene.near.key("term");
    let record = async || scene.near.ask(&["GET", &term]).await;
    // The one before had another time-to-live, and did not resign.
    let before = ticket_for("before", LASTING * 2).with_term_record();
    leads(&*near.join(&before).await.unwrap()).await;
    let order = scene.near.key("order");
    scene
        .near
        .ask(&["ZREM", &order, &before.id.to_string()])
        .await;

    let ticket = ticket_for("a", LASTING).with_term_record();
    let entry = elector.join(&ticket).await.unwrap();
    let written = record().await;
    let cutting = async {
        // Where it stands, and the record of before.
        scene.hold_back_after(2).await;
        scene
            .cut_when("recorded", async || record().await != written)
            .await;
    };
    let (told, ()) = tokio::join!(entry.standing(None), cutting);
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Unavailable);
    scene.mend().await;
    let written = record().await;
    let expected = Predecessor::Unknown { ttl: LASTING * 2 };
    assert_eq!(first(now(&*entry).await).1, expected);
    assert_eq!(record().await, written);
    elector.leave(&ticket).await.unwrap();
    let next = ticket_for("next", LASTING).with_term_record();
    let next = near.join(&next).await.unwrap();
    assert_eq!(first(now(&*next).await).1, Predecessor::Resigned);
}

/// No server answers: it is known within the time-out of a request, and the next one goes over a new connection.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_confirmation_in_a_black_hole_ends() {
    let scene = Scene::new().await;
    let address = format!("redis://{}", scene.proxy.address());
    let far = Booth::with(&address, &scene.near.prefix, |config| {
        config.with_request_timeout(Duration::from_secs(1))
    });
    let (elector, ticket) = (far.elector(), ticket_for("a", LASTING));
    let entry = elector.join(&ticket).await.unwrap();
    leads(&*entry).await;
    scene.proxy.set(Fault::BlackHole);
    let since = Instant::now();
    let error = timeout(LONG, entry.confirm()).await.unwrap().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout),
        "{error:?}"
    );
    assert!(since.elapsed() < Duration::from_secs(10));
    scene.proxy.set(Fault::Pass);
    let is_confirmed = async || entry.confirm().await.is_ok();
    eventually("confirmed", LONG, is_confirmed).await;
}

/// Only another election keeps the connection, on which the server would tell of this one for ever.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn an_observer_that_gives_up_while_it_begins_leaves_no_subscription() {
    let scene = Scene::new().await;
    let elector = scene.far.elector();
    let other = ElectionName::new("other").unwrap();
    let mut kept = elector.observe(&other).await.unwrap();
    assert_eq!(leader_told(&mut *kept).await, None);
    let connections = scene.proxy.counts().accepted;
    let channel = scene.near.key("changes");
    let is_told = async || {
        let said = scene.near.ask(&["PUBSUB", "CHANNELS", &channel]).await;
        said.contains(&channel)
    };
    scene.proxy.set(Fault::Hold(Direction::ToClient));
    let (name, begun) = (name(), eventually("begun", LONG, is_told));
    tokio::select! {
        _ = elector.observe(&name) => panic!("no answer passes"),
        _ = begun => {}
    }
    scene.proxy.set(Fault::Pass);
    eventually("given back", LONG, async || !is_told().await).await;
    assert_eq!(scene.proxy.counts().accepted, connections);
}

/// The server keeps what it confirmed in its append-only file.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn killed_and_restarted_with_all_that_it_confirmed_the_server_has_the_candidates() {
    let mut scene = Scene::with(|program| program.with_config("appendfsync always")).await;
    let elector = scene.near.elector();
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    let leader = elector.join(&a).await.unwrap();
    let token = leads(&*leader).await;
    let next = elector.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    is_waiting(std::pin::pin!(after(&*next, &waiting)));
    scene.server.kill().unwrap();
    let error = leader.confirm().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    scene.server.restart().await.unwrap();
    for entry in [&leader, &next] {
        eventually("confirmed", LONG, async || entry.confirm().await.is_ok()).await;
    }
    assert_eq!(leads(&*leader).await, token);
    let waiting = waits(&*next).await;
    let leaving = async {
        eventually("left", LONG, async || elector.leave(&a).await.is_ok()).await;
    };
    let (told, ()) = tokio::join!(told_at_last(&*next, &waiting), leaving);
    assert!(first(told).0 > token);
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn scripts_that_the_server_has_forgotten_are_sent_again() {
    let scene = Scene::new().await;
    let (elector, ticket) = (scene.near.elector(), ticket_for("a", LASTING));
    let entry = elector.join(&ticket).await.unwrap();
    leads(&*entry).await;
    for _ in 0..2 {
        scene.near.ask(&["SCRIPT", "FLUSH"]).await;
        entry.confirm().await.unwrap();
        leads(&*entry).await;
    }
    scene.near.ask(&["SCRIPT", "FLUSH"]).await;
    elector.leave(&ticket).await.unwrap();
}

/// Neither renewing nor leaving takes any, so that a leader goes on.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_server_without_memory_refuses_candidates_and_keeps_its_leader() {
    let scene = Scene::new().await;
    let elector = scene.near.elector();
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    let leader = elector.join(&a).await.unwrap();
    let token = leads(&*leader).await;
    scene.near.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = elector.join(&b).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let report = refused.report().to_string();
    assert!(report.contains("maxmemory"), "{report}");
    leader.confirm().await.unwrap();
    assert_eq!(leads(&*leader).await, token);
    elector.leave(&a).await.unwrap();
    gone(now(&*leader).await);
    assert_eq!(scene.near.count().await, 0);
    scene.near.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    leads(&*elector.join(&b).await.unwrap()).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn what_a_server_says_of_itself_that_weakens_its_elections_is_told() {
    let scene = Scene::with(|program| program.with_config("appendonly no")).await;
    let policy = ["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"];
    scene.near.ask(&policy).await;
    let safety = scene.near.elector().safety().await.unwrap();
    let codes: Vec<&str> = safety.warnings().map(|note| note.code).collect();
    for code in ["confirmed-writes-lost-at-restart", "elections-evicted"] {
        assert!(codes.contains(&code), "{codes:?}");
    }
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn killed_and_restarted_the_server_still_has_the_candidates() {
    faults::killed_and_restarted_the_server_still_has_the_candidates(OwnServer::start().await)
        .await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn restarted_without_its_data_the_server_has_no_candidate() {
    let [before, after] =
        faults::restarted_without_its_data_the_server_has_no_candidate(OwnServer::start().await)
            .await;
    // So that no store takes the one for a successor of the other.
    assert_ne!(before.domain(), after.domain());
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_candidate_that_was_cut_off_sees_what_happened_meanwhile() {
    faults::a_candidate_that_was_cut_off_sees_what_happened_meanwhile(OwnServer::start().await)
        .await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_closed_backend_lets_go_of_the_connections_of_its_electors() {
    faults::a_closed_backend_lets_go_of_the_connections_of_its_electors(OwnServer::start().await)
        .await;
}
