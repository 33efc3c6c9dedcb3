//! Elections over a running Redis: what every backend must do, guarded writes, what operators and other programs do, what is promised.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::election::{
    Booth, LASTING, POLL_INTERVAL, TTL, after, first, gone, is_waiting, key, leader_told, leads,
    name, now, ticket, ticket_for, told_at_last, waits,
};
use common::{LONG, own_server, server};
use sd_core::memory::Memory;
use sd_core::port::{Ticket, async_trait};
use sd_core::{Backend, ElectionName, ErrorKind, FencingToken, Result};
use sd_redis::TERM_OVER;
use sd_testing::{Ability, Fixture, electing, faults};
use server_programs::LocalServer;
use tokio::time::timeout;

/// Elections of its own in the running Redis, and an operator beside the library.
struct Prefix(Booth);

impl Prefix {
    fn new() -> Self {
        Self(Booth::at(&server()))
    }

    async fn ask(&self, words: &[&str]) {
        self.0.ask(words).await;
    }
}

#[async_trait]
impl Fixture for Prefix {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        Ok(Booth::again(&server(), &self.0.prefix).backend)
    }

    fn lacks(&self) -> Vec<Ability> {
        vec![
            Ability::Sessions,
            Ability::PermanentRecords,
            Ability::StrictElections,
        ]
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    fn expiry_slack(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn remove_entry(&self, ticket: &Ticket) -> Result<()> {
        let order = key(&self.0.prefix, &ticket.name, "order");
        self.ask(&["ZREM", &order, &ticket.id.to_string()]).await;
        Ok(())
    }

    async fn expire_entry(&self, ticket: &Ticket) -> Result<()> {
        let leases = key(&self.0.prefix, &ticket.name, "leases");
        self.ask(&["ZADD", &leases, "XX", "0", &ticket.id.to_string()])
            .await;
        Ok(())
    }

    async fn entries(&self, election: &ElectionName) -> Result<usize> {
        let order = key(&self.0.prefix, election, "order");
        Ok(self.0.ask(&["ZCARD", &order]).await.parse().unwrap())
    }
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn passes_all_electing_cases() {
    electing::run_all(&Prefix::new()).await.expect_passed();
}

/// Runs a script that sets a key, guarded; false if the term is over.
async fn write(booth: &Booth, guard: &sd_redis::LeaderGuard, value: &str) -> bool {
    let script = guard.script("#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], ARGV[1])");
    let target = format!("target:{{{}}}", name());
    let keys = guard.keys([target.as_str()]).unwrap();
    let args = guard.args([value]).into_iter();
    let args: Vec<String> = args.map(|arg| String::from_utf8(arg).unwrap()).collect();
    let count = keys.len().to_string();
    let words = ["EVAL", &script, &count].into_iter();
    let words = words.chain(keys.iter().chain(&args).map(String::as_str));
    match booth.try_ask(&words.collect::<Vec<_>>()).await {
        Ok(_) => {
            assert_eq!(booth.ask(&["GET", &target]).await, value);
            true
        }
        Err(error) => {
            assert!(error.to_string().contains(TERM_OVER), "{error}");
            assert_ne!(booth.ask(&["GET", &target]).await, value);
            false
        }
    }
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_guarded_write_succeeds_while_the_term_lasts_and_never_after() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    let leader = elector.join(&a).await.unwrap();
    let stale = leads(&*leader).await;
    let next = elector.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    let registry = booth.registry();
    let guard = async |id, token: &FencingToken| {
        let guard = sd_redis::leads(&registry, &name(), id, token).await;
        guard.unwrap()
    };
    let while_a = guard(a.id, &stale).await;
    assert!(write(&booth, &while_a, "1").await);
    leader.proclaim(b"still the same term").await.unwrap();
    assert!(write(&booth, &while_a, "2").await);

    elector.leave(&a).await.unwrap();
    let (current, _) = first(after(&*next, &waiting).await);
    assert!(!write(&booth, &while_a, "3").await);
    let while_b = guard(b.id, &current).await;
    assert!(write(&booth, &while_b, "4").await);
    // The same candidate in another term.
    let again = elector.join(&a).await.unwrap();
    let behind = waits(&*again).await;
    assert!(!write(&booth, &while_a, "5").await);
    let other_history = FencingToken::new("other", current.value());
    for (id, token) in [(a.id, &stale), (b.id, &stale), (b.id, &other_history)] {
        assert!(!write(&booth, &guard(id, token).await, "6").await);
    }
    // Its lease has ended, and no candidate has come to know of it yet.
    let leases = booth.key("leases");
    booth
        .ask(&["ZADD", &leases, "XX", "0", &b.id.to_string()])
        .await;
    assert!(!write(&booth, &while_b, "7").await);
    let (token, _) = first(after(&*again, &behind).await);
    assert!(write(&booth, &guard(a.id, &token).await, "8").await);
}

#[tokio::test]
async fn a_registry_over_something_else_guards_no_write() {
    let (registry, token) = (Memory::new().connect(), FencingToken::new("a", 1));
    let guarded = sd_redis::leads(&registry, &name(), ticket("a").id, &token).await;
    let error = guarded.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.report().to_string().contains("over memory"));
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn tokens_grow_with_the_clock_and_never_go_back_in_their_history() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let token = async |value| {
        let ticket = ticket(value);
        let token = leads(&*elector.join(&ticket).await.unwrap()).await;
        elector.leave(&ticket).await.unwrap();
        token
    };
    let one = token("one").await;
    let history = booth.key("history");
    let domain = booth.ask(&["HGET", &history, "domain"]).await;
    assert_eq!(one.domain(), domain);
    let clock = std::time::SystemTime::now();
    let clock = clock.duration_since(std::time::UNIX_EPOCH).unwrap();
    // Microseconds of this machine's clock, which is the server's.
    let apart = u128::from(one.value()).abs_diff(clock.as_micros());
    assert!(apart < 60_000_000, "{one:?}");

    // As if the server's clock had been ahead, and was put back.
    let ahead = one.value() + 1_000_000_000_000;
    booth
        .ask(&["HSET", &history, "last", &ahead.to_string()])
        .await;
    let two = token("two").await;
    assert_eq!((two.domain(), two.value()), (one.domain(), ahead + 1));

    // As if the last numbers were lost at a failover.
    booth.ask(&["HDEL", &history, "last"]).await;
    let three = token("three").await;
    assert!(three > one, "{three:?} {one:?}");

    booth.ask(&["DEL", &history]).await;
    assert_ne!(token("four").await.domain(), one.domain());
    // Beyond what Lua counts exactly, and no number at all.
    for last in ["9007199254740991", "inf", "nan"] {
        booth.ask(&["HSET", &history, "last", last]).await;
        let refused = elector.join(&ticket("five")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidData, "{last}");
        let report = refused.report().to_string();
        assert!(
            report.contains(&history) && report.contains("remove"),
            "{report}"
        );
    }
    assert_eq!(booth.count().await, 0);
}

/// Lua would write it as 2e+15.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_token_that_ends_in_many_zeros_keeps_its_digits() {
    const ROUND: u64 = 2_000_000_000_000_000;
    let booth = Booth::at(&server());
    let slow = Booth::with(&server(), &booth.prefix, |config| {
        config.with_poll_interval(Duration::from_secs(3600))
    });
    let (one, two) = (booth.elector(), slow.elector());
    let mut feed = two.observe(&name()).await.unwrap();
    assert_eq!(leader_told(&mut *feed).await, None);
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    leads(&*one.join(&a).await.unwrap()).await;
    assert_eq!(leader_told(&mut *feed).await.unwrap().id, Some(a.id));
    let (history, last) = (booth.key("history"), (ROUND - 1).to_string());
    booth.ask(&["HSET", &history, "last", &last]).await;
    two.join(&b).await.unwrap();
    // As after an answer that was lost.
    let next = two.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    let told = after(&*next, &waiting);
    tokio::pin!(told);
    is_waiting(told.as_mut());
    one.leave(&a).await.unwrap();
    assert_eq!(first(told.await).0.value(), ROUND);
    next.confirm().await.unwrap();
    let leader = leader_told(&mut *feed).await.unwrap();
    assert_eq!((leader.id, leader.token.value()), (Some(b.id), ROUND));
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn who_leaves_and_joins_again_is_behind_those_who_waited_behind_it() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let tickets = ["a", "b", "c"].map(|value| ticket_for(value, LASTING));
    let [a, b, c] = &tickets;
    leads(&*elector.join(a).await.unwrap()).await;
    let middle = elector.join(b).await.unwrap();
    let last = elector.join(c).await.unwrap();
    let waiting = waits(&*last).await;
    elector.leave(b).await.unwrap();
    gone(now(&*middle).await);
    let middle = elector.join(b).await.unwrap();
    let behind = waits(&*middle).await;
    elector.leave(a).await.unwrap();
    first(after(&*last, &waiting).await);
    waits(&*middle).await;
    elector.leave(c).await.unwrap();
    first(after(&*middle, &behind).await);
}

