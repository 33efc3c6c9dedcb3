//! How do I use discovery with one of tower's balancers?
//!
//! ```text
//! cargo run -p examples --bin tower_balance
//! cargo run -p examples --bin tower_balance --features etcd -- etcd://127.0.0.1:2379/services
//! ```
//!
//! Prints which server answers each of six calls. Tower's power of two choices picks it by the number of calls in flight.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use examples::HelloServer;
use examples::greeter::{GreeterClient, HelloRequest};
use sd_core::Instance;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tower::balance::p2c::Balance;
use tower::load::{CompleteOnResponse, PendingRequestsDiscover};

const SERVICE: &str = "example-tower";
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = examples::registry_from_arguments()?;
    let first = HelloServer::start(&registry, SERVICE, "first").await?;
    let second = HelloServer::start(&registry, SERVICE, "second").await?;

    // One service for each ready instance, made when the instance comes and dropped when it goes. tower's balancers take this
    // stream.
    let discover = sd_grpc::discover(registry.subscribe(SERVICE)?, connect);
    let discover = PendingRequestsDiscover::new(discover, CompleteOnResponse::default());
    let mut client = GreeterClient::new(Balance::new(discover));
    for _ in 0..6 {
        let name = "world".to_owned();
        // Without endpoints tower's balancer waits for ever.
        let reply = timeout(LIMIT, client.say_hello(HelloRequest { name })).await??;
        println!("{}", reply.get_ref().message);
    }

    first.stop().await?;
    second.stop().await?;
    registry.close().await?;
    Ok(())
}

fn connect(instance: &Arc<Instance>) -> Channel {
    let uri = format!("http://{}", instance.endpoint());
    match Endpoint::from_shared(uri) {
        Ok(endpoint) => endpoint.connect_lazy(),
        // A Unix socket would need a connector of its own.
        Err(_) => Endpoint::from_static("http://unreachable.invalid").connect_lazy(),
    }
}
