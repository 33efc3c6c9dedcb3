//! TLS, headers, and that no secret reaches a log.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fmt::Write;
use std::fs;
use std::sync::Arc;

use common::{Cluster, PING, instance, module};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use schemars::JsonSchema;
use sd_cluster::{ClusterConfig, ConfigHealth, Received, RemoteConfig};
use sd_core::{ErrorKind, Registry};
use sd_testing::{LONG, Log, eventually};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Speaks TLS before a service, as a proxy does. Returns where, and the folder with `ca.pem`.
async fn with_tls(cluster: &Cluster) -> (String, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = cluster.address;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(stream).await?;
                let mut service = TcpStream::connect(target).await?;
                copy_bidirectional(&mut client, &mut service).await
            });
        }
    });
    (format!("localhost:{port}"), folder)
}

fn registry(config: ClusterConfig) -> Registry {
    sd_cluster::connect(config.with_module("reader").with_ping_interval(PING)).unwrap()
}

#[tokio::test]
async fn a_service_over_tls_is_used_if_its_certificate_is_trusted_and_for_its_name() {
    let cluster = Cluster::start().await;
    let (address, folder) = with_tls(&cluster).await;
    let (module, ca) = (module(), folder.path().join("ca.pem"));
    let good = registry(ClusterConfig::new([&address]).with_ca(&ca));
    let guard = good.register(instance(&module, 1)).await.unwrap();
    assert_eq!(good.list(&module).await.unwrap().len(), 1);
    guard.deregister().await.unwrap();

    let (_, other) = with_tls(&cluster).await;
    let other_ca = other.path().join("ca.pem");
    for (config, why) in [
        (
            ClusterConfig::new([&address]).with_ca(other_ca),
            "no trusted authority",
        ),
        (
            ClusterConfig::new([&address])
                .with_ca(&ca)
                .with_server_name("elsewhere"),
            "another name",
        ),
        (ClusterConfig::new([&address]), "localhost"),
        (
            ClusterConfig::new([cluster.address.to_string()]).with_ca(&ca),
            "does not speak TLS",
        ),
    ] {
        let error = registry(config).check().await.unwrap_err();
        let report = error.report().to_string();
        assert!(report.contains(why), "{why}: {report}");
    }
}

#[derive(Deserialize, JsonSchema)]
struct Settings {
    fail: Option<u32>,
    pwd: Option<u32>,
}

#[tokio::test]
async fn no_secret_reaches_a_log_or_an_error_at_the_finest_level() {
    const PLANTED: [&str; 9] = [
        "planted-in-default",
        "planted-in-override",
        "planted-in-config",
        "planted-in-header",
        "planted-in-garbage",
        "planted-in-a-wrong-type",
        "planted-in-a-schema",
        "planted-in-a-violation",
        "planted-in-a-url",
    ];
    let log = Log::of_the_process();
    let cluster = Cluster::start().await;
    let module_name = module();
    let default = r#"{"db":{"password":"planted-in-default"}}"#;
    let receiver =
        async |received: Received<Settings>| match received.config.fail.or(received.config.pwd) {
            None => Ok(()),
            Some(_) => Err("refused"),
        };
    let schema = r#"{"properties":{"db":{"type":"object","default":"planted-in-a-schema"}}}"#;
    let remote = RemoteConfig::new(default, receiver)
        .unwrap()
        .with_schema(schema)
        .unwrap()
        .with_overrides(r#"{"token":"planted-in-override"}"#)
        .unwrap();
    let config = cluster
        .config()
        .with_module(&module_name)
        .with_header("Authorization", "Bearer planted-in-header")
        .with_remote_config(remote);
    let shown = format!("{config:?}");
    let registry = sd_cluster::connect(config).unwrap();
    let handle = sd_cluster::module(&registry).unwrap();
    let guard = registry.register(instance(&module_name, 1)).await.unwrap();
    for (json, is_applied) in [
        (r#"{"db":{"password":"planted-in-config"}}"#, true),
        (r#"{"fail":1,"secret":["planted-in-garbage"]}"#, false),
        (r#"{"db":{}}"#, true),
        (r#"{"pwd":"planted-in-a-wrong-type"}"#, false),
        (r#"{"db":{"password":"p"}}"#, true),
        (r#""planted-in-a-wrong-type""#, false),
    ] {
        let set = cluster.service.set_config(&module_name, json, None).await;
        set.unwrap();
        let is_so = || async {
            let config = handle.health().config;
            (config == ConfigHealth::Applied) == is_applied
        };
        eventually("the configuration is handled", LONG, is_so).await;
    }
    let health = handle.health();
    let mut told = String::new();
    for json in [
        r#"{"db":"planted-in-a-violation"}"#,
        r#"{"db":"planted-in-a-violation""#,
    ] {
        let refused = cluster.service.set_config(&module_name, json, None).await;
        writeln!(told, "{}", refused.unwrap_err().report()).unwrap();
    }
    assert!(told.contains("db is a string"), "{told}");
    for url in [
        "isp://u:planted-in-a-url@h/?module_name=m",
        "isp://h/planted-in-a-url?module_name=m",
        "isp://h/?module_name=m&header=planted-in-a-url",
        "isp://h/?module_name=m&planted-in-a-url=1",
        "isp://h/?module_name=m&await_required=planted-in-a-url",
    ] {
        let refused = ClusterConfig::from_url(url).and_then(sd_cluster::connect);
        let report = refused.unwrap_err().report().to_string();
        writeln!(told, "{report}").unwrap();
    }
    let error = registry.list("a||b").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    guard.deregister().await.unwrap();
    registry.close().await.unwrap();
    write!(told, "{shown}\n{health}\n{health:?}\n{}", error.report()).unwrap();
    let logged = log.text();
    assert!(
        logged.contains("a configuration came"),
        "nothing was logged"
    );
    for planted in PLANTED {
        assert!(!logged.contains(planted), "{planted} is in the log");
        assert!(!told.contains(planted), "{planted} is told");
        let hex = planted.bytes().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        assert!(!logged.contains(&hex), "{planted} is in the log as bytes");
    }
}
