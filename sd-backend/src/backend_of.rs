//! The backend behind a registry, for what a backend offers beside the ports.

use sd_core::{Backend, Error, Registry, Result};

/// The backend of `registry`, if it is a `B`. For functions of a backend's crate that take a registry, as guarded writes do.
/// `open_with` names what opens such a registry.
///
/// # Errors
/// `InvalidInput` if the registry is over another backend.
pub fn backend_of<'a, B: Backend>(
    op: &'static str,
    registry: &'a Registry,
    open_with: &str,
) -> Result<&'a B> {
    registry.backend_as().ok_or_else(|| {
        let other = registry.backend().name();
        let help = format!("this registry is over {other}: open it with {open_with}");
        Error::invalid_input(op, help)
    })
}
