//! Curator's `LeaderLatch` and our candidates compete for one leadership, over a server of their own. Both sides crash and are cut off.
//!
//! Who leads writes its token into one node, by a transaction that checks that its own node is there. ZooKeeper numbers these writes. So
//! their tokens never go back, unless two terms were valid at once.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::election::{Booth, folder, name, ticket_for};
use common::{LONG, make, own_server, raw};
use sd_core::port::{Entry, Standing, Ticket};
use sd_core::{Elector, FencingToken, Result};
use sd_testing::{Fault, TcpProxy, required_env};
use serde_json::Value;
use server_programs::LocalServer;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use zookeeper_client as zk;

const SESSION: Duration = Duration::from_secs(2);
const HAND_OVERS: usize = 200;
/// From one fault to the next, in terms of Curator's.
const TERMS_BETWEEN_FAULTS: usize = 12;
/// More lines than come while a frozen process is waited for.
const MOST_LINES: usize = 10_000;
/// How long a term is, when nothing ends it.
const TERM: Duration = Duration::from_millis(10);

/// One process of Curator's. Dropping it kills it.
struct Curator {
    child: Child,
    stdin: ChildStdin,
    told: mpsc::Receiver<Value>,
}

impl Curator {
    fn start(address: &str) -> Self {
        let program = required_env("SD_TEST_ZK_CURATOR").unwrap();
        let mut child = Command::new(program)
            .args([address, &SESSION.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, told) = mpsc::channel(MOST_LINES);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            // The last one may be half a line.
            for told in lines.map_while(|line| serde_json::from_str(&line.ok()?).ok()) {
                let _ = tell.blocking_send(told);
            }
        });
        Self {
            stdin: child.stdin.take().unwrap(),
            child,
            told,
        }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    async fn next(&mut self) -> Value {
        timeout(LONG, self.told.recv()).await.unwrap().unwrap()
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Curator {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The accepted writes by their numbers, each with whose it was and its token.
type History = BTreeMap<i64, (&'static str, i64)>;

/// Takes part with Curator until it is told to stop, and says what was written.
async fn curators(
    address: String,
    path: String,
    register: String,
    stop: Arc<AtomicBool>,
) -> History {
    let mut history = History::new();
    let mut curator = Curator::start(&address);
    let mut terms = 0;
    let take_part = |curator: &mut Curator, id: usize| {
        curator.say(&format!("join {path} curator-{id}"));
        curator.say(&format!("write curator-{id} {register}"));
    };
    take_part(&mut curator, terms);
    while !stop.load(Ordering::Relaxed) {
        let told = curator.next().await;
        if let Some((number, write)) = written(&told) {
            history.insert(number, write);
        }
        if told["event"] != "leads" {
            continue;
        }
        // Its writes come meanwhile.
        sleep(TERM).await;
        terms += 1;
        let fault = terms % TERMS_BETWEEN_FAULTS == 0;
        match (fault, (terms / TERMS_BETWEEN_FAULTS) % 2) {
            (true, 0) => {
                curator.signal("-KILL");
                while let Some(told) = curator.told.recv().await {
                    history.extend(written(&told));
                }
                curator = Curator::start(&address);
            }
            (true, _) => {
                // Long enough for its session to end, and so that it goes on as a leader that is none.
                curator.signal("-STOP");
                sleep(SESSION * 2).await;
                curator.signal("-CONT");
                curator.say(&format!("leave curator-{}", terms - 1));
            }
            (false, _) => curator.say(&format!("leave curator-{}", terms - 1)),
        }
        take_part(&mut curator, terms);
    }
    curator.signal("-KILL");
    while let Some(told) = curator.told.recv().await {
        history.extend(written(&told));
    }
    history
}

fn written(told: &Value) -> Option<(i64, (&'static str, i64))> {
    let is_write = told["event"] == "wrote";
    is_write.then(|| {
        let number = |field: &str| told[field].as_i64().unwrap();
        (number("version"), ("curator", number("token")))
    })
}

/// The token once the entry leads. `None` if it is gone.
async fn led(entry: &dyn Entry) -> Option<FencingToken> {
    let mut seen = None;
    loop {
        match entry.standing(seen.as_ref()).await {
            Ok(Standing::First { token, .. }) => return Some(token),
            Ok(Standing::Gone(_)) => return None,
            Ok(waiting) => seen = Some(waiting),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Takes part by our port until it is told to stop, and says what was written.
async fn ours(
    booth: Booth,
    near: String,
    register: String,
    proxy: TcpProxy,
    stop: Arc<AtomicBool>,
) -> History {
    let mut history = History::new();
    let client = raw(&near).await;
    let registry = Booth::again(&near, &booth.prefix).registry();
    let mut elector = booth.elector();
    let mut terms = 0;
    while !stop.load(Ordering::Relaxed) {
        let ticket = ticket_for("ours", SESSION);
        let Ok(entry) = joined(&*elector, &ticket).await else {
            continue;
        };
        if let Some(token) = led(&*entry).await {
            let guard = sd_zk::leads(&registry, &name(), ticket.id, &token).await;
            terms += 1;
            if let Ok(guard) = guard {
                let fault = terms % TERMS_BETWEEN_FAULTS == 0;
                if fault {
                    // It does not know, as a process that is frozen, and writes on over another way.
                    proxy.set(Fault::BlackHole);
                }
                let until = tokio::time::Instant::now() + if fault { SESSION * 2 } else { TERM };
                while tokio::time::Instant::now() < until {
                    let mut write = client.new_multi_writer();
                    write.add_check_version(&guard, -1).unwrap();
                    let value = token.value().to_string();
                    write
                        .add_set_data(&register, value.as_bytes(), None)
                        .unwrap();
                    if let Ok(mut done) = write.commit().await {
                        let Some(zk::MultiWriteResult::SetData { stat }) = done.pop() else {
                            panic!("{done:?}");
                        };
                        let token = token.value().cast_signed();
                        history.insert(stat.version.into(), ("ours", token));
                    }
                    sleep(Duration::from_millis(1)).await;
                }
                if fault {
                    proxy.set(Fault::Pass);
                    // As a process that crashed: what its elector has at the server goes by itself.
                    elector = booth.elector();
                    continue;
                }
            }
        }
        while elector.leave(&ticket).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    }
    history
}

async fn joined(elector: &dyn Elector, ticket: &Ticket) -> Result<Box<dyn Entry>> {
    let joined = elector.join(ticket).await;
    if joined.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    joined
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn two_hundred_hand_overs_between_curators_latch_and_ours_with_faults_of_both() {
    let server = own_server().await;
    let near = server.program().url();
    let proxy = TcpProxy::start(server.program().address()).await.unwrap();
    let booth = Booth::at(&proxy.address().to_string());
    let register = format!("{}-register", booth.prefix);
    let path = folder(&booth.prefix, &name());
    let client = raw(&near).await;
    make(&client, &register).await;

    let stop = Arc::new(AtomicBool::new(false));
    let theirs = curators(near.clone(), path, register.clone(), Arc::clone(&stop));
    let ours = ours(booth, near, register.clone(), proxy, Arc::clone(&stop));
    let (theirs, ours) = (tokio::spawn(theirs), tokio::spawn(ours));
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
    let (theirs, ours) = (theirs.await.unwrap(), ours.await.unwrap());

    let mut terms: Vec<(&str, i64)> = Vec::new();
    let all: History = theirs.into_iter().chain(ours).collect();
    for (number, (whose, token)) in all {
        match terms.last() {
            Some((before, last)) if *last == token => assert_eq!(*before, whose),
            Some((before, last)) => {
                assert!(
                    *last < token,
                    "write {number}: {whose} {token} after {before} {last}"
                );
                terms.push((whose, token));
            }
            None => terms.push((whose, token)),
        }
    }
    let of = |side| terms.iter().filter(|(whose, _)| *whose == side).count();
    let (of_curator, of_ours) = (of("curator"), of("ours"));
    println!("terms: {of_curator} of Curator's, {of_ours} of ours");
    assert!(terms.len() > HAND_OVERS, "{} terms", terms.len());
    assert!(of_curator > HAND_OVERS / 4 && of_ours > HAND_OVERS / 4);
}
