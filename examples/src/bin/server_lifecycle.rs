//! How does my tonic server get found, and how does it stop without a failed call?
//!
//! ```text
//! cargo run -p examples --bin server_lifecycle
//! cargo run -p examples --bin server_lifecycle --features etcd -- etcd://127.0.0.1:2379/services
//! ```
//!
//! Prints what others see of the server: nothing, ready, not ready while it drains, nothing.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::error::Error;
use std::time::Duration;

use examples::Hello;
use examples::greeter::GreeterServer;
use sd_core::{Instance, Subscription, advertised_address};
use sd_grpc::{Server, Services};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const SERVICE: &str = "example-lifecycle";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = examples::registry_from_arguments()?;
    let others = registry.subscribe(SERVICE)?;
    others.wait_until_known(Duration::from_secs(10)).await?;
    let (stop, stopped) = oneshot::channel();
    let others = tokio::spawn(watch(others, stop));

    // Port 0 stands for any free port. On 0.0.0.0, `advertised_address` finds an address that clients can dial.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let instance = Instance::new(SERVICE, advertised_address(listener.local_addr()?)?)?;
    let greeter = Services::new().add_service(GreeterServer::new(Hello::from("me")));
    // Serves `grpc.health.v1` beside your services, becomes healthy, and registers. When told to stop, it becomes not ready,
    // drains, deregisters, and stops once the calls in flight have ended.
    Server::new(&registry, instance)
        .drain(Duration::from_millis(500))
        .listen(listener, greeter)
        .serve(async {
            // In your server: the signals that ask it to stop.
            let _ = stopped.await;
        })
        .await?;

    others.await??;
    registry.close().await?;
    Ok(())
}

/// What a client sees. Tells the server to stop once it has seen it ready.
async fn watch(mut instances: Subscription, stop: oneshot::Sender<()>) -> sd_core::Result<()> {
    let mut stop = Some(stop);
    println!("others see: nothing");
    loop {
        let state = instances.changed().await?;
        match state.snapshot().instances().first() {
            Some(server) if server.is_ready() => {
                println!("others see: ready at {}", server.endpoint());
                drop(stop.take());
            }
            Some(_) => println!("others see: not ready"),
            None if stop.is_none() => {
                println!("others see: nothing");
                return Ok(());
            }
            None => {}
        }
    }
}
