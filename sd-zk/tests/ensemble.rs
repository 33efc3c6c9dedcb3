//! An ensemble of three: members and its leader die, freeze and come back, and clients are at different members.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use common::election::{candidates, expire_owner, folder, node_of};
use common::{
    LONG, TTL, close, end_session, event, eventually, instance, make, prefix, raw, until,
};
use futures_util::future::{join_all, select_all};
use sd_core::port::{Ticket, async_trait};
use sd_core::{
    Backend, ElectionName, Error, ErrorKind, Override, RecordId, RegistrationEvent,
    RegistrationGuard, Registry, Result, ServiceName, State, Subscription,
};
use sd_testing::{
    Ability, Fault, Fixture, ProxyCounts, ServerGroup, ServerProcess, TcpProxy, electing,
    is_live_with, is_stale, reading,
};
use sd_zk::{ZkBackend, ZkConfig};
use server_programs::{LocalServer, ZooKeeper};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zookeeper_client as zk;

/// Longer than the members take to agree on another leader of theirs on a busy machine. A client gives a silent connection up after two
/// fifths of it.
const SESSION: Duration = Duration::from_secs(15);
/// Short enough to wait for its end.
const SHORT: Duration = Duration::from_secs(6);

/// Three members, which the tests of this file use one after another.
struct Ensemble(ServerGroup<ZooKeeper>);

impl Ensemble {
    /// The ensemble for one test. All members are well, however the test before has ended. The last one that has it ends the servers.
    async fn lend() -> OwnedMutexGuard<Self> {
        static SHARED: Mutex<Weak<Mutex<Ensemble>>> = Mutex::const_new(Weak::new());
        let shared = {
            let mut shared = SHARED.lock().await;
            if let Some(ensemble) = shared.upgrade() {
                ensemble
            } else {
                let programs = ZooKeeper::ensemble_from_env(3).unwrap();
                let group = ServerGroup::launch(programs).await.unwrap();
                let ensemble = Arc::new(Mutex::new(Self(group)));
                *shared = Arc::downgrade(&ensemble);
                ensemble
            }
        };
        let mut ensemble = shared.lock_owned().await;
        ensemble.heal().await;
        ensemble
    }

    async fn heal(&mut self) {
        let gone = |member: &ServerProcess<ZooKeeper>| member.id().is_none();
        for member in self.0.members().iter().filter(|member| !gone(member)) {
            member.thaw().unwrap();
        }
        if self.0.members().iter().any(gone) {
            self.0.restart_all().await.unwrap();
        }
        self.leader().await;
        for member in 0..3 {
            self.serves(member).await;
        }
    }

    fn member(&self, index: usize) -> &ServerProcess<ZooKeeper> {
        &self.0.members()[index]
    }

    fn member_mut(&mut self, index: usize) -> &mut ServerProcess<ZooKeeper> {
        &mut self.0.members_mut()[index]
    }

    fn address(&self, index: usize) -> String {
        self.member(index).program().url()
    }

    async fn asked(&self, index: usize, word: &'static str) -> std::io::Result<String> {
        let program = self.member(index).program().clone();
        let asked = tokio::task::spawn_blocking(move || program.four_letter_word(word));
        asked.await.unwrap()
    }

    async fn serves(&self, index: usize) {
        eventually("serving", LONG * 2, async || {
            let said = self.asked(index, "srvr").await;
            said.is_ok_and(|said| said.contains("Mode: "))
        })
        .await;
    }

