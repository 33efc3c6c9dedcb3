//! What the examples share. The examples are in `src/bin`, one short program for each question. Begin with `quickstart`.

pub mod greeter;
mod headless;
mod hello;
mod open;

pub use headless::Headless;
pub use hello::{Hello, HelloServer};
pub use open::{registry, registry_from_arguments};
