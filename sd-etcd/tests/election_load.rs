//! What elections cost, counted at the server, and how fast they are.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use common::election::{Booth, after, first, leads, now, ticket_for, waits};
use common::served::{counts, served, since};
use common::{LONG, TTL, own_server, prefix, server};
use futures_util::future::select_all;
use futures_util::stream::{FuturesUnordered, StreamExt, iter};
use sd_core::port::{Entry, Standing, Ticket};
use sd_core::{ElectionName, Elector};
use sd_etcd::EtcdConfig;
use server_programs::LocalServer;
use tokio::time::{Instant, sleep, timeout};

/// So that nothing expires while a test runs.
const LASTING: Duration = Duration::from_secs(10 * 60);

#[tokio::test]
#[ignore = "needs etcd of any version: cargo xtask test --backend etcd"]
async fn a_confirmation_costs_a_keep_alive_and_a_check_and_waiting_costs_nothing() {
    const ROUNDS: u64 = 10;
    let server = own_server().await;
    let booth = Booth::at(&server.program().url());
    let (one, two) = (booth.elector(), booth.elector());
    let leader = one.join(&ticket_for("a", LASTING)).await.unwrap();
    let next = two.join(&ticket_for("b", LASTING)).await.unwrap();
    let (leading, waiting) = (now(&*leader).await, waits(&*next).await);
    let address = server.program().address();
    let watching = async {
        let settled = Duration::from_secs(1);
        sleep(settled).await;
        let before = served(address).await;
        // Longer than any interval at which something might be asked, pings apart.
        sleep(Duration::from_secs(8)).await;
        assert_eq!(since(&before, &served(address).await), counts(&[]));
        for _ in 0..ROUNDS {
            leader.confirm().await.unwrap();
            next.confirm().await.unwrap();
        }
        let more = since(&before, &served(address).await);
        let expected = counts(&[
            ("LeaseKeepAlive begun", 2 * ROUNDS),
            ("LeaseKeepAlive sent", 2 * ROUNDS),
            ("Txn begun", 2 * ROUNDS),
        ]);
        assert_eq!(more, expected);
    };
    tokio::select! {
        () = watching => {}
        told = leader.standing(Some(&leading)) => panic!("told {told:?}"),
        told = next.standing(Some(&waiting)) => panic!("told {told:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd of any version: cargo xtask test --backend etcd"]
async fn of_a_thousand_candidates_an_exit_wakes_the_next_two() {
    const CANDIDATES: usize = 1000;
    const ELECTORS: usize = 8;
    let server = own_server().await;
    // All begin to wait at the same moment, which takes a busy machine a while.
    let patience = Duration::from_secs(60);
    let patient = |config: EtcdConfig| config.with_request_timeout(patience);
    let booth = Booth::with(&server.program().url(), &prefix(), patient);
    let electors: Vec<Arc<dyn Elector>> = (0..ELECTORS).map(|_| booth.elector()).collect();
    let tickets: Vec<Ticket> = (0..CANDIDATES)
        .map(|index| ticket_for(&index.to_string(), LASTING))
        .collect();
    let elector = |index: usize| &electors[index % ELECTORS];
    // The first alone, so that it is known who leads; the others in any order.
    let leader = elector(0).join(&tickets[0]).await.unwrap();
    leads(&*leader).await;
    let entries: Vec<Box<dyn Entry>> = iter(1..CANDIDATES)
        .map(|index| elector(index).join(&tickets[index]))
        .buffered(64)
        .map(Result::unwrap)
        .collect()
        .await;
    let address = server.program().address();
    let waiting = Standing::Waiting { ahead: None };
    let told = select_all(
        entries
            .iter()
            .map(|entry| Box::pin(entry.standing(Some(&waiting)))),
    );
    let exit = async {
        // Each of the others watches three keys, but the first of them one range, and reads where it stands before and after that. A
        // busy machine can lose a connection meanwhile, and its candidates then do so again.
        let waiting = CANDIDATES as u64 - 1;
        let least = [("Watch sent", 3 * waiting - 2), ("Txn begun", 3 * waiting)];
        let mut before = BTreeMap::new();
        loop {
            let now = served(address).await;
            let all_wait = |(what, count)| now.get(what).is_some_and(|seen| *seen >= count);
            if now == before && least.into_iter().all(all_wait) {
                break;
            }
            before = now;
            sleep(Duration::from_secs(1)).await;
        }
        elector(0).leave(&tickets[0]).await.unwrap();
        before
    };
    let ((told, _, others), before) = timeout(LONG * 4, async { tokio::join!(told, exit) })
        .await
        .unwrap();
    first(told.unwrap());
    // Long enough for the others to be woken, if they were.
    let quiet = timeout(Duration::from_secs(1), select_all(others)).await;
    assert!(quiet.is_err());
    let mut more = since(&before, &served(address).await);
    // The deletion, and what is read by the one that is next in line now, before and after it watches for that. The one that leads asks
    // for nothing. If all were woken, they would ask a thousand times.
    let expected = counts(&[
        ("LeaseRevoke begun", 1),
        ("Txn begun", 3),
        ("Watch begun", 1),
        ("Watch sent", 3),
    ]);
    more.retain(|_, count| *count > 0);
    assert_eq!(more, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd of any version: cargo xtask test --backend etcd"]
async fn the_next_in_line_leads_without_asking_for_anything() {
    let server = own_server().await;
    let booth = Booth::at(&server.program().url());
    let (one, two) = (booth.elector(), booth.elector());
    let leader = ticket_for("a", LASTING);
    leads(&*one.join(&leader).await.unwrap()).await;
    let next = two.join(&ticket_for("b", LASTING)).await.unwrap();
    let waiting = waits(&*next).await;
    let told = after(&*next, &waiting);
    let address = server.program().address();
    let exit = async {
        // It stands, watches, and has looked once more.
        let mut before = BTreeMap::new();
        loop {
            let now = served(address).await;
            let watches = now.get("Watch sent").is_some_and(|sent| *sent >= 1);
            if now == before && watches {
                break;
            }
            before = now;
            sleep(Duration::from_millis(300)).await;
        }
        one.leave(&leader).await.unwrap();
        before
    };
    let (told, before) = tokio::join!(told, exit);
    first(told);
    let expected = counts(&[
        ("LeaseRevoke begun", 1),
        ("Txn begun", 1),
        ("Watch sent", 1),
    ]);
    assert_eq!(since(&before, &served(address).await), expected);
}

/// From when a leader begins to leave until the next one is told that it is first, and what the leaving takes: medians.
async fn resign_to_first(candidates: usize, records_term: bool) -> [Duration; 2] {
    const SAMPLES: usize = 100;
    let booth = Booth::at(&server());
    let mut queue = VecDeque::new();
    let join = async |elector: Arc<dyn Elector>| {
        let mut ticket = ticket_for("a", LASTING);
        ticket.records_term = records_term;
        let entry = elector.join(&ticket).await.unwrap();
        (elector, ticket, entry)
    };
    for _ in 0..candidates {
        queue.push_back(join(booth.elector()).await);
    }
    let (mut took, mut round_trips) = (Vec::new(), Vec::new());
    leads(&*queue[0].2).await;
    for _ in 0..SAMPLES {
        let (elector, ticket, _) = queue.pop_front().unwrap();
        let waiting = Standing::Waiting { ahead: None };
        // All of those who wait are asked all the time, as candidates ask.
        let mut asked: FuturesUnordered<_> = queue
            .iter()
            .enumerate()
            .map(async |(at, (_, _, entry))| (at, after(&**entry, &waiting).await))
            .collect();
        let exit = async {
            // Until the others wait for events.
            sleep(Duration::from_millis(30)).await;
            let since = Instant::now();
            elector.leave(&ticket).await.unwrap();
            (since, since.elapsed())
        };
        let next_one = async {
            let (at, told) = asked.next().await.unwrap();
            first(told);
            (at, Instant::now())
        };
        let ((since, round_trip), (at, led)) = tokio::join!(exit, next_one);
        assert_eq!(at, 0, "the next in line");
        took.push(led - since);
        round_trips.push(round_trip);
        drop(asked);
        queue.push_back(join(elector).await);
    }
    for (elector, ticket, _) in queue {
        elector.leave(&ticket).await.unwrap();
    }
    [took, round_trips].map(|mut samples| {
        samples.sort();
        samples[samples.len() / 2]
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd of any version: cargo xtask test --backend etcd"]
async fn after_a_resignation_the_next_one_leads_within_one_round_trip() {
    for (candidates, records_term) in [(2, false), (20, false), (2, true), (20, true)] {
        let [took, round_trip] = resign_to_first(candidates, records_term).await;
        let recorded = if records_term { ", terms recorded" } else { "" };
        println!(
            "{candidates} candidates{recorded}: resign to first {took:?}; left {round_trip:?}"
        );
        // The record of a term is a read and a write more.
        assert!(took < round_trip * 4, "{took:?}, left {round_trip:?}");
    }
}

/// From the last confirmation of a leader that then falls silent to the next one.
async fn silence_to_next(booth: &Booth, name: &str, offset: Duration) -> Duration {
    let (one, two) = (booth.elector(), booth.elector());
    let ticket = |value| {
        let mut ticket = ticket_for(value, TTL);
        ticket.name = ElectionName::new(name).unwrap();
        ticket
    };
    let leader = one.join(&ticket("a")).await.unwrap();
    let mut lasting = ticket("b");
    lasting.ttl = LASTING;
    let next = two.join(&lasting).await.unwrap();
    let waiting = waits(&*next).await;
    // At different moments of the server's own rhythm.
    sleep(offset).await;
    let since = Instant::now();
    let confirmed = leader.confirm().await.unwrap();
    let told = timeout(LONG, next.standing(Some(&waiting))).await;
    first(told.unwrap().unwrap());
    let took = since.elapsed();
    two.leave(&lasting).await.unwrap();
    took.checked_sub(confirmed.ttl)
        .unwrap_or_else(|| panic!("replaced after {took:?} of {:?}", confirmed.ttl))
}

#[tokio::test]
#[ignore = "needs etcd of any version: cargo xtask test --backend etcd"]
async fn a_leader_that_falls_silent_is_replaced_as_soon_as_promised_and_no_sooner() {
    const ELECTIONS: u32 = 20;
    let server = own_server().await;
    let booth = Booth::at(&server.program().url());
    let promised = booth.elector().safety().await.unwrap().failover_extra;
    let measuring = (0..ELECTIONS).map(async |index| {
        let offset = Duration::from_millis(500) * index / ELECTIONS;
        silence_to_next(&booth, &format!("silent/{index}"), offset).await
    });
    let mut late = futures_util::future::join_all(measuring).await;
    late.sort();
    let (soonest, latest) = (late[0], late[late.len() - 1]);
    println!("replaced {soonest:?} to {latest:?} after the time-to-live, promised {promised:?}");
    // A busy machine may take longer.
    assert!(latest < promised * 3, "{latest:?}");
}
