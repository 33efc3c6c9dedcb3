//! What reads untrusted input, as functions that panic if the input does harm.
//!
//! `cargo xtask fuzz` has LLVM's fuzzer look for such input. The files in `corpus` are what it begins with, and every test run tries them.

mod plant;
mod targets;

pub use crate::plant::plant;
pub use crate::targets::{TARGETS, Target};
