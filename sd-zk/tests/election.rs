//! Elections over a running ZooKeeper: what every backend must do, other programs' nodes, guarded writes, what is promised.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::election::{
    Booth, after, candidates, expire_owner, first, folder, gone, leader_told, leads, name, node_of,
    now, ticket, ticket_for, told_at_last, waits,
};
use common::{LONG, TTL, config, end_session, eventually, make, prefix, raw, server};
use sd_core::memory::Memory;
use sd_core::port::{Ticket, async_trait};
use sd_core::{Backend, ElectionName, Error, ErrorKind, FencingToken, Result};
use sd_testing::{Ability, Fixture, electing, faults};
use sd_zk::ZkBackend;
use tokio::time::sleep;
use zookeeper_client as zk;

/// Elections of its own in the running ZooKeeper, and an operator beside the library.
struct Prefix {
    prefix: String,
    operator: zk::Client,
}

impl Prefix {
    async fn new() -> Self {
        Self {
            prefix: prefix(),
            operator: raw(&server()).await,
        }
    }

    fn elections(&self) -> String {
        format!("{}-elections", self.prefix)
    }

    async fn node_of(&self, ticket: &Ticket) -> Option<String> {
        let folder = folder(&self.elections(), &ticket.name);
        node_of(&self.operator, &folder, ticket).await
    }
}

