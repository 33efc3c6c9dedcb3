//! What the examples share. The examples themselves are in `src/bin`: one short program per question; `quickstart` first.

pub mod greeter;
mod hello;
mod open;

pub use hello::{Hello, HelloServer};
pub use open::{registry, registry_from_arguments};