    /// The member that leads the others, once there is one alone: one that was frozen may still believe that it does.
    async fn leader(&self) -> usize {
        let give_up_at = Instant::now() + LONG * 2;
        loop {
            let said = join_all((0..3).map(|index| self.asked(index, "srvr"))).await;
            let leads = |said: &std::io::Result<String>| {
                said.as_ref()
                    .is_ok_and(|said| said.contains("Mode: leader"))
            };
            let leaders: Vec<usize> = (0..3).filter(|index| leads(&said[*index])).collect();
            if let [leader] = leaders[..] {
                return leader;
            }
            assert!(Instant::now() < give_up_at, "{said:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The two members that follow.
    async fn followers(&self) -> [usize; 2] {
        let leader = self.leader().await;
        [(leader + 1) % 3, (leader + 2) % 3]
    }

    /// The member that has the connection of a session.
    async fn member_of(&self, session: i64) -> usize {
        let key = format!("sid={session:#x},");
        for index in 0..3 {
            if self.asked(index, "cons").await.unwrap().contains(&key) {
                return index;
            }
        }
        panic!("{key} is connected to no member");
    }

    /// Settings that name these members.
    fn config<const N: usize>(&self, members: [usize; N], prefix: &str) -> ZkConfig {
        ZkConfig::new(members.map(|member| self.address(member)))
            .with_prefix(prefix)
            .with_session_timeout(SESSION)
    }

    /// An instance that is registered, and a reader, both by one client of these members.
    async fn stage<const N: usize>(&self, members: [usize; N]) -> Stage {
        let prefix = prefix();
        Stage::open(self.config(members, &prefix), &prefix).await
    }

    /// What another program sees at a member.
    async fn seen_at(&self, index: usize, stage: &Stage) -> Option<zk::Stat> {
        let raw = raw(&self.address(index)).await;
        // No older than what is known here.
        raw.sync(&stage.path).await.unwrap();
        let stat = raw.check_stat(&stage.path).await.unwrap();
        close(raw).await;
        stat
    }
}

struct Stage {
    registry: Registry,
    guard: RegistrationGuard,
    seen: Subscription,
    /// Of the record.
    path: String,
}

impl Stage {
    async fn open(config: ZkConfig, prefix: &str) -> Self {
        let registry = sd_zk::connect(config).unwrap();
        let mut guard = registry.register(instance(1)).in_background().unwrap();
        event(&mut guard, "registered").await;
        let mut seen = registry.subscribe("greeter").unwrap();
        until(&mut seen, "there", is_live_with(1)).await;
        let path = format!("{prefix}/greeter/{}", guard.record_id().id);
        Self {
            registry,
            guard,
            seen,
            path,
        }
    }

    /// The reader learns of the trouble, and keeps the set.
    async fn goes_stale(&mut self) {
        let state = until(&mut self.seen, "stale", is_stale).await;
        assert_eq!(state.snapshot().len(), 1, "{state:?}");
    }

    async fn is_live(&mut self) {
        until(&mut self.seen, "live", is_live_with(1)).await;
    }

    /// What the owner was told until now.
    async fn told(&mut self) -> Vec<RegistrationEvent> {
        let mut told = Vec::new();
        while let Ok(Some(event)) = timeout(Duration::ZERO, self.guard.next_event()).await {
            told.push(event);
        }
        told
    }

    /// The owner never had to register again, and the record is the one that was there before.
    async fn has_kept(&mut self, ensemble: &Ensemble, before: &zk::Stat) {
        let told = self.told().await;
        let is_again = |event: &RegistrationEvent| matches!(event.as_str(), "lost" | "registered");
        assert!(!told.iter().any(is_again), "{told:?}");
        let leader = ensemble.leader().await;
        let after = ensemble.seen_at(leader, self).await.unwrap();
        let key = |stat: &zk::Stat| (stat.czxid, stat.mzxid, stat.ephemeral_owner);
        assert_eq!(key(&after), key(before));
    }

    async fn ends(self) {
        self.guard.deregister().await.unwrap();
        self.registry.close().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn a_member_that_is_killed_costs_no_record() {
    let mut ensemble = Ensemble::lend().await;
    let [a, b] = ensemble.followers().await;
    let mut stage = ensemble.stage([a, b]).await;
    let before = ensemble.seen_at(a, &stage).await.unwrap();
    let killed = ensemble.member_of(before.ephemeral_owner).await;
    ensemble.member_mut(killed).kill().unwrap();
    stage.goes_stale().await;
    stage.is_live().await;
    stage.has_kept(&ensemble, &before).await;
    ensemble.member_mut(killed).restart().await.unwrap();
    stage.ends().await;
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn a_member_that_freezes_for_any_time_is_left_and_costs_no_record() {
    let ensemble = Ensemble::lend().await;
    let [a, b] = ensemble.followers().await;
    let prefix = prefix();
    let config = ensemble.config([a, b], &prefix);
    let session = SESSION * 4 / 3;
    let mut stage = Stage::open(config.with_session_timeout(session), &prefix).await;
    let before = ensemble.seen_at(a, &stage).await.unwrap();
    let frozen = ensemble.member_of(before.ephemeral_owner).await;
    let since = Instant::now();
    ensemble.member(frozen).freeze().unwrap();
    // After two fifths of the session, and perhaps as much for trying the frozen one once more.
    stage.goes_stale().await;
    stage.is_live().await;
    // Long enough for the session to end, if it were only this member's.
    sleep_until(since + session + Duration::from_secs(1)).await;
    ensemble.member(frozen).thaw().unwrap();
    ensemble.serves(frozen).await;
    stage.has_kept(&ensemble, &before).await;
    stage.is_live().await;
    stage.ends().await;
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn a_client_of_one_member_that_freezes_loses_its_record_and_is_back_when_it_thaws() {
    let ensemble = Ensemble::lend().await;
    let [a, b] = ensemble.followers().await;
    let prefix = prefix();
    let config = |member| {
        let config = ensemble.config([member], &prefix);
        config.with_session_timeout(SHORT)
    };
    let mut stage = Stage::open(config(a), &prefix).await;
    let reader = sd_zk::connect(config(b)).unwrap();
    let mut elsewhere = reader.subscribe("greeter").unwrap();
    until(&mut elsewhere, "there", is_live_with(1)).await;
    ensemble.member(a).freeze().unwrap();
    stage.goes_stale().await;
    until(&mut elsewhere, "gone", is_live_with(0)).await;
    ensemble.member(a).thaw().unwrap();
    until(&mut elsewhere, "back", is_live_with(1)).await;
    stage.is_live().await;
    let told = stage.told().await;
    let count = |name| told.iter().filter(|event| event.as_str() == name).count();
    assert_eq!((count("lost"), count("registered")), (1, 1), "{told:?}");
    stage.ends().await;
    reader.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn the_leader_of_the_ensemble_is_killed_and_frozen_and_no_record_is_lost() {
    let mut ensemble = Ensemble::lend().await;
    let mut stage = ensemble.stage([0, 1, 2]).await;
    let leader = ensemble.leader().await;
    let before = ensemble.seen_at(leader, &stage).await.unwrap();
    ensemble.member_mut(leader).kill().unwrap();
    stage.goes_stale().await;
    stage.is_live().await;
    stage.has_kept(&ensemble, &before).await;
    ensemble.member_mut(leader).restart().await.unwrap();

    let leader = ensemble.leader().await;
    ensemble.member(leader).freeze().unwrap();
    stage.goes_stale().await;
    stage.is_live().await;
    stage.has_kept(&ensemble, &before).await;
    // It does not know that it leads no more.
    ensemble.member(leader).thaw().unwrap();
    ensemble.serves(leader).await;
    stage.has_kept(&ensemble, &before).await;
    stage.guard.set_ready(false).await.unwrap();
    let is_unready = |state: &State| !state.snapshot().instances()[0].is_ready();
    until(&mut stage.seen, "unready", is_unready).await;
    stage.ends().await;
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn without_a_quorum_readers_keep_the_set_and_with_it_all_is_as_before() {
    let mut ensemble = Ensemble::lend().await;
    let [a, b] = ensemble.followers().await;
    let mut stage = ensemble.stage([0, 1, 2]).await;
    let before = ensemble.seen_at(a, &stage).await.unwrap();
    for member in [a, b] {
        ensemble.member_mut(member).kill().unwrap();
    }
    stage.goes_stale().await;
    let limit = Duration::from_secs(2);
    let late = sd_zk::connect(
        ensemble
            .config([0, 1, 2], "/elsewhere")
            .with_request_timeout(limit),
    )
    .unwrap();
    let since = Instant::now();
    let refused = late.list("greeter").await.unwrap_err();
    let report = refused.report().to_string();
    assert!(
        matches!(refused.kind(), ErrorKind::Unavailable | ErrorKind::Timeout),
        "{report}"
    );
    assert!(report.contains("quorum"), "{report}");
    assert!(since.elapsed() < limit * 2, "{:?}", since.elapsed());
    let mut waiting = late.register(instance(2)).in_background().unwrap();
    event(&mut waiting, "retrying").await;

    ensemble.0.restart_all().await.unwrap();
    event(&mut waiting, "registered").await;
    stage.is_live().await;
    stage.has_kept(&ensemble, &before).await;
    late.close().await.unwrap();
    stage.ends().await;
}

/// The client gives each of them up after two fifths of its session.
#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn two_members_that_fall_silent_use_up_a_session_and_the_record_is_there_again() {
    let ensemble = Ensemble::lend().await;
    let mut proxies = Vec::new();
    for member in 0..3 {
        let target = ensemble.member(member).program().address();
        proxies.push(TcpProxy::start(target).await.unwrap());
    }
    let prefix = prefix();
    let config = ZkConfig::new(proxies.iter().map(|proxy| proxy.address().to_string()));
    let config = config.with_prefix(&prefix).with_session_timeout(SHORT);
    let mut stage = Stage::open(config, &prefix).await;
    let (used, unused): (Vec<_>, Vec<_>) =
        proxies.iter().partition(|proxy| proxy.counts().open > 0);
    for proxy in used.iter().chain(&unused) {
        proxy.set(Fault::BlackHole);
    }
    stage.goes_stale().await;
    // Whichever it tries next is silent, and the last one is well.
    let tried = unused
        .iter()
        .map(|proxy| Box::pin(proxy.counted(|counts| counts.accepted > 0)));
    let (_, tried, _) = timeout(LONG, select_all(tried)).await.unwrap();
    unused[1 - tried].set(Fault::Pass);
    stage.is_live().await;
    let told = stage.told().await;
    let count = |name| told.iter().filter(|event| event.as_str() == name).count();
    let (lost, mut back) = (count("lost"), count("registered"));
    if lost > back {
        event(&mut stage.guard, "registered").await;
        back += 1;
    }
    assert!(lost <= 1 && back == lost, "{told:?}");
    println!("the session ended {lost} times");
    assert!(ensemble.seen_at(0, &stage).await.is_some());
    stage.ends().await;
}

/// The client's session ends before the server's does, which has the old node for some time yet.
#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn without_a_quorum_for_longer_than_a_session_no_reader_sees_a_gap() {
    let mut ensemble = Ensemble::lend().await;
    let [a, b] = ensemble.followers().await;
    let prefix = prefix();
    let config = ensemble.config([0, 1, 2], &prefix);
    let mut stage = Stage::open(config.clone().with_session_timeout(SHORT), &prefix).await;
    let reader = sd_zk::connect(config.with_session_timeout(SESSION * 4)).unwrap();
    let mut elsewhere = reader.subscribe("greeter").unwrap();
    until(&mut elsewhere, "there", is_live_with(1)).await;
    for member in [a, b] {
        ensemble.member_mut(member).kill().unwrap();
    }
    event(&mut stage.guard, "lost").await;
    until(&mut elsewhere, "stale", is_stale).await;
    ensemble.0.restart_all().await.unwrap();
    let watching = async {
        loop {
            let told = elsewhere.changed().await.unwrap();
            assert_eq!(told.snapshot().len(), 1, "{told:?}");
        }
    };
    tokio::select! {
        () = watching => {}
        _ = event(&mut stage.guard, "registered") => {}
    }
    until(&mut elsewhere, "live", is_live_with(1)).await;
    stage.is_live().await;
    stage.ends().await;
    reader.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn a_connection_that_is_half_open_is_left_for_another_one() {
    let ensemble = Ensemble::lend().await;
    let mut proxies = Vec::new();
    for member in 0..2 {
        let target = ensemble.member(member).program().address();
        proxies.push(TcpProxy::start(target).await.unwrap());
    }
    let prefix = prefix();
    let config = ZkConfig::new(proxies.iter().map(|proxy| proxy.address().to_string()))
        .with_prefix(&prefix)
        .with_session_timeout(SESSION);
    let mut stage = Stage::open(config, &prefix).await;
    let before = ensemble.seen_at(2, &stage).await.unwrap();
    let used = proxies
        .iter()
        .find(|proxy| proxy.counts().open > 0)
        .unwrap();
    used.set(Fault::BlackHole);
    stage.goes_stale().await;
    used.set(Fault::Pass);
    stage.is_live().await;
    stage.has_kept(&ensemble, &before).await;
    stage.ends().await;
}

/// A way to a member that is frozen for a while, so that it is behind the others.
struct Lagging<'a> {
    member: &'a ServerProcess<ZooKeeper>,
    proxy: TcpProxy,
    /// At another member.
    other: zk::Client,
    filler: String,
}

impl<'a> Lagging<'a> {
    async fn new(ensemble: &'a Ensemble, other: usize, member: usize) -> Self {
        let member = ensemble.member(member);
        let proxy = TcpProxy::start(member.program().address()).await;
        let (other, filler) = (raw(&ensemble.address(other)).await, prefix());
        make(&other, &filler).await;
        Self {
            member,
            proxy: proxy.unwrap(),
            other,
            filler,
        }
    }

    /// Freezes the member, and has it miss so much that it takes a while to go through.
    async fn freeze(&self) {
        static HALF_A_MEGABYTE: [u8; 500_000] = [0; 500_000];
        self.member.freeze().unwrap();
        let writes = (0..4).map(|_| self.other.set_data(&self.filler, &HALF_A_MEGABYTE, None));
        for written in join_all(writes).await {
            written.unwrap();
        }
    }

    fn config(&self, prefix: &str) -> ZkConfig {
        ZkConfig::new([self.proxy.address().to_string()])
            .with_prefix(prefix)
            .with_session_timeout(SESSION * 4)
    }

    /// Thaws the member once it has been asked for something. `None` if the others have given it up meanwhile, and it its clients: that
    /// takes 5 s, which a busy machine may need.
    async fn thawed_during<T>(&self, asking: impl Future<Output = Result<T>>) -> Option<T> {
        let before = self.proxy.counts().bytes_to_server;
        let thawing = async {
            let asked = |counts: &ProxyCounts| counts.bytes_to_server > before;
            timeout(LONG, self.proxy.counted(asked)).await.unwrap();
            self.member.thaw().unwrap();
        };
        match tokio::join!(asking, thawing).0 {
            Err(error) if error.kind() == ErrorKind::Unavailable => None,
            told => Some(told.unwrap()),
        }
    }
}

/// A follower is behind: what it has not heard of yet, a list must wait for.
#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn what_is_confirmed_at_one_member_is_listed_at_another_that_lags() {
    const ROUNDS: u16 = 10;
    let ensemble = Ensemble::lend().await;
    let [a, b] = ensemble.followers().await;
    let prefix = prefix();
    let writer = sd_zk::connect(ensemble.config([a], &prefix)).unwrap();
    let lagging = Lagging::new(&ensemble, a, b).await;
    let reader = sd_zk::connect(lagging.config(&prefix)).unwrap();
    let first = writer.register(instance(1)).await.unwrap();
    assert_eq!(reader.list("greeter").await.unwrap().len(), 1);
    let (mut guards, mut listings) = (Vec::new(), 0);
    for round in 2..ROUNDS {
        lagging.freeze().await;
        guards.push(writer.register(instance(round)).await.unwrap());
        if let Some(listed) = lagging.thawed_during(reader.list("greeter")).await {
            assert_eq!(listed.len(), guards.len() + 1);
            listings += 1;
        }
    }
    assert!(listings > 0);
    let is_back = async || reader.list("greeter").await.is_ok();
    eventually("back", LONG, is_back).await;
    // And no list is older than a withdrawal.
    for guard in guards.into_iter().chain([first]) {
        let id = guard.record_id().id.clone();
        guard.deregister().await.unwrap();
        assert!(reader.list("greeter").await.unwrap().get(&id).is_none());
    }
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn what_is_confirmed_at_one_member_is_found_by_an_operator_at_another_that_lags() {
    const ROUNDS: u16 = 10;
    let ensemble = Ensemble::lend().await;
    let [a, b] = ensemble.followers().await;
    let prefix = prefix();
    let writer = sd_zk::connect(ensemble.config([a], &prefix)).unwrap();
    let lagging = Lagging::new(&ensemble, a, b).await;
    let operator = sd_zk::connect(lagging.config(&prefix)).unwrap();
    operator.list("greeter").await.unwrap();
    let mut found = [0; 2];
    for round in 1..=ROUNDS {
        lagging.freeze().await;
        let guard = writer.register(instance(round)).await.unwrap();
        let record = guard.record_id();
        let overrides = round % 2 == 0;
        let told = if overrides {
            let said = operator.set_override(record, Override::Draining);
            lagging.thawed_during(said).await
        } else {
            lagging.thawed_during(operator.remove_record(record)).await
        };
        found[usize::from(overrides)] += u16::from(told.is_some());
        guard.deregister().await.unwrap();
    }
    assert!(found.iter().all(|rounds| *rounds > 0), "{found:?}");
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn a_reader_at_one_member_soon_sees_what_is_registered_and_withdrawn_at_another() {
    const ROUNDS: u16 = 50;
    let ensemble = Ensemble::lend().await;
    let [a, b] = ensemble.followers().await;
    let prefix = prefix();
    let [writer, reader] =
        [a, b].map(|member| sd_zk::connect(ensemble.config([member], &prefix)).unwrap());
    let mut seen = reader.subscribe("greeter").unwrap();
    until(&mut seen, "empty", is_live_with(0)).await;
    let mut took = Vec::new();
    for round in 1..=ROUNDS {
        let guard = writer.register(instance(round)).await.unwrap();
        let since = Instant::now();
        until(&mut seen, "there", is_live_with(1)).await;
        took.push(since.elapsed());
        let since = Instant::now();
        guard.deregister().await.unwrap();
        until(&mut seen, "gone", is_live_with(0)).await;
        took.push(since.elapsed());
    }
    took.sort();
    let (median, last) = (took[took.len() / 2], took[took.len() - 1]);
    println!("seen at another member after {median:?}, at most {last:?}");
    // By its watch, and not by a look at the folder every 10 s.
    assert!(median < Duration::from_millis(500), "{median:?}");
}

/// Each client is at the next member.
struct Round {
    prefix: String,
    members: [String; 3],
    next: AtomicUsize,
    operator: zk::Client,
}

impl Round {
    async fn new(ensemble: &Ensemble) -> Self {
        Self {
            prefix: prefix(),
            members: [0, 1, 2].map(|member| ensemble.address(member)),
            next: AtomicUsize::new(0),
            operator: raw(&ensemble.address(0)).await,
        }
    }

    fn path(&self, record: &RecordId) -> String {
        format!("{}/{}/{}", self.prefix, record.service, record.id)
    }

    fn elections(&self) -> String {
        format!("{}-elections", self.prefix)
    }

    /// As of now.
    async fn node_of(&self, ticket: &Ticket) -> String {
        let folder = folder(&self.elections(), &ticket.name);
        self.operator.sync("/").await.unwrap();
        node_of(&self.operator, &folder, ticket).await.unwrap()
    }
}

fn failed(error: zk::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "operator").with_source(error)
}

#[async_trait]
impl Fixture for Round {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let config = ZkConfig::new([&self.members[next % 3]]).with_prefix(&self.prefix);
        let config = config.with_election_prefix(self.elections());
        let config = config.with_session_timeout(TTL);
        Ok(Arc::new(ZkBackend::new(config)?))
    }

    fn lacks(&self) -> Vec<Ability> {
        vec![Ability::Leases, Ability::PermanentRecords, Ability::Release]
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    async fn write_garbage(&self, service: &ServiceName) -> Result<()> {
        let folder = format!("{}/{service}", self.prefix);
        make(&self.operator, &folder).await;
        let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
        let path = format!("{folder}/garbage");
        let made = self.operator.create(&path, b"{not json", &options).await;
        made.map(drop).map_err(failed)
    }

    async fn remove_record(&self, record: &RecordId) -> Result<()> {
        let deleted = self.operator.delete(&self.path(record), None).await;
        deleted.map_err(failed)
    }

    async fn expire(&self, record: &RecordId) -> Result<()> {
        let path = self.path(record);
        self.operator.sync(&path).await.map_err(failed)?;
        let stat = self.operator.check_stat(&path).await;
        if let Some(stat) = stat.map_err(failed)? {
            end_session(&self.members[0], stat.ephemeral_owner).await;
        }
        Ok(())
    }

    async fn remove_entry(&self, ticket: &Ticket) -> Result<()> {
        let node = self.node_of(ticket).await;
        self.operator.delete(&node, None).await.map_err(failed)
    }

    async fn expire_entry(&self, ticket: &Ticket) -> Result<()> {
        let node = self.node_of(ticket).await;
        expire_owner(&self.operator, &self.members[0], &node).await;
        Ok(())
    }

    async fn entries(&self, election: &ElectionName) -> Result<usize> {
        self.operator.sync("/").await.map_err(failed)?;
        let folder = folder(&self.elections(), election);
        Ok(candidates(&self.operator, &folder).await.len())
    }
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn passes_all_electing_cases_with_clients_at_different_members() {
    let ensemble = Ensemble::lend().await;
    let round = Round::new(&ensemble).await;
    electing::run_all(&round).await.expect_passed();
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn passes_all_reading_cases_with_clients_at_different_members() {
    let ensemble = Ensemble::lend().await;
    let round = Round::new(&ensemble).await;
    reading::run_all(&round).await.expect_passed();
}
