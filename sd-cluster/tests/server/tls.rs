//! TLS of the service: with which certificates, and of whom.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sd_cluster::server::{Admin, ConfigService, ServerTls};
use sd_cluster::{ClusterConfig, connect};
use sd_core::{ErrorKind, Instance, Result};
use sd_testing::eventually;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::service;

/// A folder with the files of one authority: its own, and those of a certificate for `localhost`.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write();
        files
    }

    /// Makes another authority.
    fn write(&self) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        for (name, text) in [
            ("ca", authority.pem()),
            ("cert", certificate.pem()),
            ("key", key.serialize_pem()),
        ] {
            // At once, as what renews certificates does.
            let new = self.path("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, self.path(name)).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    async fn tls(&self, client_ca: Option<&Path>) -> ServerTls {
        let client_ca = client_ca.map(Path::to_owned);
        let read = ServerTls::read(self.path("cert"), self.path("key"), client_ca).await;
        read.unwrap()
    }

    fn client(&self, address: SocketAddr) -> ClusterConfig {
        ClusterConfig::new([format!("localhost:{}", address.port())])
            .with_module("a")
            .with_ca(self.path("ca"))
    }
}

async fn served(tls: ServerTls) -> (ConfigService, SocketAddr) {
    let (service, _) = service().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    service.serve_tls(listener, tls);
    (service, address)
}

async fn check(config: ClusterConfig) -> Result<()> {
    let registry = connect(config).unwrap();
    let checked = registry.check().await;
    registry.close().await.unwrap();
    checked
}

#[tokio::test]
async fn a_module_is_served_over_tls_if_it_trusts_the_issuer_of_the_service() {
    let (files, other) = (Files::new(), Files::new());
    let (service, address) = served(files.tls(None).await).await;
    let registry = connect(files.client(address)).unwrap();
    let instance = Instance::new("a", "10.0.0.1:9").unwrap();
    let guard = registry.register(instance).await.unwrap();
    let known = service.module("a").await.unwrap();
    assert_eq!(known.instances.len(), 1);
    guard.deregister().await.unwrap();

    let wrong = check(files.client(address).with_ca(other.path("ca"))).await;
    let wrong = wrong.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Denied, "{}", wrong.report());
    let plain = ClusterConfig::new([address.to_string()]).with_module("a");
    check(plain).await.unwrap_err();
}

#[tokio::test]
async fn with_issuers_of_clients_only_who_shows_a_certificate_of_theirs_is_let_in() {
    let (files, other) = (Files::new(), Files::new());
    let tls = files.tls(Some(&files.path("ca"))).await;
    let (_service, address) = served(tls).await;
    let client = || files.client(address);
    check(client().with_identity(files.path("cert"), files.path("key")))
        .await
        .unwrap();
    check(client()).await.unwrap_err();
    check(client().with_identity(other.path("cert"), other.path("key")))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_renewed_certificate_counts_without_a_restart_and_a_broken_one_changes_nothing() {
    let files = Files::new();
    let (_service, address) = served(files.tls(None).await).await;
    check(files.client(address)).await.unwrap();
    files.write();
    let is_new = || async { check(files.client(address)).await.is_ok() };
    eventually("the new certificate", sd_testing::LONG, is_new).await;
    fs::write(files.path("cert"), "no certificate").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..2 {
        check(files.client(address)).await.unwrap();
    }
    let log = sd_testing::Log::of_the_process().text();
    assert!(log.contains("files of TLS cannot be used"), "{log}");
}

#[tokio::test]
async fn operators_ask_over_tls_and_files_that_are_none_are_refused_at_the_start() {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let files = Files::new();
    let (service, _) = service().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let admin = Admin::new().tls(files.tls(None).await);
    service.serve_admin(listener, admin).unwrap();
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(files.path("ca")).unwrap();
    roots.add(authority).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(client));
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let request = "GET /v1/modules HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("[]"),
        "{answer}"
    );

    for (cert, key, part) in [
        ("missing", "key", "cert: cannot read"),
        ("cert", "cert", "holds no private key"),
    ] {
        let read = ServerTls::read(files.path(cert), files.path(key), None).await;
        let refused = read.unwrap_err();
        let report = refused.report().to_string();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{report}");
        assert!(report.contains(part), "{report}");
    }
}
