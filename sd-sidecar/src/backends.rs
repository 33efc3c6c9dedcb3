//! From a registry URL to a registry: the one place that knows every backend.

mod file;

use std::sync::Arc;

use sd_backend::RegistryUrl;
use sd_core::memory::Memory;
use sd_core::{Error, ErrorKind, Registry, RegistryConfig, Result, TokioClock};

const OP: &str = "open registry";

/// A scheme with the feature that compiles its backend in; none for what is always there.
struct Scheme {
    name: &'static str,
    feature: Option<&'static str>,
    compiled_in: bool,
}

const SCHEMES: &[Scheme] = &[
    Scheme {
        name: "consul",
        feature: Some("consul"),
        compiled_in: cfg!(feature = "consul"),
    },
    Scheme {
        name: "etcd",
        feature: Some("etcd"),
        compiled_in: cfg!(feature = "etcd"),
    },
    Scheme {
        name: "file",
        feature: None,
        compiled_in: true,
    },
    Scheme {
        name: "memory",
        feature: None,
        compiled_in: true,
    },
];

/// Opens the registry that `url` names, with the default configuration. Does not wait for a server.
///
/// `file:///path/services.json` opens a file that a [`File`](sd_core::combine::File) can read. `memory://` opens a new and
/// empty embedded registry: for examples and tests, since it lives in this process alone.
///
/// # Errors
/// `InvalidInput` for what the backend does not accept in a URL, and for an unknown scheme. `Unsupported` names the cargo
/// feature to build with, if the backend is not compiled in.
pub fn open(url: &str) -> Result<Registry> {
    open_with(url, RegistryConfig::default())
}

/// As [`open`], with a configuration.
///
/// # Errors
/// As [`open`].
pub fn open_with(url: &str, config: RegistryConfig) -> Result<Registry> {
    let parts = RegistryUrl::parse(url)?;
    match parts.scheme() {
        #[cfg(feature = "consul")]
        "consul" => sd_consul::connect_with(sd_consul::ConsulConfig::from_url(url)?, config),
        #[cfg(feature = "etcd")]
        "etcd" => sd_etcd::connect_with(sd_etcd::EtcdConfig::from_url(url)?, config),
        "file" => file::open(&parts, config),
        "memory" => open_memory(&parts, config),
        other => Err(cannot_open(other)),
    }
}

fn open_memory(url: &RegistryUrl, config: RegistryConfig) -> Result<Registry> {
    url.without_settings()?;
    if !url.hosts().is_empty() || !url.path().is_empty() || url.username().is_some() {
        return Err(Error::invalid_input(
            OP,
            "an embedded registry has no address: write memory:// and nothing after it",
        ));
    }
    // Its own clock, which `Memory::new` runs on.
    Ok(Memory::new().connect_with(config.with_clock(Arc::new(TokioClock))))
}

fn cannot_open(name: &str) -> Error {
    let known = SCHEMES.iter().find(|scheme| scheme.name == name);
    if let Some(feature) = known.and_then(|scheme| scheme.feature) {
        return Error::new(ErrorKind::Unsupported, OP).because(format!(
            "{name}:// is not compiled in: build sd-sidecar with --features {feature}"
        ));
    }
    let compiled_in: Vec<_> = SCHEMES
        .iter()
        .filter(|scheme| scheme.compiled_in)
        .map(|scheme| format!("{}://", scheme.name))
        .collect();
    Error::invalid_input(
        OP,
        format!(
            "there is no backend for {name}://, only for {}",
            compiled_in.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> Error {
        open(url).unwrap_err()
    }

    #[test]
    fn an_unknown_scheme_is_answered_with_the_known_ones() {
        let error = refusal("consul-rs://h");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(
            error.report().to_string().contains("memory://"),
            "{error:?}"
        );
    }

    #[test]
    fn a_backend_that_is_not_compiled_in_is_answered_with_its_feature() {
        let error = cannot_open("etcd");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error.report().to_string().ends_with("--features etcd"),
            "{error:?}"
        );
    }

    #[test]
    fn a_file_is_named_by_its_absolute_path_alone() {
        open("file:///etc/services.json").unwrap();
        for url in ["file://services.json", "file:///", "file:///a?ttl=1s"] {
            assert_eq!(refusal(url).kind(), ErrorKind::InvalidInput, "{url}");
        }
    }

    #[test]
    fn an_embedded_registry_has_no_address_and_no_keys() {
        open("memory://").unwrap();
        for url in ["memory://h", "memory:///path", "memory://?ttl=1s"] {
            assert_eq!(refusal(url).kind(), ErrorKind::InvalidInput, "{url}");
        }
    }
}
