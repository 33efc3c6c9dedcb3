//! How do I register an instance, and keep it registered?
//!
//! ```text
//! cargo run -p examples --bin register
//! cargo run -p examples --bin register --features etcd -- etcd://127.0.0.1:2379/services
//! ```
//!
//! Prints the events of the registration until it is withdrawn, and how many instances others see meanwhile.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::error::Error;
use std::time::Duration;

use sd_core::{Instance, RegistrationEvent};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = examples::registry_from_arguments()?;
    let instance = Instance::new("example-register", "10.0.0.7:50051")?
        .with_zone("a")
        .with_version("1.2.0")
        .with_metadata("team", "search");
    let service = instance.service().clone();

    // Returns when the registry has confirmed the record. From now on a task renews it, and registers it again if it is lost.
    let guard = registry.register(instance).await?;
    println!("registered {}", guard.record_id().id);

    // In place: no reader sees the instance vanish.
    guard.update(|instance| instance.with_weight(3)).await?;
    let seen = registry.list(&service).await?;
    println!(
        "others see {} instance of weight {}",
        seen.len(),
        seen.instances()[0].weight()
    );

    // Tells readers that no more calls are wanted, waits until they have noticed, and withdraws. Dropping the guard also
    // withdraws, in the background.
    guard.drain(Duration::from_millis(300)).await?;
    println!(
        "withdrawn, others see {}",
        registry.list(&service).await?.len()
    );

    // A process that must start while its registry is down does not wait, and watches the events.
    let second = Instance::new("example-register", "10.0.0.8:50051")?;
    let ttl = Duration::from_secs(30);
    let mut guard = registry.register(second).ttl(ttl).in_background()?;
    while let Some(event) = guard.next_event().await {
        match event.error() {
            Some(error) => println!("{}: {}", event.as_str(), error.report()),
            None => println!("{}", event.as_str()),
        }
        if let RegistrationEvent::Registered(_) = event {
            break;
        }
    }
    guard.deregister().await?;

    registry.close().await?;
    Ok(())
}
