//! How do I write a backend for a registry of my own?
//!
//! ```text
//! cargo run -p examples --bin own_backend
//! cargo run -p examples --bin own_backend -- "folder:///var/lib/services?poll=1s"
//! ```
//!
//! The registry is a folder of files, for example on a disk that several machines share: one folder for each service, and in it one
//! file for each instance. A backend has these parts, to be read in this order: `config.rs`, `store.rs`, which speaks to the source and
//! knows nothing of discovery, `codec.rs`, `reading.rs`, `writing.rs` and `backend.rs`.
//! Retries, caches, heartbeats and the rest are those of sd-core. `examples/tests/own_backend.rs` runs the conformance suites over it.
#![expect(clippy::print_stdout, reason = "shows what it does")]

mod backend;
mod codec;
mod config;
mod reading;
mod store;
mod writing;

use std::error::Error;
use std::time::Duration;

use sd_core::Instance;

const SERVICE: &str = "example-own-backend";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = match std::env::args().nth(1) {
        Some(url) => url,
        None => format!("folder://{}/sd-own-backend", std::env::temp_dir().display()),
    };
    let registry = backend::connect(&url)?;
    let guard = registry
        .register(Instance::new(SERVICE, "127.0.0.1:50051")?)
        .await?;
    let instances = registry.subscribe(SERVICE)?;
    let state = instances.wait_until_known(Duration::from_secs(10)).await?;
    for instance in state.snapshot().instances() {
        println!("{} at {}", instance.id(), instance.endpoint());
    }
    guard.deregister().await?;
    registry.close().await?;
    Ok(())
}
