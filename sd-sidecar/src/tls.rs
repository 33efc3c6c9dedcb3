//! TLS of those who talk to an agent: which authorities they trust, and the certificate that they show.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use sd_backend::{FileThread, Rules, TlsSettings, hint_in, hinted, with_hint};
use sd_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const OP: &str = "agent: tls";
const RULES: Rules = Rules::new(OP);
const FILES: &str = "ca, cert and key";

const LACKS_CERTIFICATE: &str =
    "the agent asks for a client certificate, and none is set: set cert and key";

/// Whom a client of an agent trusts over TLS, and what it shows of itself. By default it trusts the authorities that the operating system
/// trusts, shows no certificate, and expects the host of the agent's address as the name in the agent's certificate.
///
/// The files are read for each connection, so that renewed ones need no restart.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    server_name: Option<String>,
    /// Shared by all clones: files that hang hold up one thread.
    #[serde(skip)]
    files: Arc<FileThread>,
}

/// A connection over which the agent has proved who it is.
#[derive(Debug)]
pub struct Secured<S> {
    /// What is sent and received in secret.
    pub stream: TlsStream<S>,
    /// What is known of how the agent takes this client.
    pub standing: Standing,
}

/// How an agent takes a client: it may refuse its certificate only after the handshake, and then hang up without a word.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The agent has asked for a certificate while there was none to show.
    lacks_certificate: bool,
}

impl Standing {
    /// Why a request over the connection has failed for this `reason`, with what to do if that is known.
    pub fn explained(self, reason: &str) -> String {
        if self.lacks_certificate {
            return format!("{LACKS_CERTIFICATE}: {reason}");
        }
        match hint_in(&*with_hint(reason)) {
            Some(hint) => format!("{hint}: {reason}"),
            None => reason.to_owned(),
        }
    }
}

impl ClientTls {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts only agents whose certificate was issued by an authority in this PEM file.
    #[must_use]
    pub fn with_ca(mut self, ca: impl Into<PathBuf>) -> Self {
        self.ca = Some(ca.into());
        self
    }

    /// Shows this certificate (chain), with its key, to agents that ask for one. Both are PEM files.
    #[must_use]
    pub fn with_identity(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.cert = Some(cert.into());
        self.key = Some(key.into());
        self
    }

    /// Expects this name, or IP address, in the agent's certificate.
    #[must_use]
    pub fn with_server_name(mut self, server_name: impl Into<String>) -> Self {
        self.server_name = Some(server_name.into());
        self
    }

    /// The same from settings that may each be missing, as those of a command line. [`check`](Self::check) refuses half an identity.
    #[must_use]
    pub fn from_parts(
        ca: Option<PathBuf>,
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
        server_name: Option<String>,
    ) -> Self {
        Self {
            ca,
            cert,
            key,
            server_name,
            ..Self::default()
        }
    }

    /// Whether anything was set.
    pub fn is_set(&self) -> bool {
        self.settings().wanted() == Some(true)
    }

    /// Reads the files once, so that a mistake is told at the start. Blocks, but no longer than `within`.
    ///
    /// # Errors
    /// `InvalidInput` names the setting that is wrong, and the file that cannot be read in time or does not hold what it should.
    pub fn check(&self, within: Duration) -> Result<()> {
        self.settings().check(RULES)?;
        if let Some(name) = &self.server_name {
            server_name(name)?;
        }
        let settings = self.clone();
        RULES.read_within(FILES, within, move || settings.read().map(drop))
    }

    /// Agrees on TLS over `stream`, with the agent at `host`, a name or an IP address without brackets. Nothing but the handshake is sent
    /// before the agent's certificate was found good. Has no deadline of its own.
    ///
    /// # Errors
    /// `InvalidInput` for a file or a name that cannot be used, `Denied` if one side refuses the other, `Unavailable` if the connection ends.
    ///
    /// # Cancel safety
    /// A dropped call leaves no connection behind.
    pub async fn connect<S>(&self, host: &str, stream: S) -> Result<Secured<S>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let settings = self.clone();
        let (config, asked) = self.files.run(OP, move || settings.read()).await??;
        let name = server_name(self.server_name.as_deref().unwrap_or(host))?;
        let agreeing = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = agreeing.await.map_err(disagreed)?;
        Ok(Secured {
            stream,
            standing: Standing {
                lacks_certificate: asked.0.load(Ordering::Relaxed),
            },
        })
    }

    fn settings(&self) -> TlsSettings<'_> {
        TlsSettings {
            ca: self.ca.as_deref(),
            cert: self.cert.as_deref(),
            key: self.key.as_deref(),
            server_name: self.server_name.as_deref(),
            ..TlsSettings::default()
        }
    }

    /// What the files say now. Blocks.
    fn read(&self) -> Result<(ClientConfig, Arc<NoCertificate>)> {
        let settings = self.settings();
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
        let asked = Arc::new(NoCertificate::default());
        let mut config = if let Some((cert, key)) = settings.read_identity(RULES)? {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&cert).collect();
            let chain = chain.map_err(|error| RULES.broken("cert", error))?;
            let key =
                PrivateKeyDer::from_pem_slice(&key).map_err(|error| RULES.broken("key", error))?;
            let built = builder.with_client_auth_cert(chain, key);
            built.map_err(|error| RULES.broken("cert and key", error))?
        } else {
            let asked: Arc<NoCertificate> = Arc::clone(&asked);
            builder.with_client_cert_resolver(asked)
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((config, asked))
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(|error| RULES.broken("server_name", error))
}

fn disagreed(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => {
            let hint = "it hangs up while TLS is agreed on: it does not speak TLS at this port, or has no more room for connections";
            Error::new(ErrorKind::Unavailable, OP).with_source(hinted(hint, error))
        }
        io::ErrorKind::InvalidData => {
            Error::new(ErrorKind::Denied, OP).with_source(with_hint(error))
        }
        _ => Error::new(ErrorKind::Unavailable, OP).with_source(with_hint(error)),
    }
}

/// Shows no certificate, and notes that one was asked for.
#[derive(Debug, Default)]
struct NoCertificate(AtomicBool);

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_refused_at_the_start_by_its_key() {
        let within = Duration::from_secs(20);
        let refused = |tls: ClientTls| tls.check(within).unwrap_err().report().to_string();
        let half = ClientTls::from_parts(None, Some("/cert".into()), None, None);
        for (tls, part) in [
            (half, "cert and key: one is missing"),
            (
                ClientTls::new().with_ca("/does/not/exist"),
                "ca: cannot read /does/not/exist",
            ),
            (
                ClientTls::new().with_identity("/does/not/exist", "/key"),
                "cert: cannot read /does/not/exist",
            ),
            (
                ClientTls::new().with_server_name("not a name"),
                "server_name: ",
            ),
        ] {
            assert!(tls.is_set(), "{tls:?}");
            let why = refused(tls);
            assert!(why.contains(part), "{why}");
        }
        assert!(!ClientTls::new().is_set());
        ClientTls::new().check(within).unwrap();
    }
}