/// In the step in which the leader leaves, the server tells the next one, which needs not read.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn the_next_candidate_is_woken_by_a_message_and_not_by_polling() {
    let booth = Booth::at(&server());
    let slow = Booth::with(&server(), &booth.prefix, |config| {
        config.with_poll_interval(Duration::from_secs(3600))
    });
    let (one, two) = (booth.elector(), slow.elector());
    let mut feed = slow.elector().observe(&name()).await.unwrap();
    assert_eq!(leader_told(&mut *feed).await, None);
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    leads(&*one.join(&a).await.unwrap()).await;
    assert_eq!(leader_told(&mut *feed).await.unwrap().id, Some(a.id));
    let next = two.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    let told = after(&*next, &waiting);
    tokio::pin!(told);
    is_waiting(told.as_mut());
    one.leave(&a).await.unwrap();
    first(told.await);
    assert_eq!(leader_told(&mut *feed).await.unwrap().id, Some(b.id));
}

/// As with a message that was lost.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn what_no_message_told_is_found_by_polling_and_by_confirming() {
    let booth = Booth::at(&server());
    let slow = Booth::with(&server(), &booth.prefix, |config| {
        config.with_poll_interval(Duration::from_secs(3600))
    });
    for (elector, confirms) in [(booth.elector(), false), (slow.elector(), true)] {
        let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
        leads(&*elector.join(&a).await.unwrap()).await;
        let next = elector.join(&b).await.unwrap();
        let waiting = waits(&*next).await;
        let told = after(&*next, &waiting);
        tokio::pin!(told);
        // An operator removes the leader without a word.
        let (order, id) = (booth.key("order"), a.id.to_string());
        assert_eq!(booth.ask(&["ZREM", &order, &id]).await, "1");
        if confirms {
            let early = timeout(2 * POLL_INTERVAL, &mut told).await;
            assert!(early.is_err(), "{early:?}");
            next.confirm().await.unwrap();
        }
        first(told.await);
        elector.leave(&b).await.unwrap();
    }
}

