#![doc = include_str!("../README.md")]

mod file;
mod memory;
mod scheme;

pub use crate::scheme::{connect, connect_with};
