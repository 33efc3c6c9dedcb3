//! How do I know which instances a service has, now and later?
//!
//! ```text
//! cargo run -p examples --bin watch
//! cargo run -p examples --bin watch --features etcd -- etcd://127.0.0.1:2379/services
//! ```
//!
//! Prints the set and its changes, while two instances come, one changes, and both leave.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::error::Error;
use std::time::Duration;

use sd_core::{Delta, Instance, Registry, State};

const SERVICE: &str = "example-watch";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = examples::registry_from_arguments()?;

    // Cheap to clone, and shared: the service is watched once, however many readers there are.
    let mut instances = registry.subscribe(SERVICE)?;
    let mut state = instances.wait_until_known(Duration::from_secs(10)).await?;
    let others = tokio::spawn(come_and_go(registry.clone()));
    loop {
        // Always the complete set. A slow reader skips sets but never sees half of one.
        let next = instances.changed().await?;
        show(&state, &next);
        let all_left = next.snapshot().is_empty() && !state.snapshot().is_empty();
        state = next;
        if all_left {
            break;
        }
    }
    others.await??;
    registry.close().await?;
    Ok(())
}

fn show(before: &State, now: &State) {
    println!(
        "{}: {} instances",
        now.status().as_str(),
        now.snapshot().len()
    );
    if let Some(error) = now.status().error() {
        println!(
            "  not sure: {}; the set is the last good one",
            error.report()
        );
    }
    let delta = Delta::between(before.snapshot(), now.snapshot());
    for instance in &delta.added {
        println!("  + {} at {}", instance.id(), instance.endpoint());
    }
    for change in &delta.retuned {
        println!("  ~ {} is ready: {}", change.to.id(), change.to.is_ready());
    }
    for instance in &delta.removed {
        println!("  - {}", instance.id());
    }
}

/// What other processes would do.
async fn come_and_go(registry: Registry) -> sd_core::Result<()> {
    let pause = || tokio::time::sleep(Duration::from_millis(200));
    let first = registry
        .register(Instance::new(SERVICE, "10.0.0.7:80")?)
        .await?;
    pause().await;
    let second = registry
        .register(Instance::new(SERVICE, "10.0.0.8:80")?)
        .await?;
    pause().await;
    first.set_ready(false).await?;
    pause().await;
    first.deregister().await?;
    second.deregister().await
}
