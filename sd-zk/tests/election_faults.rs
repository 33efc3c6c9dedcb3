//! Elections when answers are lost, connections die, servers restart and operators interfere, over a real ZooKeeper.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::election::{
    Booth, candidates, first, leads, name, now, ticket_for, told_at_last, waits,
};
use common::faults::OwnServer;
use common::{LONG, config_at, eventually, own_server, raw};
use sd_core::clock::{BootClock, Clock};
use sd_core::port::{CountsFrom, Predecessor, Ticket, async_trait};
use sd_core::{Backend, Elector, ErrorKind, ServiceName};
use sd_testing::faults::FaultFixture;
use sd_testing::{Fault, ServerGroup, ServerProcess, TcpProxy, faults};
use sd_zk::{DEFAULT_PREFIX, ElectionFormat, ZkBackend, ZkConfig};
use server_programs::{LocalServer, ZooKeeper};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use zookeeper_client as zk;

/// So that nothing expires while a test runs.
const LASTING: Duration = Duration::from_secs(5 * 60);
/// How much later everything arrives, so that there is time to cut the line between a request and its answer.
const LATE: Duration = Duration::from_millis(300);

/// Two ways to one server: `far` goes through a proxy.
struct Scene {
    server: ServerProcess<ZooKeeper>,
    proxy: TcpProxy,
    near: Booth,
    far: Booth,
    raw: zk::Client,
}

impl Scene {
    async fn new() -> Self {
        let server = own_server().await;
        let proxy = TcpProxy::start(server.program().address()).await.unwrap();
        let near = Booth::at(&server.program().url());
        Self {
            far: Booth::again(&proxy.address().to_string(), &near.prefix),
            raw: raw(&server.program().url()).await,
            near,
            server,
            proxy,
        }
    }

    async fn candidates(&self) -> Vec<String> {
        candidates(&self.raw, &self.near.folder(&name())).await
    }

    /// Cuts the line as soon as the server has done what is asked for, before its answer arrives.
    async fn cut_when<F: Future<Output = bool>>(&self, what: &str, done: impl FnMut() -> F) {
        eventually(what, LONG, done).await;
        self.proxy.set(Fault::Cut);
    }
}

/// A server whose clients wait for as long as it takes the client crate to come back to one that was away.
struct Patient(OwnServer);

impl Patient {
    async fn start() -> Self {
        Self(OwnServer::start().await)
    }
}

#[async_trait]
impl FaultFixture for Patient {
    type Program = ZooKeeper;

    fn server(&mut self) -> &mut ServerProcess<ZooKeeper> {
        self.0.server()
    }

    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn backend(&self, address: SocketAddr) -> Arc<dyn Backend> {
        let config = config_at(&address.to_string(), DEFAULT_PREFIX);
        let config = config.with_request_timeout(Duration::from_secs(15));
        Arc::new(ZkBackend::new(config).unwrap())
    }

    async fn shown(&self, service: &ServiceName) -> usize {
        self.0.shown(service).await
    }

    async fn stored(&self, service: &ServiceName) -> Vec<String> {
        self.0.stored(service).await
    }
}

/// A join whose answer was lost after the server had made the node.
async fn join_and_lose(scene: &Scene, elector: &dyn Elector, ticket: &Ticket) {
    // Connected before everything is late.
    let before = Ticket::new(name(), *b"before", ticket.ttl);
    elector.join(&before).await.unwrap();
    elector.leave(&before).await.unwrap();
    scene.proxy.set(Fault::Delay(LATE));
    let cutting = scene.cut_when("made", async || !scene.candidates().await.is_empty());
    let (joined, ()) = tokio::join!(elector.join(ticket), cutting);
    let error = joined.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    scene.proxy.set(Fault::Pass);
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_join_whose_answer_was_lost_is_joined_again_as_one_entry() {
    let scene = Scene::new().await;
    let (elector, ticket) = (scene.far.elector(), ticket_for("a", LASTING));
    join_and_lose(&scene, &*elector, &ticket).await;
    let before = scene.candidates().await;
    let entry = elector.join(&ticket).await.unwrap();
    assert_eq!(scene.candidates().await, before);
    leads(&*entry).await;
    entry.confirm().await.unwrap();
    elector.leave(&ticket).await.unwrap();
    assert_eq!(scene.candidates().await, [""; 0]);
}

/// The second attempt finds the node of the first one, which must not stay beside candidates of another format.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_join_in_the_wrong_format_whose_answer_was_lost_is_refused_and_leaves_nothing() {
    let scene = Scene::new().await;
    let near = scene.near.elector();
    let leader = near.join(&ticket_for("there", LASTING)).await.unwrap();
    leads(&*leader).await;
    let address = scene.proxy.address().to_string();
    let far = Booth::with(&address, &scene.near.prefix, |config| {
        config.with_election_format(ElectionFormat::Reception)
    })
    .elector();
    // Connected before everything is late.
    let refused = far.join(&ticket_for("before", LASTING)).await.err();
    assert_eq!(refused.unwrap().kind(), ErrorKind::Conflict);
    let folder = scene.near.folder(&name());
    let nodes = async || scene.raw.list_children(&folder).await.unwrap().len();
    assert_eq!(nodes().await, 1);

    let wrong = ticket_for("wrong", LASTING);
    scene.proxy.set(Fault::Delay(LATE));
    let cutting = scene.cut_when("made", async || nodes().await == 2);
    let (joined, ()) = tokio::join!(far.join(&wrong), cutting);
    let error = joined.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    assert_eq!(nodes().await, 2);
    scene.proxy.set(Fault::Pass);
    let refused = far.join(&wrong).await.err().unwrap();
    let report = refused.report().to_string();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{report}");
    assert!(report.contains("election_format"), "{report}");
    assert_eq!(nodes().await, 1);
    leader.confirm().await.unwrap();
}

