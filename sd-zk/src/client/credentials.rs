//! What is read from files for each session: the password, the trusted issuers, our own certificate. Those of TLS are read again when a
//! connection was lost.
//!
//! Reading them each time is what lets an operator replace a password or a certificate under a running process.

use std::sync::Arc;

use sd_backend::Secret;
use sd_core::Result;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use zookeeper_client as zk;

use crate::config::ZkConfig;
use crate::config::auth_scheme::AuthScheme;
use crate::config::rules::RULES;

/// How to prove who we are, and whom to trust, as of now.
pub(crate) struct Credentials {
    login: Option<Login>,
    /// `None` without TLS.
    tls: Option<Tls>,
}

/// Whom to trust, and our own certificate.
pub(crate) struct Tls {
    certs: zk::TlsCerts,
    /// The same, for a connection of our own.
    pub(crate) connector: TlsConnector,
    pub(crate) shows_certificate: bool,
}

struct Login {
    scheme: AuthScheme,
    user: String,
    password: Secret,
}

impl Credentials {
    /// Reads everything that `config` names. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` names the key whose file cannot be read or understood.
    pub(crate) fn read(config: &ZkConfig) -> Result<Self> {
        Ok(Self {
            login: login(config)?,
            tls: tls(config)?,
        })
    }

    /// Has a connector use them. Those of TLS can be replaced later, for the connections that come then.
    pub(crate) fn apply(
        &self,
        mut connector: zk::Connector,
    ) -> (zk::Connector, Option<zk::TlsDynamicCerts>) {
        if let Some(login) = &self.login {
            connector = login.apply(connector);
        }
        let Some(tls) = &self.tls else {
            return (connector, None);
        };
        let certs = zk::TlsDynamicCerts::new(tls.certs.clone());
        let options = zk::TlsOptions::new().with_certs(certs.clone());
        (connector.with_tls(options), Some(certs))
    }

    /// User and password as digest authentication has them. `None` without such a login: no other one is possible in a session that was
    /// made.
    pub(crate) fn digest(&self) -> Option<Secret> {
        let login = self.login.as_ref();
        let login = login.filter(|login| login.scheme == AuthScheme::Digest);
        login.map(Login::digest)
    }

    /// What replaces the certificates of a connector that was told earlier ones.
    pub(crate) fn certs(self) -> Option<zk::TlsCerts> {
        self.tls.map(|tls| tls.certs)
    }

    /// `None` without TLS.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }
}

impl Login {
    fn apply(&self, connector: zk::Connector) -> zk::Connector {
        match self.scheme {
            AuthScheme::Digest => connector.with_auth("digest", self.digest().expose().as_bytes()),
            #[cfg(feature = "sasl")]
            AuthScheme::Sasl => {
                let (user, password) = (self.user.clone(), self.password.expose().to_owned());
                let options = zk::SaslOptions::digest_md5(user, password);
                connector.with_sasl(options)
            }
            // A configuration with it is refused.
            #[cfg(not(feature = "sasl"))]
            AuthScheme::Sasl => connector,
        }
    }

    fn digest(&self) -> Secret {
        Secret::new(format!("{}:{}", self.user, self.password.expose()))
    }
}

fn login(config: &ZkConfig) -> Result<Option<Login>> {
    let scheme = config.auth_scheme;
    let login = config.login().read(RULES)?;
    Ok(login.map(|(user, password)| Login {
        scheme,
        user,
        password,
    }))
}

fn tls(config: &ZkConfig) -> Result<Option<Tls>> {
    if !config.speaks_tls() {
        return Ok(None);
    }
    let Some(ca) = config.tls().read_ca(RULES)? else {
        return Err(RULES.broken("ca", "TLS needs it"));
    };
    let trusted = zk::TlsCa::from_pem(text("ca", &ca)?);
    let trusted = trusted.map_err(|error| RULES.broken("ca", error))?;
    let mut certs = zk::TlsCerts::builder().with_ca(trusted);
    let identity = config.tls().read_identity(RULES)?;
    if let Some((cert, key)) = &identity {
        let identity = zk::TlsIdentity::from_pem(text("cert", cert)?, text("key", key)?);
        certs = certs.with_identity(identity.map_err(|error| RULES.broken("cert and key", error))?);
    }
    let connector = connector(&ca, identity.as_ref());
    Ok(Some(Tls {
        certs: certs.build().map_err(|error| RULES.broken("ca", error))?,
        connector: connector.map_err(|error| RULES.broken("cert and key", error))?,
        shows_certificate: identity.is_some(),
    }))
}

fn connector(
    ca: &[u8],
    identity: Option<&(Vec<u8>, Vec<u8>)>,
) -> Result<TlsConnector, Box<dyn std::error::Error>> {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(CertificateDer::pem_slice_iter(ca).flatten());
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let cert = CertificateDer::pem_slice_iter(cert).collect::<Result<Vec<_>, _>>()?;
            config.with_client_auth_cert(cert, PrivateKeyDer::from_pem_slice(key)?)?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn text<'a>(key: &str, pem: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(pem).map_err(|_| RULES.broken(key, "the file must hold UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_password_file_is_read_each_time_without_its_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = ZkConfig::new(["h:1"]).with_password_file("u", file.path());
        for password in ["first", "second"] {
            std::fs::write(file.path(), format!("{password}\n")).unwrap();
            let read = login(&config).unwrap().unwrap();
            assert_eq!(
                (read.user.as_str(), read.password.expose()),
                ("u", password)
            );
        }
        drop(file);
        let error = login(&config).err().unwrap().report().to_string();
        assert!(error.contains("password_file"), "{error}");
    }

    #[test]
    fn a_certificate_that_is_not_there_is_refused_by_its_key() {
        let config = ZkConfig::new(["h:1"]).with_ca("/does/not/exist");
        let error = Credentials::read(&config.checked().unwrap()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let report = error.report().to_string();
        assert!(
            report.contains("ca: cannot read /does/not/exist"),
            "{report}"
        );
    }
}
