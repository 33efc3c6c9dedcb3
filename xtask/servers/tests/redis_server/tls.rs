//! Redis with TLS, which asks clients for their certificates.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sd_testing::{ServerProcess, free_port};
use server_programs::{LocalServer, Redis};
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
        // OpenSSL takes a certificate for self-signed whose issuer is called as it is itself.
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
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

fn ping(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"PING\r\n")?;
    let mut pong = [0; 7];
    stream.read_exact(&mut pong)?;
    Ok(String::from_utf8_lossy(&pong).into_owned())
}

fn connection(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

fn pinged(server: SocketAddr, config: Arc<ClientConfig>) -> io::Result<String> {
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
    ping(StreamOwned::new(tls, connection(server)?))
}

/// Files that a server reads.
fn with_files(program: Redis, folder: &Path, authority: &Authority) -> Redis {
    let Identity { certificate, key } = authority.issue("localhost");
    let files = [
        ("server.pem", certificate),
        ("server.key", key),
        ("clients.pem", authority.0.pem()),
    ];
    let [certificate, key, clients] = files.map(|(name, text)| {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        file
    });
    program
        .with_tls(&certificate, &key, &clients, free_port)
        .unwrap()
}

#[tokio::test]
#[ignore = "needs redis: cargo xtask test --backend redis"]
async fn with_tls_only_clients_with_a_certificate_are_served_where_the_program_has_tls() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let program = Redis::from_env().unwrap();
    let has_tls = program.can_tls().unwrap();
    let launched = ServerProcess::launch(with_files(program, folder.path(), &authority)).await;
    if !has_tls {
        let error = launched.unwrap_err().report().to_string();
        assert!(error.contains("TLS"), "{error}");
        return;
    }
    let mut server = launched.unwrap();
    let address = server.program().address();
    let with = config(&authority, Some(&authority.issue("client")));
    let without = config(&authority, None);
    for _ in 0..2 {
        let [with, without] = [&with, &without].map(Arc::clone);
        let pong = spawn_blocking(move || pinged(address, with)).await;
        assert_eq!(pong.unwrap().unwrap(), "+PONG\r\n");
        let refused = spawn_blocking(move || pinged(address, without)).await;
        refused.unwrap().unwrap_err();
        let plain = spawn_blocking(move || ping(connection(address)?)).await;
        assert_ne!(plain.unwrap().unwrap_or_default(), "+PONG\r\n");
        server.restart().await.unwrap();
    }
}
