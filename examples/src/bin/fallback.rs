//! How do I use another source while a registry has no instances for me?
//!
//! ```text
//! cargo run -p examples --bin fallback
//! cargo run -p examples --bin fallback --features etcd -- etcd://127.0.0.1:2379/services
//! ```
//!
//! Prints which address is in use: the fixed one, the registered one while there is one, then the fixed one again.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use sd_core::combine::{Fallback, Static};
use sd_core::{Discovery, Instance, ServiceName, Subscription};

const FIXED: &str = "10.9.9.9:50051";
const REGISTERED: &str = "10.0.0.7:50051";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = examples::registry_from_arguments()?;
    let service = ServiceName::new("example-fallback")?;
    let fixed = Static::new([Instance::new(&service, FIXED)?])?;

    // Sources compose: each of these could be a filter, a merge of datacenters, a file.
    let source = Fallback::new("registry", &registry)
        .or("fixed", Arc::new(fixed))
        // By default only a failed source is left; an empty set is used.
        .skip_empty()
        .with_fall_back_after(Duration::from_millis(200))
        .with_return_after(Duration::from_millis(200));

    // `BalancedChannel::builder(&source, ...)` accepts it as well.
    let mut instances = Arc::new(source).subscribe(&service)?;
    wait_for(&mut instances, FIXED).await?;
    let guard = registry
        .register(Instance::new(&service, REGISTERED)?)
        .await?;
    wait_for(&mut instances, REGISTERED).await?;
    guard.deregister().await?;
    wait_for(&mut instances, FIXED).await?;

    registry.close().await?;
    Ok(())
}

async fn wait_for(instances: &mut Subscription, address: &str) -> sd_core::Result<()> {
    let mut state = instances.state_and_mark_seen();
    loop {
        let mut addresses = state
            .snapshot()
            .instances()
            .iter()
            .map(|one| one.endpoint());
        if addresses.any(|endpoint| endpoint.to_string() == address) {
            println!("in use: {address}");
            return Ok(());
        }
        state = instances.changed().await?;
    }
}
