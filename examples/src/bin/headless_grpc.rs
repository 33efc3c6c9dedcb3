//! How do I balance gRPC calls over a service that has only a DNS name, such as a headless service of Kubernetes?
//!
//! ```text
//! cargo run -p examples --bin headless_grpc --features dns
//! ```
//!
//! Starts two servers at two addresses, with a DNS server that knows them under one name, and prints which one answers each of six
//! calls: they take turns. A channel that dials the name itself would use one address for all of them.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::error::Error;
use std::time::Duration;

use examples::greeter::{GreeterClient, GreeterServer, HelloRequest};
use examples::{Headless, Hello};
use sd_grpc::{AttemptInfo, BalancedChannel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Request;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (service, listeners) = Headless::start().await?;
    let mut servers = JoinSet::new();
    for (listener, copy) in listeners.into_iter().zip(["first", "second"]) {
        let greeter = GreeterServer::new(Hello::from(copy));
        let server = Server::builder().add_service(greeter);
        servers.spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    }

    // In your cluster: sd_any::connect("dns:///prod.svc.cluster.local.?port=50051")
    let registry = sd_any::connect(&service.url())?;
    let channel = BalancedChannel::builder(&registry, "greeter").build()?;
    timeout(Duration::from_secs(10), both_are_found(&channel)).await?;

    let mut client = GreeterClient::new(channel.clone());
    for _ in 0..6 {
        let name = "world".to_owned();
        let mut request = Request::new(HelloRequest { name });
        request.set_timeout(Duration::from_secs(2));
        let reply = client.say_hello(request).await?;
        let endpoint = reply.extensions().get::<AttemptInfo>();
        let endpoint = endpoint.map_or("?", AttemptInfo::endpoint);
        println!("{}, which is {endpoint}", reply.get_ref().message);
    }

    channel.close().await;
    registry.close().await?;
    Ok(())
}

/// Needed only because this example wants to show both in turn.
async fn both_are_found(channel: &BalancedChannel) {
    while channel.dump().endpoints.len() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
}
