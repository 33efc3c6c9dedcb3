//! Sources without a server, and sources made of other sources. All are [`Instancer`](crate::Instancer)s and can be combined.
//!
//! | | |
//! |---|---|
//! | [`Static`] | a set that the program supplies and may replace |
//! | [`File`] | a JSON file, read again when it changes |
//! | [`Filter`] | the matching instances of a source: version, zone, tag, metadata, or any predicate |
//! | [`Merge`] | several sources as one set: datacenters, backends; takes registries, too |
//! | [`Fallback`] | the first healthy source of several: falls back and returns; takes registries, too |
//!
//! [`Registry::reading`](crate::Registry::reading) makes a registry of any of them.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use sd_core::combine::{Fallback, Filter, Static};
//! use sd_core::{Discovery, Instance, ServiceName, memory::Memory};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> sd_core::Result<()> {
//! let registry = Memory::new().connect();
//! let _here = registry.register(Instance::new("greeter", "10.0.0.7:50051")?.with_zone("a")).await?;
//! let _there = registry.register(Instance::new("greeter", "10.9.0.7:50051")?.with_zone("b")).await?;
//!
//! let near = Arc::new(Filter::new(registry.instancer()).zone("a"));
//! let spare = Static::new([Instance::new("greeter", "10.1.0.1:50051")?])?;
//! let source = Arc::new(Fallback::new("near", near).or("spare", Arc::new(spare)));
//!
//! let greeters = source.subscribe(&ServiceName::new("greeter")?)?;
//! let state = greeters.wait_until_ready(Duration::from_secs(5)).await?;
//! assert_eq!(state.snapshot().len(), 1);
//! # Ok(())
//! # }
//! ```

mod chooser;
pub(crate) mod document;
mod fallback;
mod file;
mod file_reader;
mod filter;
mod fixed;
mod merge;
mod relay;
mod source;
#[cfg(test)]
pub(crate) mod switched;

pub use self::fallback::Fallback;
pub use self::file::File;
pub use self::file_reader::MAX_FILE_BYTES;
pub use self::filter::Filter;
pub use self::fixed::Static;
pub use self::merge::Merge;
pub use self::source::Source;
