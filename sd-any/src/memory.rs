//! An embedded registry: each call opens a new, empty one.

use std::sync::Arc;

use sd_backend::RegistryUrl;
use sd_core::clock::TokioClock;
use sd_core::memory::Memory;
use sd_core::{Error, Registry, RegistryConfig, Result};

/// `memory://`
pub(crate) fn open(url: &str, config: RegistryConfig) -> Result<Registry> {
    let url = RegistryUrl::parse(url)?;
    url.without_settings()?;
    let has_user = url.username().is_some() || url.password().is_some();
    if !url.hosts().is_empty() || !url.path().is_empty() || has_user {
        return Err(Error::invalid_input(
            "open embedded registry",
            "an embedded registry has no address: write memory:// and nothing after it",
        ));
    }
    // `Memory::new` measures leases with this clock.
    Ok(Memory::new().connect_with(config.with_clock(Arc::new(TokioClock))))
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn an_embedded_registry_has_no_address_and_no_keys() {
        open("memory://", RegistryConfig::default()).unwrap();
        for url in [
            "memory://h",
            "memory:///path",
            "memory://?ttl=1s",
            "memory://u@",
            "memory://:p@",
        ] {
            let error = open(url, RegistryConfig::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        }
    }
}
