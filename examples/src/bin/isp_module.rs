//! How does a module join a cluster of isp-config-service, and get its configuration?
//!
//! ```text
//! cargo run -p examples --bin isp_module --features cluster
//! cargo run -p examples --bin isp_module --features cluster -- 10.0.0.1:9001
//! ```
//!
//! Without an address it brings a config service along. Prints the configuration as it comes, and what another module sees. At a service
//! that is named it stays until Ctrl-C, and prints what operators set, as by `sdctl config-service set`.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use schemars::JsonSchema;
use sd_cluster::server::ConfigService;
use sd_cluster::{ClusterConfig, EndpointDescriptor, Received, RemoteConfig};
use sd_core::Instance;
use serde::Deserialize;
use tokio::signal::ctrl_c;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// What operators may change while the module runs. The service gets its schema.
#[derive(Debug, Deserialize, JsonSchema)]
struct Settings {
    workers: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let service = ConfigService::builder().start().await?;
    let named = std::env::args().nth(1);
    let is_ours = named.is_none();
    let address = match named {
        Some(address) => address,
        None => service
            .listen(([127, 0, 0, 1], 0).into())
            .await?
            .to_string(),
    };

    let (tell, mut told) = mpsc::channel(4);
    let settings = RemoteConfig::new(r#"{"workers": 4}"#, move |received: Received<Settings>| {
        let tell = tell.clone();
        async move {
            if received.config.workers == 0 {
                // The service is not told: operators see it in the module's health and metrics.
                return Err("workers: at least one is needed");
            }
            tell.send(received.config.workers)
                .await
                .map_err(|_| "the module is ending")
        }
    })?;
    let orders = sd_cluster::connect(
        ClusterConfig::new([&address])
            .with_module("orders")
            .with_version("1.2.3")
            .with_served(EndpointDescriptor::new("orders/list"))
            .with_remote_config(settings),
    )?;

    // Returns when the configuration is applied and the service lists the instance.
    let guard = orders
        .register(Instance::new("orders", "10.0.0.7:50051")?)
        .await?;
    println!("registered with {:?} workers", told.recv().await);

    // Another module, which reads the routes: they also tell version and endpoints.
    let gateway = ClusterConfig::new([&address])
        .with_module("gateway")
        .with_routes(true);
    let gateway = sd_cluster::connect(gateway)?;
    for instance in gateway.list("orders").await?.instances() {
        println!(
            "the gateway sees {} {:?}",
            instance.endpoint(),
            instance.version()
        );
    }

    // With a service of their own, its operators do it.
    if is_ours {
        let changed = r#"{"workers": 8}"#;
        service.set_config("orders", changed, None).await?;
        let workers = timeout(Duration::from_secs(5), told.recv()).await?;
        println!("changed to {workers:?} workers");
    } else {
        let mut stop = pin!(ctrl_c());
        loop {
            tokio::select! {
                Some(workers) = told.recv() => println!("changed to {workers} workers"),
                stopped = &mut stop => break stopped?,
            }
        }
    }
    println!("{}", sd_cluster::module(&orders)?.health());

    guard.deregister().await?;
    orders.close().await?;
    gateway.close().await?;
    service.stop().await;
    Ok(())
}
