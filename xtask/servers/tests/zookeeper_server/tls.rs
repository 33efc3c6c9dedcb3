//! ZooKeeper with TLS, which asks clients for their certificates.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sd_testing::{ServerProcess, free_port};
use server_programs::{Allowed, LocalServer, ZooKeeper, ZooKeeperSession};
use tokio::task::spawn_blocking;

/// Who issues the certificates of a test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        Identity {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// The client's side of TLS, with a certificate of its own or none.
fn config(authority: &Authority, identity: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    Arc::new(match identity {
        None => config.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
    })
}

fn written(server: SocketAddr, path: &str, config: Arc<ClientConfig>) -> io::Result<String> {
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
    let connection = ZooKeeperSession::connection(server)?;
    let mut session = ZooKeeperSession::begin(StreamOwned::new(tls, connection))?;
    session.create(path, "1", Allowed::Anyone)?;
    session.data(path)
}

/// Files that a server reads.
fn files(folder: &Path, authority: &Authority) -> ZooKeeper {
    let Identity { certificate, key } = authority.issue("localhost");
    let [server, clients] = ["server.pem", "clients.pem"].map(|file| folder.join(file));
    fs::write(&server, key + &certificate).unwrap();
    fs::write(&clients, authority.0.pem()).unwrap();
    let program = ZooKeeper::from_env().unwrap();
    program.with_tls(&server, &clients, free_port).unwrap()
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn with_tls_only_clients_with_a_certificate_are_served() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let program = files(folder.path(), &authority);
    let mut server = ServerProcess::launch(program).await.unwrap();
    let address = server.program().address();
    let with = config(&authority, Some(&authority.issue("client")));
    let without = config(&authority, None);
    for path in ["/a", "/b"] {
        let [with, without] = [&with, &without].map(Arc::clone);
        let data = spawn_blocking(move || written(address, path, with));
        assert_eq!(data.await.unwrap().unwrap(), "1");
        let refused = spawn_blocking(move || written(address, path, without));
        refused.await.unwrap().unwrap_err();
        let plain = spawn_blocking(move || ZooKeeperSession::connect(address).map(drop));
        plain.await.unwrap().unwrap_err();
        server.restart().await.unwrap();
    }
}
