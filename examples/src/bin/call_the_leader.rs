//! How do I call whichever process leads?
//!
//! ```text
//! cargo run -p examples --bin call_the_leader
//! cargo run -p examples --bin call_the_leader --features etcd -- etcd://127.0.0.1:2379/services
//! ```
//!
//! Starts two workers that can lead, and calls the leader before and after the first one resigns.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use examples::Hello;
use examples::greeter::{GreeterClient, GreeterServer, HelloRequest};
use sd_core::Registry;
use sd_election::{Candidate, LeaderInstancer};
use sd_grpc::BalancedChannel;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Status};

const ELECTION: &str = "example/call-the-leader";
const SOON: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = examples::registry_from_arguments()?;
    let (first, second) = (
        worker(&registry, "first").await?,
        worker(&registry, "second").await?,
    );

    // A registry in which every service is the leader of this election.
    let leaders = Registry::reading(Arc::new(LeaderInstancer::new(&registry, ELECTION)?));
    // A call waits while there is no leader, at most until its deadline.
    let channel = BalancedChannel::builder(&leaders, "leader")
        .default_deadline(SOON)
        .wait_for_ready(true)
        .build()?;

    let leadership = timeout(SOON, first.campaign()).await??;
    println!("{}", ask(&channel).await?);
    leadership.resign().await?;

    let leadership = timeout(SOON, second.campaign()).await??;
    // A call that is made before the news has arrived goes to the former leader.
    timeout(SOON, async {
        while !ask(&channel).await?.ends_with("second") {
            sleep(Duration::from_millis(10)).await;
        }
        Ok::<_, Status>(())
    })
    .await??;
    println!("{}", ask(&channel).await?);
    leadership.resign().await?;
    Ok(registry.close().await?)
}

/// A server, and its candidate, whose value is the server's address.
async fn worker(registry: &Registry, name: &str) -> Result<Candidate, Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let greeter = GreeterServer::new(Hello::from(name));
    let serving = Server::builder()
        .add_service(greeter)
        .serve_with_incoming(TcpIncoming::from(listener));
    // Ends with the program.
    drop(tokio::spawn(serving));
    let candidate = Candidate::builder(registry, ELECTION)
        .value(address.to_string())
        .ttl(Duration::from_secs(10))
        .build()?;
    Ok(candidate)
}

async fn ask(channel: &BalancedChannel) -> Result<String, Status> {
    let name = "leader".to_owned();
    let request = Request::new(HelloRequest { name });
    let reply = GreeterClient::new(channel.clone()).say_hello(request).await;
    Ok(reply?.into_inner().message)
}
