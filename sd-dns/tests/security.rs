//! DNS over TLS, and what of an answer reaches a reader.

#![cfg(feature = "tls")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use common::scripted::{Scripted, serve_stream};
use common::zone::{address, srv};
use common::{LONGEST, SHORTEST, connect, is_live_with, until};
use hickory_resolver::proto::rr::{Name, RecordType};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sd_core::ErrorKind;
use sd_dns::{DnsConfig, TARGET_KEY, Transport};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// An authority, and a resolver over TLS whose certificate it has issued.
struct Secure {
    address: SocketAddr,
    folder: TempDir,
    _tasks: JoinSet<()>,
}

impl Secure {
    /// Answers what `server` answers. Its certificate is for `names`.
    async fn start(server: &Scripted, names: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();

        let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = server.state();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
                connections.spawn(async move {
                    // A client that does not trust us ends the handshake.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = serve_stream(stream, &state).await;
                    }
                });
            }
        });
        Self {
            address,
            folder,
            _tasks: tasks,
        }
    }

    fn config(&self) -> DnsConfig {
        DnsConfig::addresses(80)
            .with_resolvers([self.address.to_string()])
            .with_domain("sd.test.")
            .with_transport(Transport::Tls)
            .with_intervals(SHORTEST, LONGEST)
            .with_ca(self.folder.path().join("ca.pem"))
    }
}

#[tokio::test]
async fn a_resolver_over_tls_is_asked_if_its_certificate_is_trusted_and_for_its_name() {
    let server = Scripted::start(|asked| asked.records(0, &[address("10.0.0.1")])).await;
    let by_address = Secure::start(&server, &["127.0.0.1"]).await;
    let mut seen = connect(by_address.config()).subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let by_name = Secure::start(&server, &["resolver.test"]).await;
    let config = by_name.config().with_server_name("resolver.test");
    let mut seen = connect(config).subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    let error = connect(by_name.config()).list("greeter").await.unwrap_err();
    let report = error.report().to_string();
    assert!(report.contains("set server_name"), "{report}");
    let other = by_address
        .config()
        .with_ca(by_name.folder.path().join("ca.pem"));
    let error = connect(other).list("greeter").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let report = error.report().to_string();
    assert!(report.contains("set ca to"), "{report}");
}

#[tokio::test]
async fn a_file_of_authorities_that_cannot_be_used_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    for (text, told) in [(None, "cannot read"), (Some("no PEM"), "no certificate")] {
        if let Some(text) = text {
            fs::write(&ca, text).unwrap();
        }
        let config = DnsConfig::srv().with_transport(Transport::Tls).with_ca(&ca);
        let error = sd_dns::connect(config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let report = error.report().to_string();
        assert!(report.contains(told), "{report}");
    }
    // To open it would wait for a program that writes to it.
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let config = DnsConfig::srv()
        .with_transport(Transport::Tls)
        .with_ca(&pipe);
    let report = sd_dns::connect(config).unwrap_err().report().to_string();
    assert!(report.contains("it is a pipe"), "{report}");
}

/// What a zone holds is text of its owner.
#[tokio::test]
async fn no_name_in_an_answer_moves_a_cursor() {
    let odd = |end: &[u8]| Name::from_labels([&b"\x1b[2J\n\xe2\x80\xae"[..], end]).unwrap();
    let [there, nowhere] = [odd(b"there"), odd(b"nowhere")];
    let targets = [srv(0, 1, 81, &there), srv(0, 1, 82, &nowhere)];
    let server = Scripted::start(move |asked| {
        if asked.wanted() == RecordType::SRV {
            return asked.records(0, &targets);
        }
        if *asked.name() == there {
            return asked.records(0, &[address("10.0.0.1")]);
        }
        asked.no_such_name(0)
    })
    .await;
    let config = DnsConfig::srv().with_resolvers([server.address.to_string()]);
    let set = connect(config).list("greeter").await.unwrap();
    let target = &set.instances()[0].metadata()[TARGET_KEY];
    let skipped = &set.skipped()[0].key;
    for (text, end) in [(target, "there."), (skipped, "nowhere.")] {
        assert!(
            text.is_ascii() && !text.contains(char::is_control),
            "{text:?}"
        );
        assert!(text.ends_with(end), "{text:?}");
    }
}
