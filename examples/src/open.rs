//! The registry that an example uses.

use sd_core::{Registry, Result};

/// The registry at the URL in the first argument, for example `etcd://127.0.0.1:2379/services`. Without an argument, a new
/// embedded registry.
///
/// # Errors
/// When the URL is wrong, or its backend is not compiled in.
pub fn registry_from_arguments() -> Result<Registry> {
    registry(std::env::args().nth(1).as_deref())
}

/// The registry at `url`. Without a URL, a new embedded registry.
///
/// # Errors
/// As [`registry_from_arguments`].
pub fn registry(url: Option<&str>) -> Result<Registry> {
    sd_any::connect(url.unwrap_or("memory://"))
}
