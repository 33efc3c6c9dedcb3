//! TLS of the agent's addresses.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore, ServerConfig};
use sd_backend::{Rules, TlsSettings};

use super::config::{ConfigError, TlsFiles};

const RULES: Rules = Rules::new("tls");
const CLIENT_CA: &str = "tls.client_ca";

/// What the files say.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    /// Of each file what tells another content from it, and no more.
    prints: [(&'static str, u64); 3],
    /// Whether clients must show a certificate.
    asks_clients: bool,
    /// What is wrong with the time of the certificate.
    note: Option<String>,
}

impl Tls {
    /// The keys whose files say something else in `newer`.
    pub(crate) fn difference(&self, newer: &Self) -> impl Iterator<Item = &'static str> {
        let pairs = self.prints.into_iter().zip(newer.prints);
        pairs.filter_map(|(before, after)| (before != after).then_some(after.0))
    }

    /// Whether clients may be refused that `older` has let in.
    pub(crate) fn refuses_clients_of(&self, older: &Self) -> bool {
        self.asks_clients && older.difference(self).any(|key| key == CLIENT_CA)
    }

    /// What an operator should know: clients refuse the certificate.
    pub(crate) fn note(&self) -> Option<&str> {
        self.note.as_deref()
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
        (CLIENT_CA, print(issuers.as_deref())),
    ];
    let asks_clients = issuers.is_some();
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong("cert", &error))?;
    let note = untimely(&chain).map(|why| format!("tls.cert: {why}: clients refuse it"));
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
        asks_clients,
        note,
    })
}

/// What is wrong with a certificate by the clock of this host. The time is the first thing that is looked at, so that any issuer does.
fn untimely(chain: &[CertificateDer<'static>]) -> Option<String> {
    let (certificate, others) = chain.split_first()?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).ok()?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = verifier.build().ok()?;
    let name = ServerName::try_from("localhost").ok()?;
    let answer = verifier.verify_server_cert(certificate, others, &name, &[], UnixTime::now());
    let Err(rustls::Error::InvalidCertificate(why)) = answer else {
        return None;
    };
    let shown = |time: UnixTime| {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
        time.map_or_else(String::new, |time| {
            format!(" on {}", humantime::format_rfc3339_seconds(time))
        })
    };
    match why {
        CertificateError::Expired => Some("it has expired".to_owned()),
        CertificateError::ExpiredContext { not_after, .. } => {
            Some(format!("it has expired{}", shown(not_after)))
        }
        CertificateError::NotValidYet => Some("it is not valid yet".to_owned()),
        CertificateError::NotValidYetContext { not_before, .. } => {
            Some(format!("it becomes valid{} only", shown(not_before)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_certificate_whose_time_is_over_or_to_come_is_taken_with_a_note() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let noted = |begin, end| {
            let mut params = rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(begin, 1, 1);
            params.not_after = rcgen::date_time_ymd(end, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            fs::write(path("cert"), certificate.pem()).unwrap();
            fs::write(path("key"), key.serialize_pem()).unwrap();
            let files = TlsFiles {
                cert: path("cert"),
                key: path("key"),
                client_ca: None,
            };
            read(&files).unwrap().note.unwrap_or_default()
        };
        let over = noted(2019, 2020);
        assert!(over.contains("expired on 2020-01-01"), "{over}");
        let to_come = noted(3999, 4000);
        assert!(to_come.contains("valid on 3999-01-01"), "{to_come}");
        assert_eq!(noted(2019, 4000), "");
    }

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
