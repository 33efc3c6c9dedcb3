//! TLS of a listener: its certificate, and the issuers of its clients' certificates.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sd_backend::{FileThread, Rules, TlsSettings};
use sd_core::sync::lock;
use sd_core::{ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

const OP: &str = "config service: tls";
const RULES: Rules = Rules::new(OP);
const FILES: &str = "cert, key and client_ca";
/// How often files are looked at, at most. Modules come back together.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a look may take. Files on a network share hang.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// How long the connection that has begun a look waits for it: files that are read take no such time, and those that hang refuse none.
const WAIT_FOR_LOOK: Duration = Duration::from_millis(500);

/// What a listener shows of itself over TLS, and whom it lets in. A cheap clone.
///
/// The files are looked at with the connections that come, at most once a second, so that renewed ones need no restart. What cannot be used,
/// or hangs, is logged, and changes nothing. New files count for new connections: other authorities of clients end no connection of a module
/// that is there.
#[derive(Clone)]
pub struct ServerTls(Arc<Shared>);

struct Shared {
    files: Files,
    thread: Arc<FileThread>,
    current: Arc<Mutex<Current>>,
    /// The look that was begun last. It ends with this.
    look: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// Tells one content of the files from another.
    print: u64,
    looked_at: Instant,
    /// What could not be used is told once.
    is_troubled: bool,
}

impl ServerTls {
    /// Reads the PEM files of a certificate (chain), of its key, and of the authorities that must have issued the certificates of clients.
    /// Without these, clients need show none.
    ///
    /// # Errors
    /// `InvalidInput` names the setting whose file cannot be read or used. `Timeout` if the files are not read within 5 s.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn read(
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        client_ca: Option<PathBuf>,
    ) -> Result<Self> {
        let files = Files {
            cert: cert.into(),
            key: key.into(),
            client_ca,
        };
        let thread = FileThread::default();
        let reading = files.clone();
        let read = timeout(LOOK_WITHIN, thread.run(OP, move || reading.read())).await;
        let (config, print) = read.map_err(|_| too_late())???;
        Ok(Self(Arc::new(Shared {
            files,
            thread: Arc::new(thread),
            current: Arc::new(Mutex::new(Current {
                config,
                print,
                looked_at: Instant::now(),
                is_troubled: false,
            })),
            look: Mutex::default(),
        })))
    }

    /// Agrees on TLS over `stream`. The caller bounds the time.
    ///
    /// # Errors
    /// Both ends have nothing in common, the client shows no certificate that counts, or the stream fails.
    pub(super) async fn accept<S>(&self, stream: S) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config().await;
        TlsAcceptor::from(config).accept(stream).await
    }

    /// What the files say, as far as they can be read.
    async fn config(&self) -> Arc<ServerConfig> {
        if let Some(looked) = self.begin_look() {
            // It goes on if this takes too long.
            let _ = timeout(WAIT_FOR_LOOK, looked).await;
        }
        Arc::clone(&lock(&self.0.current).config)
    }

    /// Has the files looked at, if the last look is over and long ago. What is returned is done when this look is.
    fn begin_look(&self) -> Option<oneshot::Receiver<()>> {
        let mut look = lock(&self.0.look);
        if look.as_ref().is_some_and(|look| !look.is_finished()) {
            return None;
        }
        {
            let mut current = lock(&self.0.current);
            if current.looked_at.elapsed() < LOOK_EVERY {
                return None;
            }
            current.looked_at = Instant::now();
        }
        let (done, looked) = oneshot::channel();
        let (files, thread) = (self.0.files.clone(), Arc::clone(&self.0.thread));
        let current = Arc::clone(&self.0.current);
        *look = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let read = timeout(LOOK_WITHIN, thread.run(OP, move || files.read())).await;
            let read = read.map_err(|_| too_late()).and_then(|read| read?);
            lock(&current).take(read);
            drop(done);
        })));
        Some(looked)
    }
}

impl Current {
    /// Takes what a look has found.
    fn take(&mut self, read: Result<(Arc<ServerConfig>, u64)>) {
        match read {
            Ok((config, print)) => {
                if print != self.print {
                    info!(
                        "the certificate of the config service, its key or its client_ca is another one from now on"
                    );
                    (self.config, self.print) = (config, print);
                }
                self.is_troubled = false;
            }
            Err(error) if !self.is_troubled => {
                self.is_troubled = true;
                warn!(error = %error.report(), "files of TLS cannot be used, and what they said before goes on");
            }
            Err(_) => {}
        }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.files.fmt(f)
    }
}

fn too_late() -> sd_core::Error {
    sd_core::Error::new(ErrorKind::Timeout, OP).because(format!(
        "{FILES} were not read within {LOOK_WITHIN:?}: look for one that hangs"
    ))
}

impl Files {
    /// What they say now, and its print. Blocks.
    fn read(&self) -> Result<(Arc<ServerConfig>, u64)> {
        let settings = TlsSettings {
            cert: Some(&self.cert),
            key: Some(&self.key),
            ca: self.client_ca.as_deref(),
            ..TlsSettings::default()
        };
        let Some((chain, key)) = settings.read_identity(RULES)? else {
            return Err(RULES.broken("cert and key", "both are needed"));
        };
        let issuers = settings.read_ca(RULES)?;
        let mut hasher = DefaultHasher::new();
        (&chain, &key, &issuers).hash(&mut hasher);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
        let chain = chain.map_err(|error| RULES.broken("cert", error))?;
        let key =
            PrivateKeyDer::from_pem_slice(&key).map_err(|error| RULES.broken("key", error))?;
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| RULES.broken("tls", error))?;
        let builder = match issuers {
            None => builder.with_no_client_auth(),
            Some(issuers) => {
                let mut roots = RootCertStore::empty();
                for issuer in CertificateDer::pem_slice_iter(&issuers) {
                    let issuer = issuer.map_err(|error| RULES.broken("client_ca", error))?;
                    let added = roots.add(issuer);
                    added.map_err(|error| RULES.broken("client_ca", error))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let verifier = verifier.map_err(|error| RULES.broken("client_ca", error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|error| RULES.broken("cert and key", error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((Arc::new(config), hasher.finish()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use tokio::task::yield_now;
    use tokio::time::{advance, pause, sleep};

    use super::*;

    #[tokio::test]
    async fn files_that_hang_change_nothing_and_hold_up_no_connection() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(path("cert"), made.cert.pem()).unwrap();
        fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
        let tls = ServerTls::read(path("cert"), path("key"), None).await;
        let tls = tls.unwrap();
        let first = tls.config().await;
        let (_go_on, stuck) = mpsc::channel::<()>();
        let thread = Arc::clone(&tls.0.thread);
        let hangs = tokio::spawn(async move { thread.run(OP, move || stuck.recv()).await });
        yield_now().await;
        pause();
        for _ in 0..2 {
            advance(LOOK_EVERY).await;
            let begin = Instant::now();
            let served = tls.config().await;
            assert!(Arc::ptr_eq(&served, &first));
            assert!(begin.elapsed() < LOOK_EVERY, "{:?}", begin.elapsed());
        }
        sleep(LOOK_WITHIN).await;
        assert!(lock(&tls.0.current).is_troubled, "nothing was told");
        hangs.abort();
    }
}
