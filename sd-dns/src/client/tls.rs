//! Whom to trust over TLS.

use hickory_resolver::TlsConfig;
use sd_core::Result;

use crate::config::DnsConfig;
use crate::config::rules::RULES;

/// What resolvers that are spoken to over TLS must prove.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    #[cfg(feature = "tls")]
    config: rustls::ClientConfig,
}

#[cfg(feature = "tls")]
impl Tls {
    /// Trusts the authorities that `config` names, or those of the operating system. Blocks while it reads them.
    ///
    /// # Errors
    /// `InvalidInput` names the file that cannot be used.
    pub(crate) fn read(config: &DnsConfig) -> Result<Self> {
        use std::sync::Arc;

        use rustls::crypto::aws_lc_rs::default_provider;
        use rustls::{ClientConfig, RootCertStore};
        use rustls_pki_types::CertificateDer;
        use rustls_pki_types::pem::PemObject;

        use crate::config::transport::Transport;

        let mut roots = RootCertStore::empty();
        match config.tls().read_ca(RULES)? {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    let certificate = certificate.map_err(|error| RULES.broken("ca", error))?;
                    let added = roots.add(certificate);
                    added.map_err(|error| RULES.broken("ca", error))?;
                }
            }
            None if config.transport == Transport::Tls => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            None => {}
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| RULES.broken("transport", error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config })
    }
}

/// Without the feature, settings that ask for TLS are refused before.
#[cfg(not(feature = "tls"))]
impl Tls {
    #[expect(
        clippy::unnecessary_wraps,
        reason = "with the feature, a file may not be readable"
    )]
    pub(crate) fn read(_config: &DnsConfig) -> Result<Self> {
        Ok(Self {})
    }
}

impl Tls {
    /// # Errors
    /// The client crate finds no settings of its own.
    #[cfg_attr(
        not(feature = "tls"),
        expect(clippy::unused_self, reason = "without the feature, it holds nothing")
    )]
    pub(crate) fn for_resolver(&self) -> Result<TlsConfig> {
        let tls = TlsConfig::new().map_err(|error| RULES.broken("transport", error))?;
        #[cfg(feature = "tls")]
        let tls = {
            let mut tls = tls;
            tls.config = self.config.clone();
            tls
        };
        Ok(tls)
    }
}
