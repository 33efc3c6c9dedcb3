//! What is read from files each time a connection is made: the trusted issuers, our own certificate.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sd_core::Result;
use tokio_rustls::TlsConnector;

use crate::config::ClusterConfig;
use crate::config::rules::RULES;

/// How to speak TLS, as of now.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) connector: TlsConnector,
    /// The name that certificates must be for. `None` for the host of the endpoint.
    pub(crate) server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// Reads what `config` names. `None` without TLS. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` names the key whose file cannot be read or understood.
    pub(crate) fn read(config: &ClusterConfig) -> Result<Option<Self>> {
        let settings = config.tls();
        if settings.wanted() != Some(true) {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        match settings.read_ca(RULES)? {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    let certificate = certificate.map_err(|error| RULES.broken("ca", error))?;
                    let added = roots.add(certificate);
                    added.map_err(|error| RULES.broken("ca", error))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| RULES.broken("tls", error))?
            .with_root_certificates(roots);
        let client = match settings.read_identity(RULES)? {
            Some((cert, key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&cert).collect();
                let chain = chain.map_err(|error| RULES.broken("cert", error))?;
                let key = PrivateKeyDer::from_pem_slice(&key)
                    .map_err(|error| RULES.broken("key", error))?;
                let built = builder.with_client_auth_cert(chain, key);
                built.map_err(|error| RULES.broken("cert and key", error))?
            }
            None => builder.with_no_client_auth(),
        };
        let name = config.server_name.clone().map(ServerName::try_from);
        let server_name = name
            .transpose()
            .map_err(|error| RULES.broken("server_name", error))?;
        Ok(Some(Self {
            connector: TlsConnector::from(Arc::new(client)),
            server_name,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_only_for_tls_and_a_wrong_one_is_refused_by_its_key() {
        let config = ClusterConfig::new(["h"]).with_module("m");
        assert!(Tls::read(&config).unwrap().is_none());
        assert!(Tls::read(&config.clone().with_tls(true)).unwrap().is_some());
        let refused = Tls::read(&config.clone().with_ca("/does/not/exist"))
            .err()
            .unwrap();
        let report = refused.report().to_string();
        assert!(
            report.contains("ca: cannot read /does/not/exist"),
            "{report}"
        );
        let refused = Tls::read(&config.with_server_name("not a name"))
            .err()
            .unwrap();
        assert!(refused.report().to_string().contains("server_name"));
    }
}
