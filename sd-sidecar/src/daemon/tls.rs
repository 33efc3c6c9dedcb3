//! TLS of the agent's addresses.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sd_backend::{Rules, TlsSettings};

use super::config::{ConfigError, TlsFiles};

const RULES: Rules = Rules::new("tls");

/// What the files say.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    /// Of each file what tells another content from it, and no more.
    prints: [(&'static str, u64); 3],
}

impl Tls {
    /// The keys whose files say something else in `newer`.
    pub(crate) fn difference(&self, newer: &Self) -> impl Iterator<Item = &'static str> {
        let pairs = self.prints.into_iter().zip(newer.prints);
        pairs.filter_map(|(before, after)| (before != after).then_some(after.0))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn print(content: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// Reads certificate, key and issuers. Blocks, but not for a pipe or a device.
///
/// # Errors
/// The file that does not hold what it should, and what to do.
pub(crate) fn read(files: &TlsFiles) -> Result<Tls, ConfigError> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| {
        ConfigError::new(format!("tls.{what}: {error}"))
    };
    let report = |error: sd_core::Error| ConfigError::new(error.report().to_string());
    let settings = TlsSettings {
        cert: Some(&files.cert),
        key: Some(&files.key),
        ca: files.client_ca.as_deref(),
        ..TlsSettings::default()
    };
    let Some((chain, key)) = settings.read_identity(RULES).map_err(report)? else {
        return Err(ConfigError::new("tls: cert and key are set together"));
    };
    let issuers = settings.read_ca(RULES).map_err(report)?;
    let prints = [
        ("tls.cert", print(Some(&chain))),
        ("tls.key", print(Some(&key))),
        ("tls.client_ca", print(issuers.as_deref())),
    ];
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong("cert", &error))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| wrong("key", &error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("cert", &error))?;
    let builder = match issuers {
        None => builder.with_no_client_auth(),
        Some(issuers) => {
            let mut roots = RootCertStore::empty();
            for issuer in CertificateDer::pem_slice_iter(&issuers) {
                let issuer = issuer.map_err(|error| wrong("client_ca", &error))?;
                roots
                    .add(issuer)
                    .map_err(|error| wrong("client_ca", &error))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| wrong("client_ca", &error))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| wrong("cert and key", &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls {
        config: Arc::new(config),
        prints,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let first = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let second = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(path("cert"), first.cert.pem()).unwrap();
        fs::write(path("key"), first.signing_key.serialize_pem()).unwrap();
        fs::write(path("other"), second.signing_key.serialize_pem()).unwrap();
        let files = |key: &str, client_ca: Option<&str>| TlsFiles {
            cert: path("cert"),
            key: path(key),
            client_ca: client_ca.map(path),
        };
        let alone = read(&files("key", None)).unwrap();
        let with_issuer = read(&files("key", Some("cert"))).unwrap();
        assert_eq!(alone.difference(&alone).count(), 0);
        assert!(alone.difference(&with_issuer).eq(["tls.client_ca"]));
        for (files, part) in [
            (files("other", None), "cert and key"),
            (files("missing", None), "missing"),
            (files("cert", None), "holds no private key"),
            (files("key", Some("key")), "it holds a private key"),
        ] {
            let why = read(&files).unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        }
    }
}