/// A message tells at once who is the first. What other programs write there does not.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn what_another_program_publishes_there_makes_no_candidate_lead() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
    let leader = elector.join(&a).await.unwrap();
    let token = leads(&*leader).await;
    let next = elector.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    let (channel, id) = (booth.key("changes"), b.id);
    for message in [
        String::new(),
        "garbage".to_owned(),
        id.to_string(),
        // Of another participation with this id.
        format!("{id} {}", token.value()),
        "- 0 *".to_owned(),
        format!("{} {} {id}", a.id, token.value()),
    ] {
        let told = after(&*next, &waiting);
        tokio::pin!(told);
        assert!(
            timeout(Duration::from_millis(100), &mut told)
                .await
                .is_err()
        );
        booth.ask(&["PUBLISH", &channel, &message]).await;
        let early = timeout(Duration::from_millis(200), told).await;
        assert!(early.is_err(), "{message}: {early:?}");
    }
    leader.confirm().await.unwrap();
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_leader_that_another_one_is_before_again_leads_no_more() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let ticket = ticket_for("a", LASTING);
    let entry = elector.join(&ticket).await.unwrap();
    let leading = now(&*entry).await;
    // As on a replica that had not heard yet that an earlier leader has left, and is the primary now.
    let earlier = first(leading.clone()).0.value() - 1;
    let (other, far) = ("00000000000000ab", "9000000000000000");
    let [order, leases, owners] = ["order", "leases", "owners"].map(|part| booth.key(part));
    booth
        .ask(&["ZADD", &order, &earlier.to_string(), other])
        .await;
    booth.ask(&["HSET", &owners, other, "its own"]).await;
    booth.ask(&["ZADD", &leases, far, other]).await;
    let error = entry.confirm().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{}", error.report());
    let told = gone(after(&*entry, &leading).await);
    assert_eq!(told.kind(), ErrorKind::LeaseLost);
    gone(now(&*entry).await);
    elector.leave(&ticket).await.unwrap();
    assert_eq!(booth.count().await, 1);
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn a_key_of_another_type_is_told_and_nothing_is_half_done() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    for part in ["order", "leases", "owners", "values", "history"] {
        let foreign = booth.key(part);
        booth.ask(&["SET", &foreign, "another program's"]).await;
        let refused = elector.join(&ticket("a")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidData, "{part}");
        assert_eq!(booth.ask(&["GET", &foreign]).await, "another program's");
        booth.ask(&["DEL", &foreign]).await;
        for other in ["order", "leases", "owners", "values", "history"] {
            let exists = booth.ask(&["EXISTS", &booth.key(other)]).await;
            assert_eq!(exists, "0", "{part} {other}");
        }
    }
    leads(&*elector.join(&ticket("a")).await.unwrap()).await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn an_election_whose_keys_are_removed_begins_from_the_beginning() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let all = ["order", "leases", "owners", "values", "history"].map(|part| booth.key(part));
    for lost in [&all[..], &all[4..]] {
        let (a, b) = (ticket_for("a", LASTING), ticket_for("b", LASTING));
        let leader = elector.join(&a).await.unwrap();
        let leading = now(&*leader).await;
        let next = elector.join(&b).await.unwrap();
        waits(&*next).await;
        let words: Vec<&str> = ["DEL"]
            .into_iter()
            .chain(lost.iter().map(String::as_str))
            .collect();
        booth.ask(&words).await;
        for entry in [&leader, &next] {
            let error = entry.confirm().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report());
        }
        gone(told_at_last(&*leader, &leading).await);
        let again = ticket_for("c", LASTING);
        let entry = elector.join(&again).await.unwrap();
        let token = leads(&*entry).await;
        assert_ne!(token.domain(), first(leading).0.domain());
        for ticket in [&a, &b, &again] {
            elector.leave(ticket).await.unwrap();
        }
        assert_eq!(booth.count().await, 0);
    }
}

