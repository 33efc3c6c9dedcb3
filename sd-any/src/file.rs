//! A JSON file as a read-only registry.

use std::sync::Arc;

use sd_backend::RegistryUrl;
use sd_core::combine::File;
use sd_core::{Error, Registry, RegistryConfig, Result};

/// `file:///path/services.json`
pub(crate) fn open(url: &str, config: RegistryConfig) -> Result<Registry> {
    let url = RegistryUrl::parse(url)?;
    url.without_settings()?;
    let has_user = url.username().is_some() || url.password().is_some();
    if !url.hosts().is_empty() || has_user || url.path().len() < 2 {
        return Err(Error::invalid_input(
            "open file registry",
            "the URL must hold an absolute path and nothing else: write file:///path/services.json, with three slashes",
        ));
    }
    let file = File::new(url.path()).with_clock(Arc::clone(&config.clock));
    Ok(Registry::reading_with(Arc::new(file), config))
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_file_is_named_by_its_absolute_path_alone() {
        open("file:///etc/services.json", RegistryConfig::default()).unwrap();
        for url in [
            "file://services.json",
            "file:///",
            "file:///a?ttl=1s",
            "file://u@/a",
            "file://:p@/a",
        ] {
            let error = open(url, RegistryConfig::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        }
    }
}
