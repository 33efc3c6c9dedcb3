//! What the examples share. The examples are in `src/bin`, one short program for each question. Begin with `quickstart`.

pub mod greeter;
mod hello;
mod open;

pub use hello::{Hello, HelloServer};
pub use open::{registry, registry_from_arguments};
