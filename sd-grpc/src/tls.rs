//! TLS and mutual TLS over any connection, by rustls with aws-lc-rs. Files are read again for each connection.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use http::uri::Authority;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sd_core::sync::lock;
use sd_core::{Address, Error, Instance, Result};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tracing::warn;

use crate::connector::BoxedIo;

const OP: &str = "tls";
const HTTP2: &[u8] = b"h2";

/// The TLS settings of a channel.
#[derive(Clone, Default)]
pub struct ClientTls {
    roots: Vec<Pem>,
    native_roots: bool,
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
}

/// Text in PEM, or the file that holds it.
#[derive(Clone)]
enum Pem {
    Text(Vec<u8>),
    File(PathBuf),
}

impl Pem {
    fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => std::fs::read(path).map_err(|error| {
                Error::invalid_input(OP, format!("cannot read {}: {error}", path.display()))
            }),
        }
    }
}

/// What was read of it.
#[derive(PartialEq, Eq)]
struct Material {
    roots: Vec<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl ClientTls {
    /// Trusts no CA yet: call [`with_ca`](Self::with_ca) or [`with_native_roots`](Self::with_native_roots).
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts these CA certificates, in PEM.
    #[must_use]
    pub fn with_ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(Pem::Text(pem.into()));
        self
    }

    /// Trusts the CA certificates of this file, in PEM. It is read again for each connection; while it cannot be used, what was
    /// read last counts.
    #[must_use]
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots.push(Pem::File(path.into()));
        self
    }

    /// Trusts the operating system's CA certificates.
    #[must_use]
    pub fn with_native_roots(mut self) -> Self {
        self.native_roots = true;
        self
    }

    /// Authenticates to servers with this certificate chain and its private key, both in PEM: mutual TLS.
    #[must_use]
    pub fn with_identity(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((Pem::Text(chain.into()), Pem::Text(key.into())));
        self
    }

    /// As [`with_identity`](Self::with_identity), from files that are read again for each connection, so that certificates can be
    /// renewed while the channel is in use. While they cannot be used, what was read last counts.
    #[must_use]
    pub fn with_identity_files(
        mut self,
        chain: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.identity = Some((Pem::File(chain.into()), Pem::File(key.into())));
        self
    }

    /// Expects this name in every server's certificate, and tells it to servers (SNI), instead of the endpoint's host. Required for
    /// Unix sockets. [`ChannelBuilder::authority_of`](crate::ChannelBuilder::authority_of) names each instance for itself, and goes
    /// before this.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("roots", &self.roots.len())
            .field("native_roots", &self.native_roots)
            .field("identity", &self.identity.as_ref().map(|_| "***"))
            .field("server_name", &self.server_name)
            .finish()
    }
}

impl ClientTls {
    fn has_files(&self) -> bool {
        let identity = self.identity.iter().flat_map(|(chain, key)| [chain, key]);
        let mut all = self.roots.iter().chain(identity);
        all.any(|pem| matches!(pem, Pem::File(_)))
    }

    fn read(&self) -> Result<Material> {
        let identity = self.identity.as_ref();
        Ok(Material {
            roots: self.roots.iter().map(Pem::read).collect::<Result<_>>()?,
            identity: identity
                .map(|(chain, key)| Ok::<_, Error>((chain.read()?, key.read()?)))
                .transpose()?,
        })
    }

    fn connector(&self, material: &Material) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        for pem in &material.roots {
            for certificate in certificates("CA", pem)? {
                roots.add(certificate).map_err(|e| {
                    Error::invalid_input(OP, format!("invalid CA certificate: {e}"))
                })?;
            }
        }
        if self.native_roots {
            // Some of a system's certificates are usually broken; none at all is an error below.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            return Err(Error::invalid_input(
                OP,
                "no CA is trusted: call `with_ca` or `with_native_roots`",
            ));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::invalid_input(OP, e.to_string()))?
            .with_root_certificates(roots);
        let mut config = match &material.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates("client", chain)?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| {
                    Error::invalid_input(OP, format!("invalid client key, PEM is expected: {e}"))
                })?;
                builder.with_client_auth_cert(chain, key).map_err(|e| {
                    Error::invalid_input(OP, format!("invalid client certificate or key: {e}"))
                })?
            }
        };
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// A checked [`ClientTls`].
pub(crate) struct Tls {
    settings: Arc<ClientTls>,
    current: Mutex<Current>,
    server_name: Option<ServerName<'static>>,
}

/// What was last read and could be used.
struct Current {
    material: Material,
    connector: TlsConnector,
}

impl Tls {
    pub(crate) fn new(settings: ClientTls) -> Result<Self> {
        let material = settings.read()?;
        Ok(Self {
            server_name: settings.server_name.clone().map(server_name).transpose()?,
            current: Mutex::new(Current {
                connector: settings.connector(&material)?,
                material,
            }),
            settings: Arc::new(settings),
        })
    }

    /// The connector for what the files hold now. An error never replaces what was good.
    async fn connector(&self) -> TlsConnector {
        if self.settings.has_files() {
            let settings = Arc::clone(&self.settings);
            let read = spawn_blocking(move || settings.read()).await;
            // Reading has no panic of its own, and at the end of the runtime nothing is connected.
            if let Ok(read) = read
                && let Err(error) = read.and_then(|material| self.renew(material))
            {
                warn!(error = %error.report(), "what was read of TLS files before is used");
            }
        }
        lock(&self.current).connector.clone()
    }

    fn renew(&self, material: Material) -> Result<()> {
        let mut current = lock(&self.current);
        if current.material != material {
            current.connector = self.settings.connector(&material)?;
            current.material = material;
        }
        Ok(())
    }

    /// `own` is what names this very instance, if anything does.
    pub(crate) async fn connect(
        &self,
        instance: &Instance,
        own: Option<&Authority>,
        io: BoxedIo,
    ) -> io::Result<BoxedIo> {
        let own = own.map(|own| own.host().trim_matches(['[', ']']).to_owned());
        let own = own.map(server_name).transpose().map_err(io::Error::other)?;
        let given = own.as_ref().or(self.server_name.as_ref());
        let name = match (given, instance.endpoint().address()) {
            (Some(name), _) => name.clone(),
            (None, Address::Tcp { host, .. }) => {
                server_name(host.to_owned()).map_err(io::Error::other)?
            }
            (None, _) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the endpoint has no host for TLS to check: set `ClientTls::with_server_name`",
                ));
            }
        };
        let stream = self.connector().await.connect(name, io).await?;
        if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the server did not negotiate HTTP/2 (ALPN h2)",
            ));
        }
        Ok(Box::new(stream))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

fn certificates(whose: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let broken =
        |why: String| Error::invalid_input(OP, format!("invalid {whose} certificate: {why}"));
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| broken(e.to_string()))?;
    if certificates.is_empty() {
        return Err(broken("there is none in the PEM text".to_owned()));
    }
    Ok(certificates)
}

fn server_name(name: String) -> Result<ServerName<'static>> {
    let told = format!("{name:?} is not a valid server name");
    ServerName::try_from(name).map_err(|_| Error::invalid_input(OP, told))
}
