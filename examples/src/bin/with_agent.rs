//! How does a process register itself with the agent of its host?
//!
//! ```text
//! cargo run -p sd-sidecar --bin sd-agent &
//! cargo run -p examples --bin with_agent -- http://127.0.0.1:15010
//! cargo run -p examples --bin with_agent
//! ```
//!
//! Prints how it stands with the agent, until it has served for a second and left. Without an argument it does the same at an embedded
//! registry, without an agent.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use sd_core::memory::Memory;
use sd_sidecar::agent::{
    Agent, AgentConfig, App, DirectClient, DirectSource, RunConfig, Service, ServiceNode,
    ServiceOptions, methods_of,
};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = ServiceOptions {
        app: App {
            id: "example".into(),
            name: "example".into(),
            env: "dev".into(),
            version: "v1.0.0".into(),
            ..App::default()
        },
        service: Service {
            name: "example-with-agent".into(),
            ..Service::default()
        },
        protocol: "grpc".into(),
        server_port: 9090,
        ..ServiceOptions::default()
    };
    let methods = methods_of("example.v1.Greeter", &["Hello", "Watch"]);
    let node = ServiceNode::new(options, methods);

    // How long others have to notice that it leaves.
    let grace = Duration::from_millis(300);
    let agent = if let Some(url) = std::env::args().nth(1) {
        Agent::new(node, AgentConfig::new(&url).with_grace_period(grace))?
    } else {
        let registry = Memory::new().connect();
        let client = DirectClient::new(registry, "127.0.0.1");
        let source = DirectSource::new(&client);
        let config = AgentConfig::default().with_grace_period(grace);
        Agent::with_parts(node, config, Arc::new(client), Arc::new(source))?
    };

    let serve = RunConfig::new().with_serve(async |stop: tokio_util::sync::CancellationToken| {
        println!("serving");
        stop.cancelled().await;
        println!("served: others have been told before");
        Ok::<_, std::io::Error>(())
    });
    agent.configure_run(serve.with_on_error(|error| println!("{error}")));

    // Registers, and again whenever the agent is restarted or has refused it. At its end it drains, waits, stops and deregisters.
    let mut changes = agent.status_changes();
    let until = async {
        if let Ok(status) = changes.wait_for(|status| status.registered).await {
            println!("registered {}", status.last_service_name);
        }
        sleep(Duration::from_secs(1)).await;
    };
    agent.run(until).await?;
    println!("left");
    Ok(())
}
