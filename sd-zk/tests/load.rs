//! Many at once: candidates of one election, and records of one registry whose session ends.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::election::{Booth, first, leads, ticket_for};
use common::{
    LONG, TTL, close, end_session, event, instance, own_server, prefix, raw, registry, server,
};
use futures_util::future::{join_all, select_all};
use futures_util::stream::{StreamExt, iter};
use sd_core::port::{Entry, Standing, Ticket};
use sd_core::{Elector, RegistrationEvent};
use server_programs::{LocalServer, ZooKeeper};
use tokio::time::{Instant, sleep, timeout};

/// So that nothing expires while a test runs.
const LASTING: Duration = Duration::from_secs(10 * 60);

/// A number that the server tells of itself.
async fn told(server: &ZooKeeper, word: &'static str, name: &str) -> usize {
    let program = server.clone();
    let said = tokio::task::spawn_blocking(move || program.four_letter_word(word));
    let said = said.await.unwrap().unwrap();
    let line = said.lines().find_map(|line| line.split_once(name));
    line.unwrap().1.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn of_a_thousand_candidates_an_exit_wakes_one() {
    const CANDIDATES: usize = 1000;
    const ELECTORS: usize = 8;
    let server = own_server().await;
    let program = server.program();
    // All begin to wait at the same moment, which takes a busy machine a while.
    let booth = Booth::with(&program.url(), &prefix(), |config| {
        config.with_request_timeout(LONG * 2)
    });
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
    let waiting = Standing::Waiting { ahead: None };
    let told_one = select_all(
        entries
            .iter()
            .map(|entry| Box::pin(entry.standing(Some(&waiting)))),
    );
    let packets = async || told(program, "mntr", "zk_packets_received").await;
    let exit = async {
        // Each has a watch on its own node and on the one before it, which may be the same session's.
        let mut before = 0;
        loop {
            let watches = told(program, "wchs", "Total watches:").await;
            let now = packets().await;
            if watches >= CANDIDATES && now - before < 10 {
                break;
            }
            before = now;
            sleep(Duration::from_millis(500)).await;
        }
        let before = packets().await;
        elector(0).leave(&tickets[0]).await.unwrap();
        before
    };
    let ((told, _, others), before) = timeout(LONG * 4, async { tokio::join!(told_one, exit) })
        .await
        .unwrap();
    first(told.unwrap());
    // Long enough for the others to be woken, if they were.
    let quiet = timeout(Duration::from_secs(1), select_all(others)).await;
    assert!(quiet.is_err());
    // The deletion, and signs of life. If all were woken, they would ask a thousand times.
    let spent = packets().await - before;
    println!("an exit and the second after it cost {spent} requests");
    assert!(spent < 50, "{spent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn five_hundred_records_of_a_session_that_ends_are_back_soon_and_written_once() {
    const RECORDS: u16 = 500;
    let prefix = prefix();
    let registry = registry(&prefix);
    let operator = raw(&server()).await;
    let folder = format!("{prefix}/greeter");
    let mut guards = Vec::new();
    for port in 1..=RECORDS {
        guards.push(registry.register(instance(port)).in_background().unwrap());
    }
    join_all(guards.iter_mut().map(|guard| event(guard, "registered"))).await;
    let nodes = operator.list_children(&folder).await.unwrap();
    assert_eq!(nodes.len(), usize::from(RECORDS));
    let path = format!("{folder}/{}", nodes[0]);
    let before = operator.check_stat(&path).await.unwrap().unwrap();

    let since = Instant::now();
    end_session(&server(), before.ephemeral_owner).await;
    let told = join_all(guards.iter_mut().map(|guard| event(guard, "registered"))).await;
    let took = since.elapsed();
    println!("{RECORDS} records were back after {took:?}");
    // A second more for a busy machine.
    let promised = TTL / 3 + Duration::from_secs(2);
    assert!(took < promised + Duration::from_secs(1), "{took:?}");
    for events in told {
        let names: Vec<&str> = events.iter().map(RegistrationEvent::as_str).collect();
        let without_risk: Vec<&&str> = names.iter().filter(|name| **name != "at_risk").collect();
        assert_eq!(without_risk, [&"lost", &"registered"], "{names:?}");
    }
    let nodes = operator.list_children(&folder).await.unwrap();
    assert_eq!(nodes.len(), usize::from(RECORDS));
    let owners = join_all(nodes.iter().map(async |node| {
        let path = format!("{folder}/{node}");
        let stat = operator.check_stat(&path).await.unwrap().unwrap();
        assert_eq!((stat.version, stat.mzxid), (0, stat.czxid));
        stat.ephemeral_owner
    }))
    .await;
    assert!(
        owners
            .iter()
            .all(|owner| *owner == owners[0] && *owner != before.ephemeral_owner)
    );
    registry.close().await.unwrap();
    close(operator).await;
}
