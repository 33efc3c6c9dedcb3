//! Elections together with candidates of reception's. Its order is written here as its client has it: the children whose names are those of
//! protected sequential nodes and whose data are its JSON, by their sequence as numbers. The first one leads.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::election::{expire_owner, folder, leader_told, leads, name, ticket, waits};
use common::{TTL, close, config, make, prefix, raw, server};
use sd_core::port::{Elector, Ticket, async_trait};
use sd_core::{Backend, ElectionName, Error, ErrorKind, Result};
use sd_testing::standings::{after, first};
use sd_testing::{Ability, Fixture, electing};
use sd_zk::{ElectionFormat, ZkBackend};
use serde::Deserialize;
use zookeeper_client as zk;

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "address")]
    _address: String,
    #[serde(rename = "port")]
    _port: u16,
    #[serde(rename = "attributes")]
    _attributes: BTreeMap<String, String>,
}

/// What reception's `ListServices` tells of an election: the ids in the order in which they lead.
async fn ids(client: &zk::Client, folder: &str) -> Vec<String> {
    let mut found = BTreeMap::new();
    for node in client.list_children(folder).await.unwrap() {
        let Some((guid, rest)) = node.strip_prefix("_c_").and_then(|n| n.split_once('-')) else {
            continue;
        };
        let (id, sequence) = rest.rsplit_once('-').unwrap();
        if guid.len() != 32 || sequence.len() != 10 {
            continue;
        }
        let (data, _) = client.get_data(&format!("{folder}/{node}")).await.unwrap();
        if serde_json::from_slice::<Service>(&data).is_ok() {
            found.insert(sequence.parse::<u64>().unwrap(), id.to_owned());
        }
    }
    found.into_values().collect()
}

/// Joins as reception does.
async fn join(client: &zk::Client, folder: &str, id: &str, port: u16) {
    let guid = format!("{:032x}", fastrand::u128(..));
    let prefix = format!("{folder}/_c_{guid}-{id}-");
    let data = format!(r#"{{"address":"10.0.0.9","port":{port},"attributes":{{}}}}"#);
    let options = zk::CreateMode::EphemeralSequential.with_acls(zk::Acls::anyone_all());
    let joined = client.create(&prefix, data.as_bytes(), &options).await;
    joined.unwrap();
}

fn backend(prefix: &str, format: ElectionFormat) -> Arc<ZkBackend> {
    let config = config(&format!("{prefix}-services"))
        .with_election_prefix(prefix)
        .with_election_format(format);
    Arc::new(ZkBackend::new(config).unwrap())
}

fn elector(backend: &Arc<ZkBackend>) -> Arc<dyn Elector> {
    let elector = Arc::clone(backend).elector().unwrap();
    elector.into_strict().unwrap()
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn receptions_candidates_and_ours_lead_in_one_order() {
    let prefix = prefix();
    let backend = backend(&prefix, ElectionFormat::Reception);
    let elector = elector(&backend);
    let folder = format!("{prefix}/reports%2Fnightly");
    let (receptions, other) = (raw(&server()).await, raw(&server()).await);
    make(&receptions, &folder).await;

    join(&receptions, &folder, "r-1", 80).await;
    let (a, b) = (ticket("10.0.0.1:50051"), ticket("host-7"));
    let ours = elector.join(&a).await.unwrap();
    join(&other, &folder, "r-2", 81).await;
    let last = elector.join(&b).await.unwrap();
    let order = ["r-1", &a.id.to_string(), "r-2", &b.id.to_string()].map(str::to_owned);
    assert_eq!(ids(&receptions, &folder).await, order);
    let (waiting, behind) = (waits(&*ours).await, waits(&*last).await);
    let mut observed = elector.observe(&name()).await.unwrap();
    let leader = leader_told(&mut *observed).await.unwrap();
    assert_eq!(leader.id, None);
    assert_eq!(&*leader.value, b"10.0.0.9:80");

    // Its process ends, and ours is next in both orders.
    close(receptions).await;
    let (token, _) = first(after(&*ours, &waiting).await);
    assert_eq!(ids(&other, &folder).await, order[1..]);
    let leader = leader_told(&mut *observed).await.unwrap();
    assert_eq!((leader.id, leader.token), (Some(a.id), token.clone()));
    assert_eq!(&*leader.value, b"10.0.0.1:50051");
    ours.confirm().await.unwrap();
    ours.proclaim(b"still the same").await.unwrap();
    assert_eq!(ids(&other, &folder).await, order[1..]);

    elector.leave(&a).await.unwrap();
    assert_eq!(ids(&other, &folder).await, order[2..]);
    close(other).await;
    let (next, _) = first(after(&*last, &behind).await);
    assert!(next.value() > token.value());
    elector.leave(&b).await.unwrap();
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn a_candidate_of_one_format_is_not_let_in_beside_those_of_another() {
    for (there, refused) in [
        (ElectionFormat::Curator, ElectionFormat::Reception),
        (ElectionFormat::Reception, ElectionFormat::Curator),
    ] {
        let prefix = prefix();
        let [there, refused] = [there, refused].map(|format| elector(&backend(&prefix, format)));
        let (a, b) = (ticket("a"), ticket("b"));
        let leader = there.join(&a).await.unwrap();
        let error = refused.join(&b).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let report = error.report().to_string();
        assert!(report.contains("election_format"), "{report}");
        leads(&*leader).await;
        there.leave(&a).await.unwrap();
    }
}

/// Elections of its own, and an operator beside the library.
struct Prefix {
    prefix: String,
    operator: zk::Client,
}

impl Prefix {
    async fn nodes(&self, election: &ElectionName) -> Vec<String> {
        let folder = folder(&self.prefix, election);
        let nodes = self.operator.list_children(&folder).await;
        let nodes = nodes.unwrap_or_default().into_iter();
        nodes.map(|node| format!("{folder}/{node}")).collect()
    }

    async fn node_of(&self, ticket: &Ticket) -> String {
        let id = format!("-{}-", ticket.id);
        let mut nodes = self.nodes(&ticket.name).await.into_iter();
        nodes.find(|node| node.contains(&id)).unwrap()
    }
}

#[async_trait]
impl Fixture for Prefix {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        Ok(backend(&self.prefix, ElectionFormat::Reception))
    }

    fn lacks(&self) -> Vec<Ability> {
        vec![Ability::Leases, Ability::PermanentRecords, Ability::Release]
    }

    fn ttl(&self) -> Duration {
        TTL
    }

    async fn remove_entry(&self, ticket: &Ticket) -> Result<()> {
        let deleted = self
            .operator
            .delete(&self.node_of(ticket).await, None)
            .await;
        deleted.map_err(|error| Error::new(ErrorKind::Unavailable, "operator").with_source(error))
    }

    async fn expire_entry(&self, ticket: &Ticket) -> Result<()> {
        expire_owner(&self.operator, &server(), &self.node_of(ticket).await).await;
        Ok(())
    }

    async fn entries(&self, election: &ElectionName) -> Result<usize> {
        Ok(self.nodes(election).await.len())
    }
}

#[tokio::test]
#[ignore = "needs zk of any version: cargo xtask test --backend zk"]
async fn passes_all_electing_cases_in_receptions_format() {
    let elections = Prefix {
        prefix: prefix(),
        operator: raw(&server()).await,
    };
    electing::run_all(&elections).await.expect_passed();
}
