//! How do I decide myself which endpoint a call goes to?
//!
//! ```text
//! cargo run -p examples --bin own_policy
//! cargo run -p examples --bin own_policy --features etcd -- etcd://127.0.0.1:2379/services
//! ```
//!
//! Has each user served by one of three servers, always the same one, so that this server can keep what it knows of the user. When a
//! server stops, only its users move. The policy works for an `EndpointCache` just as well.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use examples::HelloServer;
use examples::greeter::{GreeterClient, HelloRequest};
use sd_core::balance::{CallInfo, Candidates, Picker, Policy};
use sd_grpc::{BalancedChannel, HashKey};
use tokio::time::{sleep, timeout};
use tonic::Request;

const SERVICE: &str = "example-policy";
const USERS: [&str; 12] = [
    "Ada", "Alan", "Barbara", "Dennis", "Edsger", "Frances", "Grace", "Jean", "Ken", "Leslie",
    "Margaret", "Niklaus",
];

/// Rendezvous hashing: of all endpoints, a key belongs to the one whose id hashes highest together with it.
#[derive(Debug)]
struct Rendezvous;

/// The hashes of the endpoints' ids.
#[derive(Debug)]
struct Ids(Box<[u64]>);

impl Policy for Rendezvous {
    // Called when the set changes, so this may take a while.
    fn picker(&self, candidates: &Candidates<'_>, _: Option<&dyn Picker>) -> Box<dyn Picker> {
        let ids = candidates
            .iter()
            .map(|candidate| hash(candidate.instance().id().as_str()));
        Box::new(Ids(ids.collect()))
    }
}

impl Picker for Ids {
    // Called for each call, so this must not.
    fn pick(&self, call: &CallInfo<'_>) -> Option<usize> {
        let key = call.hash_key().unwrap_or_default();
        let all = self.0.iter().enumerate();
        all.filter(|(index, _)| !call.has_tried(*index))
            .max_by_key(|(_, id)| hash((key, **id)))
            .map(|(index, _)| index)
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = examples::registry_from_arguments()?;
    let first = HelloServer::start(&registry, SERVICE, "first").await?;
    let second = HelloServer::start(&registry, SERVICE, "second").await?;
    let third = HelloServer::start(&registry, SERVICE, "third").await?;

    let channel = BalancedChannel::builder(&registry, SERVICE)
        .policy(Rendezvous)
        .build()?;
    timeout(Duration::from_secs(10), picked(&channel, 3)).await?;
    let before = serve_all(&channel).await?;
    for (user, server) in &before {
        println!("{user} is served by {server}");
    }
    if serve_all(&channel).await? != before {
        return Err("a user was served by two servers".into());
    }

    third.stop().await?;
    timeout(Duration::from_secs(10), picked(&channel, 2)).await?;
    let after = serve_all(&channel).await?;
    for (user, server) in &after {
        let moved = before.get(user) != Some(server);
        if moved != (before.get(user).map(String::as_str) == Some("third")) {
            return Err(format!("{user} moved without need, or not at all").into());
        }
        if moved {
            println!("{user} moved to {server}, because the third server has stopped");
        }
    }

    channel.close().await;
    first.stop().await?;
    second.stop().await?;
    registry.close().await?;
    Ok(())
}

/// Greets every user, and says which server did.
async fn serve_all(
    channel: &BalancedChannel,
) -> Result<BTreeMap<&'static str, String>, Box<dyn Error>> {
    let mut client = GreeterClient::new(channel.clone());
    let mut served_by = BTreeMap::new();
    for user in USERS {
        let name = user.to_owned();
        let mut request = Request::new(HelloRequest { name });
        request.extensions_mut().insert(HashKey(hash(user)));
        let reply = client.say_hello(request).await?.into_inner().message;
        let copy = reply.rsplit(' ').next().unwrap_or_default();
        served_by.insert(user, copy.to_owned());
    }
    Ok(served_by)
}

/// Needed only because this example wants to show that no user moves to another server.
async fn picked(channel: &BalancedChannel, count: usize) {
    while channel
        .dump()
        .endpoints
        .iter()
        .filter(|one| one.picked)
        .count()
        != count
    {
        sleep(Duration::from_millis(10)).await;
    }
}
