//! Curator's `LeaderLatch` and our candidates compete for one leadership, over a server of their own. Each side is a process, which is
//! killed, frozen and cut off.
//!
//! Who leads writes its token into one node, by a transaction that checks that its own node is there. ZooKeeper numbers these writes. So
//! their tokens never go back, unless two terms were valid at once. Ours also says when it believed that it leads, which is never after a
//! later term's write. All clocks are one: that of the system since it was started, in nanoseconds.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::election::{Booth, folder, name};
use common::{LONG, make, own_server, raw};
use rustix::time::{ClockId, clock_gettime};
use sd_election::Candidate;
use sd_testing::{Fault, Peer, TcpProxy, required_env};
use serde_json::{Value, json};
use server_programs::LocalServer;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use zookeeper_client as zk;

const SESSION: Duration = Duration::from_secs(2);
const HAND_OVERS: usize = 200;
/// From one fault to the next, in terms of the side that it befalls.
const TERMS_BETWEEN_FAULTS: usize = 12;
/// How long a term is, when nothing ends it.
const TERM: Duration = Duration::from_millis(10);
/// The test that a process of ours is started as, and how it is told what to do there.
const TEST: &str = "two_hundred_hand_overs_between_curators_latch_and_ours_with_faults_of_both";
const SITE: &str = "SD_TEST_ZK_CANDIDATE";

/// Where a side takes part.
#[derive(Clone)]
struct Site {
    /// The server.
    near: String,
    /// The way to it that can be cut off.
    far: String,
    prefix: String,
    register: String,
}

/// One side of the contest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Curator,
    Ours,
}

impl Side {
    fn start(self, site: &Site) -> Process {
        let peer = match self {
            Self::Curator => {
                let program = required_env("SD_TEST_ZK_CURATOR").unwrap();
                let mut program = Command::new(program);
                program.args([&site.far, &SESSION.as_millis().to_string()]);
                program
            }
            Self::Ours => {
                let mut program = Command::new(env::current_exe().unwrap());
                program.args(["--exact", TEST, "--ignored", "--nocapture"]);
                let site = [&site.near, &site.far, &site.prefix, &site.register];
                program.env(SITE, site.map(String::as_str).join(" "));
                program
            }
        };
        Process(Peer::launch(peer).unwrap())
    }

    /// Begins a participation.
    async fn joins(self, process: &mut Process, site: &Site, id: usize) {
        // One of ours joins by itself.
        if self == Self::Curator {
            let path = folder(&site.prefix, &name());
            process.say(&format!("join {path} curator-{id}")).await;
            let register = &site.register;
            process.say(&format!("write curator-{id} {register}")).await;
        }
    }

    async fn leaves(self, process: &mut Process, id: usize) {
        match self {
            Self::Curator => process.say(&format!("leave curator-{id}")).await,
            Self::Ours => process.say("leave").await,
        }
    }
}

/// A process that takes part.
struct Process(Peer);

impl Process {
    /// What it says next. Other lines are none of ours. `None` when it has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            // The last line of one that was killed may be half a line, and the first one comes behind words of libtest.
            let line = self.0.line().await.ok()?;
            let said = line.find('{').map(|at| serde_json::from_str(&line[at..]));
            if let Some(Ok(said)) = said {
                return Some(said);
            }
        }
    }

    async fn say(&mut self, line: &str) {
        self.0.say(line).await.unwrap();
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().unwrap().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// As kill -9 does, with all that it had said.
    async fn end(mut self, said: &mut Said, side: Side) {
        self.signal("-KILL");
        while let Some(told) = self.next().await {
            said.note(side, &told);
        }
    }

    async fn hear_for(&mut self, time: Duration, said: &mut Said, side: Side) {
        let until = Instant::now() + time;
        while let Ok(told) = timeout_at(until, self.next()).await {
            said.note(side, &told.unwrap());
        }
    }
}

/// What one side has said.
#[derive(Default)]
struct Said {
    /// The accepted writes by their numbers, each with whose it was and its token.
    writes: BTreeMap<i64, (Side, i64)>,
    /// When a write of a term was first known to be done, by its token.
    done: BTreeMap<i64, i64>,
    /// When a term was last believed in, by its token.
    believed: BTreeMap<i64, i64>,
    /// How often what was written was refused.
    refused: usize,
}

impl Said {
    fn note(&mut self, side: Side, told: &Value) {
        let number = |field: &str| told[field].as_i64();
        let Some(token) = number("token") else {
            return;
        };
        match told["event"].as_str() {
            Some("wrote") => {
                let version = number("version").unwrap();
                self.writes.insert(version, (side, token));
                self.done.entry(token).or_insert(number("at").unwrap());
            }
            Some("refused") => self.refused += 1,
            _ => {}
        }
        if told["believes"] == true {
            self.believed.insert(token, number("asked").unwrap());
        }
    }

    fn merged(mut self, other: Self) -> Self {
        self.writes.extend(other.writes);
        self.done.extend(other.done);
        self.believed.extend(other.believed);
        self.refused += other.refused;
        self
    }

    /// The terms in their order at the server.
    fn terms(&self) -> Vec<(Side, i64)> {
        let mut terms: Vec<(Side, i64)> = Vec::new();
        for (number, (side, token)) in &self.writes {
            match terms.last() {
                Some((before, last)) if last == token => assert_eq!(before, side),
                Some((before, last)) => {
                    assert!(
                        last < token,
                        "write {number}: {side:?} {token} after {before:?} {last}"
                    );
                    terms.push((*side, *token));
                }
                None => terms.push((*side, *token)),
            }
        }
        terms
    }