/// When the session was wanted says nothing of when it was made.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_candidate_that_has_waited_for_the_server_can_be_believed_at_once() {
    let scene = Scene::new().await;
    let (far, ticket) = (scene.far.elector(), ticket_for("a", LASTING));
    scene.proxy.set(Fault::Refuse);
    let refused = far.join(&ticket).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    scene.proxy.set(Fault::Pass);
    let address = scene.proxy.address();
    let accepts = async || TcpStream::connect(address).await.is_ok();
    eventually("accepting", LONG, accepts).await;
    let back = BootClock.now();
    let entry = far.join(&ticket).await.unwrap();
    let confirmed = entry.confirm().await.unwrap();
    let CountsFrom::EarlierSend(proven) = confirmed.counts_from else {
        panic!("{confirmed:?}");
    };
    assert!(proven >= back, "{:?}", back.since(proven));
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn an_elector_that_is_dropped_while_the_line_is_cut_takes_no_other_candidate_along() {
    let scene = Scene::new().await;
    let (stays, goes) = (scene.far.elector(), scene.far.elector());
    let entry = stays.join(&ticket_for("stays", LASTING)).await.unwrap();
    leads(&*entry).await;
    let other = goes.join(&ticket_for("goes", LASTING)).await.unwrap();
    assert_eq!(scene.candidates().await.len(), 2);
    scene.proxy.set(Fault::Cut);
    let is_cut = async || entry.confirm().await.is_err();
    eventually("cut", LONG, is_cut).await;
    drop((goes, other));
    scene.proxy.set(Fault::Pass);
    let is_alone = async || scene.candidates().await.len() == 1;
    eventually("alone", LONG, is_alone).await;
    leads(&*entry).await;
    let is_confirmed = async || entry.confirm().await.is_ok();
    eventually("confirmed", LONG, is_confirmed).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn leaving_after_a_join_whose_answer_was_lost_leaves_nothing() {
    let scene = Scene::new().await;
    let (elector, ticket) = (scene.far.elector(), ticket_for("a", LASTING));
    join_and_lose(&scene, &*elector, &ticket).await;
    elector.leave(&ticket).await.unwrap();
    assert_eq!(scene.candidates().await, [""; 0]);
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_was_before_a_term_is_told_right_when_the_answer_to_its_record_was_lost() {
    let scene = Scene::new().await;
    let elector = scene.far.elector();
    let term = format!("{}/.terms/reports%2Fnightly", scene.near.prefix);
    let version = async || {
        let stat = scene.raw.check_stat(&term).await.unwrap();
        stat.map_or(-1, |stat| stat.version)
    };
    // The one before had another time-to-live, and did not resign.
    let before = ticket_for("before", LASTING * 2).with_term_record();
    let near = scene.near.elector();
    leads(&*near.join(&before).await.unwrap()).await;
    let node = scene.candidates().await.remove(0);
    scene.raw.delete(&node, None).await.unwrap();

    let ticket = ticket_for("a", LASTING).with_term_record();
    let entry = elector.join(&ticket).await.unwrap();
    let written = version().await;
    scene.proxy.set(Fault::Delay(LATE));
    let cutting = scene.cut_when("recorded", async || version().await > written);
    let (told, ()) = tokio::join!(entry.standing(None), cutting);
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Unavailable);
    scene.proxy.set(Fault::Pass);
    let written = version().await;
    let expected = Predecessor::Unknown { ttl: LASTING * 2 };
    assert_eq!(first(now(&*entry).await).1, expected);
    // And it was written once.
    assert_eq!(version().await, written);
    elector.leave(&ticket).await.unwrap();
    let next = ticket_for("next", LASTING).with_term_record();
    let next = near.join(&next).await.unwrap();
    assert_eq!(first(now(&*next).await).1, Predecessor::Resigned);
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_leader_that_stopped_says_so_also_after_its_session_has_ended() {
    let scene = Scene::new().await;
    let elector = scene.near.elector();
    let ticket = ticket_for("a", Duration::from_secs(60)).with_term_record();
    leads(&*elector.join(&ticket).await.unwrap()).await;
    let node = scene.candidates().await.remove(0);
    let server = scene.server.program().url();
    common::election::expire_owner(&scene.raw, &server, &node).await;
    eventually("expired", LONG, async || {
        scene.candidates().await.is_empty()
    })
    .await;
    // Its client comes back after a pause, and hears only then that the session has ended.
    eventually("left", LONG, async || elector.leave(&ticket).await.is_ok()).await;
    let next = ticket_for("next", LASTING).with_term_record();
    let next = elector.join(&next).await.unwrap();
    assert_eq!(first(now(&*next).await).1, Predecessor::Resigned);
    // What this one leaves behind is its own term, not that of another participation with its id.
    elector.leave(&ticket).await.unwrap();
    next.confirm().await.unwrap();
}

/// No server answers: it is known within the time-out of a request that there is no connection, or no answer.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_confirmation_in_a_black_hole_ends() {
    let scene = Scene::new().await;
    let far = scene.far.elector();
    let ticket = ticket_for("a", LASTING);
    let entry = far.join(&ticket).await.unwrap();
    leads(&*entry).await;
    scene.proxy.set(Fault::BlackHole);
    let since = Instant::now();
    let error = timeout(LONG, entry.confirm()).await.unwrap().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout),
        "{error:?}"
    );
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn killed_and_restarted_the_server_still_has_the_candidates() {
    faults::killed_and_restarted_the_server_still_has_the_candidates(Patient::start().await).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn restarted_without_its_data_the_server_has_no_candidate() {
    let [before, after] =
        faults::restarted_without_its_data_the_server_has_no_candidate(OwnServer::start().await)
            .await;
    // So that no store takes the one for a successor of the other.
    assert_ne!(before.domain(), after.domain());
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_candidate_that_was_cut_off_sees_what_happened_meanwhile() {
    faults::a_candidate_that_was_cut_off_sees_what_happened_meanwhile(OwnServer::start().await)
        .await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_closed_backend_lets_go_of_the_connections_of_its_electors() {
    faults::a_closed_backend_lets_go_of_the_connections_of_its_electors(OwnServer::start().await)
        .await;
}

/// The members elect another one of their own, which goes on with the sessions.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn an_election_goes_on_when_the_member_that_leads_the_ensemble_is_killed() {
    let programs = ZooKeeper::ensemble_from_env(3).unwrap();
    let mut group = ServerGroup::launch(programs).await.unwrap();
    let servers: Vec<String> = group.members().iter().map(|m| m.program().url()).collect();
    let config = ZkConfig::new(&servers).with_request_timeout(Duration::from_secs(15));
    let backend: Arc<dyn Backend> = Arc::new(ZkBackend::new(config).unwrap());
    let electors = [0, 1].map(|_| {
        let elector = Arc::clone(&backend).elector().unwrap();
        elector.into_any()
    });
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    let leader = electors[0].join(&a).await.unwrap();
    let token = leads(&*leader).await;
    let next = electors[1].join(&b).await.unwrap();
    let waiting = waits(&*next).await;

    let of_ensemble = group.members().iter().position(|member| {
        let said = member.program().four_letter_word("srvr").unwrap();
        said.contains("Mode: leader")
    });
    group.members_mut()[of_ensemble.unwrap()].kill().unwrap();
    eventually("confirmed", LONG, async || leader.confirm().await.is_ok()).await;
    assert_eq!(leads(&*leader).await, token);
    eventually("confirmed", LONG, async || next.confirm().await.is_ok()).await;
    let leaving = async {
        eventually("left", LONG, async || electors[0].leave(&a).await.is_ok()).await;
    };
    let (told, ()) = tokio::join!(told_at_last(&*next, &waiting), leaving);
    assert!(first(told).0 > token);
    next.confirm().await.unwrap();
}
