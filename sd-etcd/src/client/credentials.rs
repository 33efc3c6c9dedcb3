//! What is read from files each time a connection is made: the password, the trusted issuers, our own certificate.
//!
//! Reading them each time is what lets an operator replace a password or a certificate under a running process.

use etcd_client::{Certificate, Identity, TlsOptions};
use sd_backend::Secret;
use sd_core::Result;
use tonic::transport::Endpoint;

use crate::config::EtcdConfig;
use crate::config::rules::RULES;

/// How to prove who we are, and whom to trust, as of now.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// User and password.
    pub(crate) login: Option<(String, Secret)>,
    /// `None` without TLS.
    pub(crate) tls: Option<TlsOptions>,
}

impl Credentials {
    /// Reads everything that `config` names.
    ///
    /// # Errors
    /// `InvalidInput` names the key whose file cannot be read or understood.
    pub(crate) fn read(config: &EtcdConfig) -> Result<Self> {
        Ok(Self {
            login: config.login().read(RULES)?,
            tls: tls(config)?,
        })
    }
}

fn tls(config: &EtcdConfig) -> Result<Option<TlsOptions>> {
    if !config.endpoints.speak_tls() {
        return Ok(None);
    }
    let mut options = TlsOptions::new();
    options = match config.tls().read_ca(RULES)? {
        // etcd's certificates mostly come from an authority of its own: then no other may vouch for it.
        Some(pem) => options.ca_certificate(Certificate::from_pem(pem)),
        None => options.with_native_roots(),
    };
    if let Some(name) = &config.server_name {
        options = options.domain_name(name);
    }
    if let Some((cert, key)) = config.tls().read_identity(RULES)? {
        options = options.identity(Identity::from_pem(cert, key));
    }
    // Whether the files hold what they should is seen only when a connector is made of them.
    Endpoint::from_static("https://localhost")
        .tls_config(options.clone())
        .map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            RULES.broken(
                "ca, cert, key or server_name",
                cause.unwrap_or_else(|| error.to_string()),
            )
        })?;
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_certificate_that_is_not_there_or_is_none_is_refused_by_its_key() {
        let checked = |config: EtcdConfig| Credentials::read(&config.checked().unwrap());
        let error = checked(EtcdConfig::new(["h:1"]).with_ca("/does/not/exist"))
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let report = error.report().to_string();
        assert!(
            report.contains("ca: cannot read /does/not/exist"),
            "{report}"
        );

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no certificate").unwrap();
        let config = EtcdConfig::new(["h:1"]).with_identity(file.path(), file.path());
        let report = checked(config).err().unwrap().report().to_string();
        assert!(report.contains("cert"), "{report}");
    }
}
