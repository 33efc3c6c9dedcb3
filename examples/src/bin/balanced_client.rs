//! How does my tonic client use every instance of a service?
//!
//! ```text
//! cargo run -p examples --bin balanced_client
//! cargo run -p examples --bin balanced_client --features etcd -- etcd://127.0.0.1:2379/services
//! ```
//!
//! Starts two servers, and prints which one answers each of six calls: they take turns.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::error::Error;
use std::time::Duration;

use examples::HelloServer;
use examples::greeter::{GreeterClient, HelloRequest};
use sd_grpc::{AttemptInfo, BalancedChannel, Idempotent};
use tokio::time::{sleep, timeout};
use tonic::Request;

const SERVICE: &str = "example-balanced";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = examples::registry_from_arguments()?;
    let first = HelloServer::start(&registry, SERVICE, "first").await?;
    let second = HelloServer::start(&registry, SERVICE, "second").await?;

    // Does not wait. A call waits for an endpoint, at most until its deadline. Clones share all connections.
    let channel = BalancedChannel::builder(&registry, SERVICE)
        .attempt_timeout(Duration::from_millis(500))
        .build()?;
    timeout(Duration::from_secs(10), both_are_found(&channel)).await?;

    let mut client = GreeterClient::new(channel.clone());
    for _ in 0..6 {
        let name = "world".to_owned();
        let mut request = Request::new(HelloRequest { name });
        // For all attempts together, whichever endpoints they go to.
        request.set_timeout(Duration::from_secs(2));
        // The call may be executed twice: if an endpoint fails or is silent, the call moves on to another one. Without this
        // mark a call is retried only if it was never sent.
        request.extensions_mut().insert(Idempotent);
        let reply = client.say_hello(request).await?;
        let endpoint = reply.extensions().get::<AttemptInfo>();
        let endpoint = endpoint.map_or("?", AttemptInfo::endpoint);
        println!("{}, which is {endpoint}", reply.get_ref().message);
    }

    channel.close().await;
    first.stop().await?;
    second.stop().await?;
    registry.close().await?;
    Ok(())
}

/// Needed only because this example wants to show both in turn.
async fn both_are_found(channel: &BalancedChannel) {
    while channel.dump().endpoints.len() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
}
