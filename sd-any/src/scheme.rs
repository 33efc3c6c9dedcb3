//! The table of schemes, the only place that knows every backend.

use sd_backend::RegistryUrl;
use sd_core::{Error, ErrorKind, Registry, RegistryConfig, Result};

use crate::{file, memory};

const OP: &str = "connect";

/// Opens the registry at a URL. The backend's own opener reads the URL, since only it knows the keys.
type Open = fn(&str, RegistryConfig) -> Result<Registry>;

/// The schemes of one backend with its opener, or with the cargo feature that adds it.
struct Scheme {
    names: &'static [&'static str],
    open: std::result::Result<Open, Feature>,
}

struct Feature(&'static str);

const SCHEMES: &[Scheme] = &[
    Scheme {
        names: &["consul", "consul+https"],
        #[cfg(feature = "consul")]
        open: Ok(|url, config| {
            sd_consul::connect_with(sd_consul::ConsulConfig::from_url(url)?, config)
        }),
        #[cfg(not(feature = "consul"))]
        open: Err(Feature("consul")),
    },
    Scheme {
        names: &["dns", "dns+srv"],
        #[cfg(feature = "dns")]
        open: Ok(|url, config| sd_dns::connect_with(sd_dns::DnsConfig::from_url(url)?, config)),
        #[cfg(not(feature = "dns"))]
        open: Err(Feature("dns")),
    },
    Scheme {
        names: &["etcd", "etcds"],
        #[cfg(feature = "etcd")]
        open: Ok(|url, config| sd_etcd::connect_with(sd_etcd::EtcdConfig::from_url(url)?, config)),
        #[cfg(not(feature = "etcd"))]
        open: Err(Feature("etcd")),
    },
    Scheme {
        names: &["file"],
        open: Ok(file::open),
    },
    Scheme {
        names: &["isp", "isps"],
        #[cfg(feature = "cluster")]
        open: Ok(|url, config| {
            sd_cluster::connect_with(sd_cluster::ClusterConfig::from_url(url)?, config)
        }),
        #[cfg(not(feature = "cluster"))]
        open: Err(Feature("cluster")),
    },
    Scheme {
        names: &["memory"],
        open: Ok(memory::open),
    },
    Scheme {
        names: &[
            "redis",
            "rediss",
            "redis+sentinel",
            "rediss+sentinel",
            "redis+cluster",
            "rediss+cluster",
        ],
        #[cfg(feature = "redis")]
        open: Ok(|url, config| {
            sd_redis::connect_with(sd_redis::RedisConfig::from_url(url)?, config)
        }),
        #[cfg(not(feature = "redis"))]
        open: Err(Feature("redis")),
    },
    Scheme {
        names: &["zk", "zks", "zk+exhibitor"],
        #[cfg(feature = "zk")]
        open: Ok(|url, config| sd_zk::connect_with(sd_zk::ZkConfig::from_url(url)?, config)),
        #[cfg(not(feature = "zk"))]
        open: Err(Feature("zk")),
    },
];

/// Opens the registry at `url` with the default configuration. Returns without waiting for the server.
///
/// # Errors
/// `InvalidInput` for an unknown scheme, and for a URL that the backend does not accept. `Unsupported` for a backend that is
/// not compiled in; the cause names the cargo feature.
pub fn connect(url: &str) -> Result<Registry> {
    connect_with(url, RegistryConfig::default())
}

/// As [`connect`], with this configuration.
///
/// # Errors
/// As [`connect`].
pub fn connect_with(url: &str, config: RegistryConfig) -> Result<Registry> {
    let Some((name, _)) = url.split_once("://") else {
        // Not a URL: the parser's error says what one looks like, and repeats nothing that may be a secret.
        RegistryUrl::parse(url)?;
        return Err(Error::invalid_input(OP, "write backend://host:port/path"));
    };
    match SCHEMES.iter().find(|scheme| scheme.names.contains(&name)) {
        Some(scheme) => match &scheme.open {
            Ok(open) => open(url, config),
            Err(feature) => Err(not_compiled_in(name, feature)),
        },
        None => Err(unknown(RegistryUrl::parse(url)?.scheme())),
    }
}

fn not_compiled_in(name: &str, Feature(feature): &Feature) -> Error {
    Error::new(ErrorKind::Unsupported, OP).because(format!(
        "{name}:// is not compiled in: build with --features {feature}"
    ))
}

fn unknown(name: &str) -> Error {
    let compiled_in: Vec<_> = SCHEMES
        .iter()
        .filter(|scheme| scheme.open.is_ok())
        .flat_map(|scheme| scheme.names)
        .map(|name| format!("{name}://"))
        .collect();
    Error::invalid_input(
        OP,
        format!(
            "there is no backend for {name}://: use one of {}",
            compiled_in.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> Error {
        connect(url).unwrap_err()
    }

    #[test]
    fn an_unknown_scheme_is_answered_with_the_known_ones() {
        let error = refusal("consul-rs://h");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let report = error.report().to_string();
        assert!(report.contains("memory://"), "{report}");
    }

    #[test]
    fn a_backend_that_is_not_compiled_in_is_answered_with_its_feature() {
        let error = not_compiled_in("etcd", &Feature("etcd"));
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let report = error.report().to_string();
        assert!(report.ends_with("--features etcd"), "{report}");
    }

    /// The table has the names again, because a backend that is not compiled in cannot tell them.
    #[test]
    fn the_table_has_the_schemes_that_the_backends_read() {
        let names = |feature: &str| {
            let found = SCHEMES.iter().find(|scheme| scheme.names[0] == feature);
            found.unwrap().names
        };
        #[cfg(feature = "consul")]
        assert_eq!(names("consul"), sd_consul::URL_SCHEMES);
        #[cfg(feature = "dns")]
        assert_eq!(names("dns"), sd_dns::URL_SCHEMES);
        #[cfg(feature = "etcd")]
        assert_eq!(names("etcd"), sd_etcd::URL_SCHEMES);
        #[cfg(feature = "cluster")]
        assert_eq!(names("isp"), sd_cluster::URL_SCHEMES);
        #[cfg(feature = "redis")]
        assert_eq!(names("redis"), sd_redis::URL_SCHEMES);
        #[cfg(feature = "zk")]
        assert_eq!(names("zk"), sd_zk::URL_SCHEMES);
        assert_eq!(names("file"), ["file"]);
    }

    #[test]
    fn every_scheme_of_a_backend_opens_it_or_names_its_feature() {
        for url in [
            "etcds://h",
            "consul+https://h",
            "etcd://h",
            "consul://h",
            "dns://127.0.0.1/prod.local?port=1",
            "dns+srv:///prod.local",
            "redis://h",
            "redis+sentinel://h/primary",
            "redis+cluster://h",
            "zk://h",
        ] {
            match connect(url) {
                Ok(registry) => assert!(url.starts_with(registry.backend().name())),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{url}"),
            }
        }
        match connect("isp://h/?module_name=m") {
            Ok(registry) => assert_eq!(registry.backend().name(), "cluster"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_it() {
        for text in ["", "etcd", "etcd:/root:sesame@h", "sesame"] {
            let error = refusal(text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            let report = error.report().to_string();
            assert!(!report.contains("sesame"), "{report}");
        }
    }
}