    /// No term was believed in after a later one had written.
    fn belief_never_overlaps(&self) {
        for (token, believed) in &self.believed {
            for (later, done) in self.done.range(token + 1..) {
                assert!(
                    believed <= done,
                    "{token} was believed in {} ns after {later} had written",
                    believed - done
                );
            }
        }
    }
}

/// Takes part until it is told to stop.
async fn take_part(side: Side, at: Site, proxy: TcpProxy, stop: Arc<AtomicBool>) -> Said {
    let mut said = Said::default();
    let mut process = side.start(&at);
    let mut terms = 0;
    side.joins(&mut process, &at, terms).await;
    while !stop.load(Ordering::Relaxed) {
        let told = timeout(LONG, process.next()).await.unwrap().unwrap();
        said.note(side, &told);
        if told["event"] != "leads" {
            continue;
        }
        process.hear_for(TERM, &mut said, side).await;
        terms += 1;
        let fault = (terms % TERMS_BETWEEN_FAULTS == 0).then_some(terms / TERMS_BETWEEN_FAULTS % 3);
        match fault {
            Some(1) => {
                process.end(&mut said, side).await;
                process = side.start(&at);
            }
            // Long enough for its session to end, and so that it goes on as a leader that is none.
            Some(2) => {
                process.signal("-STOP");
                sleep(SESSION * 2).await;
                process.signal("-CONT");
            }
            Some(_) => {
                proxy.set(Fault::BlackHole);
                process.hear_for(SESSION * 2, &mut said, side).await;
                proxy.set(Fault::Pass);
            }
            None => {}
        }
        if fault != Some(1) {
            side.leaves(&mut process, terms - 1).await;
        }
        side.joins(&mut process, &at, terms).await;
    }
    process.end(&mut said, side).await;
    said
}

fn now() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn tell(told: &Value) {
    // In one piece, and at once.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{told}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// A process of ours: leads again and again, and writes until it is told to leave, whatever it believes.
async fn candidate(site: &str) {
    let site: Vec<&str> = site.split(' ').collect();
    let [near, far, prefix, register] = site[..] else {
        panic!("{site:?}");
    };
    let (order, mut orders) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            order.blocking_send(line.unwrap()).unwrap();
        }
        // The test that started it has gone.
        std::process::exit(0);
    });
    let client = raw(near).await;
    let of_near = Booth::again(near, prefix).registry();
    let registry = Booth::again(far, prefix).registry();
    let candidate = Candidate::builder(&registry, name())
        .value("ours")
        .ttl(SESSION);
    let candidate = candidate.build().unwrap();
    loop {
        let Ok(leadership) = candidate.campaign().await else {
            sleep(TERM).await;
            continue;
        };
        let token = leadership.token().clone();
        let number = token.value();
        tell(&json!({"event": "leads", "token": number}));
        let guard = sd_zk::leads(&of_near, &name(), leadership.id(), &token).await;
        while orders.try_recv().is_err() {
            let asked = now();
            let believes = leadership.is_leader();
            let mut told =
                json!({"event": "looked", "token": number, "asked": asked, "believes": believes});
            if let Ok(guard) = &guard {
                let mut write = client.new_multi_writer();
                write.add_check_version(guard, -1).unwrap();
                let value = number.to_string();
                write
                    .add_set_data(register, value.as_bytes(), None)
                    .unwrap();
                match write.commit().await {
                    Ok(mut done) => {
                        let Some(zk::MultiWriteResult::SetData { stat }) = done.pop() else {
                            panic!("{done:?}");
                        };
                        told["event"] = json!("wrote");
                        told["version"] = json!(stat.version);
                    }
                    Err(_) => told["event"] = json!("refused"),
                }
            }
            told["at"] = json!(now());
            tell(&told);
            sleep(Duration::from_millis(1)).await;
        }
        let _ = leadership.resign().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn two_hundred_hand_overs_between_curators_latch_and_ours_with_faults_of_both() {
    if let Ok(site) = env::var(SITE) {
        return candidate(&site).await;
    }
    let server = own_server().await;
    let near = server.program().url();
    let prefix = common::prefix();
    let register = format!("{prefix}-register");
    let client = raw(&near).await;
    make(&client, &register).await;

    let stop = Arc::new(AtomicBool::new(false));
    let mut sides = Vec::new();
    for side in [Side::Curator, Side::Ours] {
        let proxy = TcpProxy::start(server.program().address()).await.unwrap();
        let site = Site {
            near: near.clone(),
            far: proxy.address().to_string(),
            prefix: prefix.clone(),
            register: register.clone(),
        };
        sides.push(tokio::spawn(take_part(
            side,
            site,
            proxy,
            Arc::clone(&stop),
        )));
    }
    // Each term of either side makes the token another one.
    let (mut seen, mut last) = (0, Vec::new());
    let watching = async {
        while seen < HAND_OVERS + 20 {
            let (data, _, changed) = client.get_and_watch_data(&register).await.unwrap();
            if data != last {
                seen += 1;
                last = data;
            }
            changed.changed().await;
        }
    };
    timeout(Duration::from_mins(8), watching).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let mut said = Said::default();
    for side in sides {
        said = said.merged(side.await.unwrap());
    }

    let terms = said.terms();
    said.belief_never_overlaps();
    let of = |wanted| terms.iter().filter(|(side, _)| *side == wanted).count();
    let (curators, ours) = (of(Side::Curator), of(Side::Ours));
    let (refused, believed) = (said.refused, said.believed.len());
    println!(
        "terms: {curators} of Curator's, {ours} of ours, {believed} believed in; {refused} writes were refused"
    );
    assert!(terms.len() > HAND_OVERS, "{} terms", terms.len());
    assert!(curators > HAND_OVERS / 4 && ours > HAND_OVERS / 4);
    assert!(believed > HAND_OVERS / 4 && refused > 0);
}