#[async_trait]
impl Fixture for Prefix {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        let config = config(&self.prefix).with_election_prefix(self.elections());
        Ok(Arc::new(ZkBackend::new(config)?))
    }

    fn lacks(&self) -> Vec<Ability> {
        vec![Ability::Leases, Ability::PermanentRecords, Ability::Release]
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    async fn remove_entry(&self, ticket: &Ticket) -> Result<()> {
        let node = self.node_of(ticket).await.unwrap();
        let deleted = self.operator.delete(&node, None).await;
        deleted.map_err(|error| Error::new(ErrorKind::Unavailable, "operator").with_source(error))
    }

    async fn expire_entry(&self, ticket: &Ticket) -> Result<()> {
        let node = self.node_of(ticket).await.unwrap();
        expire_owner(&self.operator, &server(), &node).await;
        Ok(())
    }

    async fn entries(&self, election: &ElectionName) -> Result<usize> {
        let folder = folder(&self.elections(), election);
        Ok(candidates(&self.operator, &folder).await.len())
    }
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn passes_all_electing_cases() {
    electing::run_all(&Prefix::new().await)
        .await
        .expect_passed();
}

/// Writes only if a node is there.
async fn write(client: &zk::Client, target: &str, guard: &str) -> bool {
    let mut write = client.new_multi_writer();
    write.add_check_version(guard, -1).unwrap();
    write.add_set_data(target, b"written", None).unwrap();
    match write.commit().await {
        Ok(_) => true,
        Err(zk::MultiWriteError::OperationFailed {
            index: 0,
            source: zk::Error::NoNode,
        }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_guarded_write_succeeds_while_the_term_lasts_and_never_after() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let client = raw(&server()).await;
    let target = format!("{}-target", booth.prefix);
    make(&client, &target).await;
    let (a, b) = (ticket("a"), ticket("b"));
    let leader = elector.join(&a).await.unwrap();
    let stale = leads(&*leader).await;
    let next = elector.join(&b).await.unwrap();
    let registry = booth.registry();
    let guard = async |id, token: &FencingToken| sd_zk::leads(&registry, &name(), id, token).await;
    let while_a = guard(a.id, &stale).await.unwrap();
    assert!(write(&client, &target, &while_a).await);
    leader.proclaim(b"still the same term").await.unwrap();
    assert!(write(&client, &target, &while_a).await);

    elector.leave(&a).await.unwrap();
    let current = leads(&*next).await;
    assert!(!write(&client, &target, &while_a).await);
    let while_b = guard(b.id, &current).await.unwrap();
    assert!(write(&client, &target, &while_b).await);
    // The same candidate in another term.
    elector.join(&a).await.unwrap();
    assert!(!write(&client, &target, &while_a).await);
    for (id, token) in [(a.id, &stale), (b.id, &stale), (a.id, &current)] {
        let error = guard(id, token).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LeaseLost, "{}", error.report());
    }
    elector.leave(&a).await.unwrap();
    elector.leave(&b).await.unwrap();
    assert!(!write(&client, &target, &while_b).await);
}

#[tokio::test]
async fn a_registry_over_something_else_guards_no_write() {
    let (registry, token) = (Memory::new().connect(), FencingToken::new("a", 1));
    let guarded = sd_zk::leads(&registry, &name(), ticket("a").id, &token).await;
    let error = guarded.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.report().to_string().contains("over memory"));
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_token_is_the_change_that_created_the_node_in_the_history_that_its_domain_names() {
    let booth = Booth::at(&server());
    let elector = booth.elector();
    let ticket = ticket("a");
    let token = leads(&*elector.join(&ticket).await.unwrap()).await;
    let client = raw(&server()).await;
    let folder = booth.folder(&name());
    let node = node_of(&client, &folder, &ticket).await.unwrap();
    let stat = client.check_stat(&node).await.unwrap().unwrap();
    assert_eq!(token.value(), stat.czxid.cast_unsigned());
    let history = format!("{}/.history", booth.prefix);
    let (domain, _) = client.get_data(&history).await.unwrap();
    assert_eq!(token.domain().as_bytes(), domain);
    elector.leave(&ticket).await.unwrap();

    // The sequence of the nodes begins again, and the tokens do not.
    client.delete(&folder, None).await.unwrap();
    let other = booth.elector();
    let again = leads(&*other.join(&ticket).await.unwrap()).await;
    let node = node_of(&client, &folder, &ticket).await.unwrap();
    assert!(node.ends_with("-0000000000") && again > token, "{node}");
}

/// Of Curator's nodes, and of any others in its folder, which it counts as well.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn other_programs_candidates_queue_with_ours_and_are_told_to_observers() {
    let booth = Booth::at(&server());
    let (elector, client) = (booth.elector(), raw(&server()).await);
    let folder = booth.folder(&name());
    let mut feed = elector.observe(&name()).await.unwrap();
    assert_eq!(leader_told(feed.as_mut()).await, None);

    make(&client, &folder).await;
    let options = zk::CreateMode::EphemeralSequential.with_acls(zk::Acls::anyone_all());
    let theirs = format!("{folder}/_c_8d1a1ee0-8e4c-4c4f-9d37-1f6e1d2b9a11-latch-");
    let (_, sequence) = client.create(&theirs, b"theirs", &options).await.unwrap();
    let theirs = format!("{theirs}{sequence}");
    let leader = leader_told(feed.as_mut()).await.unwrap();
    assert_eq!((leader.id, &*leader.value), (None, &b"theirs"[..]));
    // As a client in another language, or an operator, may do.
    client.set_data(&theirs, b"changed", None).await.unwrap();
    let leader = leader_told(feed.as_mut()).await.unwrap();
    assert_eq!(&*leader.value, b"changed");
    let options = zk::CreateMode::Ephemeral.with_acls(zk::Acls::anyone_all());
    let odd = format!("{folder}/0");
    client.create(&odd, b"odd", &options).await.unwrap();
    let leader = leader_told(feed.as_mut()).await.unwrap();
    assert_eq!((leader.id, &*leader.value), (None, &b"odd"[..]));

    let ours = ticket("ours");
    let entry = elector.join(&ours).await.unwrap();
    let waiting = waits(&*entry).await;
    client.delete(&odd, None).await.unwrap();
    let leader = leader_told(feed.as_mut()).await.unwrap();
    assert_eq!(&*leader.value, b"changed");
    client.delete(&theirs, None).await.unwrap();
    let (token, _) = first(after(&*entry, &waiting).await);
    let leader = leader_told(feed.as_mut()).await.unwrap();
    assert_eq!((leader.id, leader.token), (Some(ours.id), token));
    elector.leave(&ours).await.unwrap();
    assert_eq!(leader_told(feed.as_mut()).await, None);
}

/// Its watch tells once, also of that.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_change_of_the_node_before_strands_no_candidate() {
    let booth = Booth::at(&server());
    let (elector, client) = (booth.elector(), raw(&server()).await);
    let (a, b) = (ticket("a"), ticket("b"));
    leads(&*elector.join(&a).await.unwrap()).await;
    let next = elector.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    let node = node_of(&client, &booth.folder(&name()), &a).await.unwrap();
    let told = after(&*next, &waiting);
    let changing = async {
        for _ in 0..3 {
            sleep(Duration::from_millis(100)).await;
            client.set_data(&node, b"changed", None).await.unwrap();
        }
        elector.leave(&a).await.unwrap();
    };
    let (told, ()) = tokio::join!(told, changing);
    first(told);
    elector.leave(&b).await.unwrap();
}

