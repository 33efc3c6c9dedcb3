//! The registry that an example runs with.

use sd_core::{Registry, Result};

/// The registry that the first argument names, for instance `etcd://127.0.0.1:2379/services`; without one a new embedded
/// registry.
///
/// # Errors
/// When the URL is wrong, or of a backend that is not compiled in.
pub fn registry_from_arguments() -> Result<Registry> {
    registry(std::env::args().nth(1).as_deref())
}

/// The registry that `url` names; without one a new embedded registry.
///
/// # Errors
/// As [`registry_from_arguments`].
pub fn registry(url: Option<&str>) -> Result<Registry> {
    sd_any::connect(url.unwrap_or("memory://"))
}
