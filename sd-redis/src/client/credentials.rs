//! What is read from files each time a connection is made: the password, the trusted issuers, our own certificate.
//!
//! Reading them each time is what lets an operator replace a password or a certificate under a running process.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::{CertificateResult, load_native_certs};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sd_backend::Secret;
use sd_core::Result;

use crate::config::RedisConfig;
use crate::config::rules::RULES;

/// How to prove who we are, and whom to trust, as of now.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// User and password.
    pub(crate) login: Option<(String, Secret)>,
    /// User and password at Sentinels.
    pub(crate) sentinel_login: Option<(String, Secret)>,
    /// `None` without TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl Credentials {
    /// Reads everything that `config` names. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` names the key whose file cannot be read or understood.
    pub(crate) fn read(config: &RedisConfig) -> Result<Self> {
        if let Some(name) = &config.server_name {
            let checked = ServerName::try_from(name.as_str());
            checked
                .map_err(|_| RULES.broken("server_name", "must be a host name or an address"))?;
        }
        let tls = config.speaks_tls().then(|| tls(config)).transpose()?;
        Ok(Self {
            login: config.login().read(RULES)?,
            sentinel_login: sentinel_login(config)?,
            tls: tls.map(Arc::new),
        })
    }
}

fn sentinel_login(config: &RedisConfig) -> Result<Option<(String, Secret)>> {
    let password = match &config.sentinel_password_file {
        Some(path) => Some(RULES.read_secret("sentinel_password_file", path)?),
        None => config.sentinel_password.clone(),
    };
    Ok(config.sentinel_user.clone().zip(password))
}

fn tls(config: &RedisConfig) -> Result<ClientConfig> {
    let roots = match config.tls().read_ca(RULES)? {
        // The server's certificate mostly comes from an authority of its own: then no other may vouch for it.
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| RULES.broken("ca", error))?;
                let added = roots.add(certificate);
                added.map_err(|error| RULES.broken("ca", error))?;
            }
            roots
        }
        None => of_the_machine(load_native_certs())?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| RULES.broken("tls", error))?
        .with_root_certificates(roots);
    let Some((cert, key)) = config.tls().read_identity(RULES)? else {
        return Ok(builder.with_no_client_auth());
    };
    let chain: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&cert).collect();
    let chain = chain.map_err(|error| RULES.broken("cert", error))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| RULES.broken("key", error))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| RULES.broken("cert and key", error))
}

/// The authorities that the operating system trusts.
///
/// # Errors
/// `InvalidInput` if there are none: every server would be refused as one of an unknown issuer.
fn of_the_machine(found: CertificateResult) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})"));
        let rule = format!(
            "this machine has no trusted authorities{}: install ca-certificates, or set ca to the PEM file of the one that signed the server's certificate",
            why.unwrap_or_default()
        );
        return Err(RULES.broken("ca", rule));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_there_or_is_none_is_refused_by_its_key() {
        let refused = |config: RedisConfig| {
            let error = Credentials::read(&config.checked().unwrap()).unwrap_err();
            error.report().to_string()
        };
        let report = refused(RedisConfig::new(["h"]).with_ca("/does/not/exist"));
        assert!(
            report.contains("ca: cannot read /does/not/exist"),
            "{report}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no certificate").unwrap();
        let report = refused(RedisConfig::new(["h"]).with_identity(file.path(), file.path()));
        assert!(report.contains("cert: "), "{report}");
        let report = refused(RedisConfig::new(["h"]).with_server_name("not a name"));
        assert!(report.contains("server_name: "), "{report}");
    }

    #[test]
    fn a_machine_without_authorities_is_told_as_such() {
        let error = of_the_machine(CertificateResult::default()).unwrap_err();
        let report = error.report().to_string();
        assert!(report.contains("ca: ") && report.contains("install ca-certificates"));
    }

    #[test]
    fn the_password_at_sentinels_is_read_from_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sesame\n").unwrap();
        let config = RedisConfig::from_url("redis+sentinel://h").unwrap();
        let read = |path| {
            let config = config.clone().with_sentinel_password_file("u", path);
            Credentials::read(&config.checked().unwrap())
        };
        let login = read(file.path()).unwrap().sentinel_login;
        assert_eq!(login, Some(("u".to_owned(), Secret::new("sesame"))));
        let error = read(std::path::Path::new("/does/not/exist")).unwrap_err();
        let report = error.report().to_string();
        assert!(
            report.contains("sentinel_password_file: cannot read"),
            "{report}"
        );
    }

    #[test]
    fn without_tls_nothing_is_read_for_it() {
        let config = RedisConfig::from_url("redis://:sesame@h").unwrap();
        let read = Credentials::read(&config.checked().unwrap()).unwrap();
        assert!(read.tls.is_none());
        assert_eq!(
            read.login,
            Some(("default".to_owned(), Secret::new("sesame")))
        );
    }
}