/// What a leader proclaims is not written into its node, since that would strand a candidate of Curator's behind it.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_is_proclaimed_changes_no_candidates_node_and_goes_with_it() {
    let booth = Booth::at(&server());
    let (elector, client) = (booth.elector(), raw(&server()).await);
    let ticket = ticket("a");
    let entry = elector.join(&ticket).await.unwrap();
    leads(&*entry).await;
    for value in [b"one", b"two"] {
        entry.proclaim(value).await.unwrap();
    }
    let folder = booth.folder(&name());
    let node = node_of(&client, &folder, &ticket).await.unwrap();
    let (data, stat) = client.get_data(&node).await.unwrap();
    assert_eq!((data.as_slice(), stat.version), (&b"a"[..], 0));
    let values = format!("{}/.values", booth.prefix);
    let proclaimed = client.list_children(&values).await.unwrap();
    assert_eq!(proclaimed.len(), 1);
    let path = format!("{values}/{}", proclaimed[0]);
    assert_eq!(client.get_data(&path).await.unwrap().0, b"two");
    elector.leave(&ticket).await.unwrap();
    assert_eq!(client.list_children(&values).await.unwrap(), [""; 0]);
}

/// What is told of the leader's node says nothing of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn an_entry_that_is_deleted_with_the_leaders_or_just_before_it_never_leads() {
    const ROUNDS: usize = 40;
    let booth = Booth::at(&server());
    let operator = raw(&server()).await;
    let folder = booth.folder(&name());
    let (one, two) = (booth.elector(), booth.elector());
    for round in 0..ROUNDS {
        let lasting = Duration::from_secs(60);
        let (a, b) = (ticket_for("a", lasting), ticket_for("b", lasting));
        leads(&*one.join(&a).await.unwrap()).await;
        let next = two.join(&b).await.unwrap();
        let waiting = waits(&*next).await;
        let told = after(&*next, &waiting);
        let nodes = [&a, &b].map(|ticket| node_of(&operator, &folder, ticket));
        let [leaders, own] = nodes;
        let (leaders, own) = (leaders.await.unwrap(), own.await.unwrap());
        let exit = async {
            // It may be at any step of its waiting.
            sleep(Duration::from_millis(round as u64)).await;
            let mut deletions = operator.new_multi_writer();
            match round % 3 {
                0 => {
                    deletions.add_delete(&leaders, None).unwrap();
                    deletions.add_delete(&own, None).unwrap();
                    deletions.commit().await.unwrap();
                }
                1 => {
                    deletions.add_delete(&own, None).unwrap();
                    deletions.add_delete(&leaders, None).unwrap();
                    deletions.commit().await.unwrap();
                }
                _ => {
                    operator.delete(&own, None).await.unwrap();
                    operator.delete(&leaders, None).await.unwrap();
                }
            }
        };
        let (told, ()) = tokio::join!(told, exit);
        match told {
            // The leader's deletion is the first step of this transaction, but both are one change.
            told if round % 3 != 0 => drop(gone(told)),
            told => drop(told),
        }
        next.confirm().await.unwrap_err();
        one.leave(&a).await.unwrap();
        two.leave(&b).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn the_candidates_of_a_registry_share_a_session_and_each_goes_for_itself() {
    let booth = Booth::at(&server());
    let client = raw(&server()).await;
    let lasting = Duration::from_secs(60);
    let join = async |name: &str| {
        let (elector, name) = (booth.elector(), ElectionName::new(name).unwrap());
        let ticket = Ticket::new(name, *b"value", lasting);
        let entry = elector.join(&ticket).await.unwrap();
        leads(&*entry).await;
        let folder = booth.folder(&ticket.name);
        let path = node_of(&client, &folder, &ticket).await.unwrap();
        (elector, ticket, entry, path)
    };
    let is_there = async |path: &str| client.check_stat(path).await.unwrap();
    let (resigns, ticket, _entry, resigned) = join("resigns").await;
    let (stays, staying, entry, stayed) = join("stays").await;
    let (drops_out, _, _, vanished) = join("vanishes").await;
    let owner = is_there(&stayed).await.unwrap().ephemeral_owner;
    for other in [&resigned, &vanished] {
        assert_eq!(is_there(other).await.unwrap().ephemeral_owner, owner);
    }
    resigns.leave(&ticket).await.unwrap();
    assert!(is_there(&resigned).await.is_none() && is_there(&vanished).await.is_some());
    drop(resigns);
    entry.confirm().await.unwrap();
    // It never leaves, and its session goes on.
    drop(drops_out);
    let is_gone = async || is_there(&vanished).await.is_none();
    eventually("gone", LONG, is_gone).await;
    entry.confirm().await.unwrap();
    let leading = now(&*entry).await;
    let (told, address) = (told_at_last(&*entry, &leading), server());
    let (told, ()) = tokio::join!(told, end_session(&address, owner));
    assert_eq!(gone(told).kind(), ErrorKind::LeaseLost);
    let again = stays.join(&staying).await.unwrap();
    assert!(leads(&*again).await > first(leading).0);
    stays.leave(&staying).await.unwrap();
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn joining_an_old_session_a_candidate_can_be_believed_at_once() {
    use sd_core::clock::{BootClock, Clock};
    use sd_core::port::CountsFrom;

    let booth = Booth::at(&server());
    let elector = booth.elector();
    let early = elector.join(&ticket("a")).await.unwrap();
    leads(&*early).await;
    sleep(2 * TTL).await;
    let late = elector.join(&ticket("b")).await.unwrap();
    let now = BootClock.now();
    let confirmed = late.confirm().await.unwrap();
    let CountsFrom::EarlierSend(proven) = confirmed.counts_from else {
        panic!("{confirmed:?}");
    };
    // Enough for a term to begin.
    assert!(
        proven <= now && now.since(proven) < TTL * 7 / 10,
        "{:?}",
        now.since(proven)
    );
}

#[test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
fn an_election_goes_on_while_the_application_is_blocked() {
    let backend = Booth::at(&server()).backend;
    faults::an_election_goes_on_while_the_application_is_blocked(&(backend as Arc<dyn Backend>));
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn an_elector_outlives_the_runtime_that_it_was_first_used_on() {
    let backend = Booth::at(&server()).backend;
    faults::an_elector_outlives_the_runtime_that_it_was_first_used_on(
        &(backend as Arc<dyn Backend>),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn an_entry_whose_session_was_expired_is_gone_and_its_ticket_can_join_again() {
    let booth = Booth::at(&server());
    let (elector, client) = (booth.elector(), raw(&server()).await);
    let folder = booth.folder(&name());
    let ticket = ticket_for("a", Duration::from_secs(60)).with_term_record();
    let entry = elector.join(&ticket).await.unwrap();
    let leading = now(&*entry).await;
    let node = node_of(&client, &folder, &ticket).await.unwrap();
    let (told, address) = (told_at_last(&*entry, &leading), server());
    let (told, ()) = tokio::join!(told, expire_owner(&client, &address, &node));
    assert_eq!(gone(told).kind(), ErrorKind::LeaseLost);
    let lost = entry.confirm().await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::LeaseLost);
    let again = elector.join(&ticket).await.unwrap();
    assert!(leads(&*again).await > first(leading).0);
    again.confirm().await.unwrap();
    elector.leave(&ticket).await.unwrap();
    assert_eq!(candidates(&client, &folder).await, [""; 0]);
}