#[test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
fn an_election_goes_on_while_the_application_is_blocked() {
    let backend = Booth::at(&server()).backend;
    faults::an_election_goes_on_while_the_application_is_blocked(&(backend as Arc<dyn Backend>));
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn an_elector_outlives_the_runtime_that_it_was_first_used_on() {
    let backend = Booth::at(&server()).backend;
    faults::an_elector_outlives_the_runtime_that_it_was_first_used_on(
        &(backend as Arc<dyn Backend>),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn what_can_lead_to_two_leaders_is_told() {
    let booth = Booth::at(&server());
    let safety = booth.elector().safety().await.unwrap();
    let codes: Vec<&str> = safety.warnings().map(|note| note.code).collect();
    let always = [
        "confirmed-writes-lost-at-failover",
        "leases-by-the-servers-clock",
    ];
    assert_eq!(codes, always);
    assert!(safety.fair && safety.failover_within(LONG) < LONG + Duration::from_secs(1));
}

/// However many there are, and however often an elector is asked for.
#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn the_elections_of_a_registry_share_two_connections() {
    let server = own_server().await;
    let booth = Booth::alone(&server.program().url());
    let mut entries = Vec::new();
    for number in 0..5 {
        let name = ElectionName::new(format!("election-{number}")).unwrap();
        let (elector, ticket) = (booth.elector(), Ticket::new(name, *b"a", LASTING));
        entries.push((elector.join(&ticket).await.unwrap(), elector));
    }
    let clients = booth.ask(&["CLIENT", "LIST"]).await;
    // One is the operator's.
    let ours = clients.lines().filter(|line| line.starts_with("id="));
    assert_eq!(ours.count(), 2 + 1, "{clients}");
}
