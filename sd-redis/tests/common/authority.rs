//! Certificates for a server and its clients.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sd_testing::free_port;
use server_programs::Redis;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// Who issues the certificates of a test.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate for self-signed whose issuer is called as it is itself.
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// The file with its own certificate.
    pub(crate) fn ca(&self, folder: &Path, name: &str) -> PathBuf {
        written(folder, &format!("{name}-ca.pem"), self.0.pem())
    }

    /// Files with a certificate for 127.0.0.1 and its key.
    pub(crate) fn identity(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        (
            written(folder, &format!("{name}.pem"), certificate),
            written(folder, &format!("{name}.key"), key.serialize_pem()),
        )
    }

    /// A server with a certificate of this authority, which takes clients that have one as well.
    pub(crate) fn server(&self, folder: &Path, program: Redis) -> Redis {
        let (certificate, key) = self.identity(folder, "server");
        let clients = self.ca(folder, "clients");
        program
            .with_tls(&certificate, &key, &clients, free_port)
            .unwrap()
    }

    /// The same for servers that belong together, which have certificates of this authority for each other as well.
    pub(crate) fn group(&self, folder: &Path, programs: Vec<Redis>) -> Vec<Redis> {
        let (certificate, key) = self.identity(folder, "server");
        let clients = self.ca(folder, "clients");
        Redis::all_with_tls(programs, &certificate, &key, &clients, free_port).unwrap()
    }

    /// TLS before a server that has none, as a proxy on its machine ends it. It asks for certificates as [`server`](Self::server) does.
    pub(crate) async fn front(&self, folder: &Path, server: SocketAddr) -> TlsFront {
        let (certificate, key) = self.identity(folder, "front");
        let certificate = CertificateDer::from_pem_file(certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let clients = CertificateDer::from_pem_file(self.ca(folder, "front-clients")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(clients).unwrap();
        let provider = Arc::new(default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = accept(listener, TlsAcceptor::from(Arc::new(config)), server);
        TlsFront {
            address,
            _accepting: AbortOnDropHandle::new(tokio::spawn(accepting)),
        }
    }
}

/// Dropping it ends it and its connections.
pub(crate) struct TlsFront {
    pub(crate) address: SocketAddr,
    _accepting: AbortOnDropHandle<()>,
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, server: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(pass(client, acceptor.clone(), server));
    }
}

/// A client that is refused or goes away ends this, which is no failure of the test.
async fn pass(client: TcpStream, acceptor: TlsAcceptor, server: SocketAddr) -> std::io::Result<()> {
    let mut client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect(server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

fn written(folder: &Path, name: &str, text: String) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    file
}
