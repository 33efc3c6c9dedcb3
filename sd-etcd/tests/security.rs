//! Logging in, and TLS, over etcds of our own.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::election::{Booth, after, first, leads, name, ticket, waits};
use common::{LONG, event, instance, is_live_with, own_server, prefix, until};
use etcd_client::{Client, ConnectOptions, Permission, PermissionType};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sd_core::{ErrorKind, RegistrationEvent, ServiceName};
use sd_etcd::EtcdConfig;
use sd_testing::ServerProcess;
use server_programs::{Etcd, LocalServer};
use tempfile::TempDir;
use tokio::time::timeout;

fn service() -> ServiceName {
    ServiceName::new("greeter").unwrap()
}

/// Switches authentication on: `root`, and `svc`, who may do everything below `prefix`.
async fn with_users(url: &str, prefix: &str, password: &str) -> Client {
    let mut admin = Client::connect([url], None).await.unwrap();
    admin.role_add("root").await.unwrap();
    admin.user_add("root", "root", None).await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.role_add("svc").await.unwrap();
    let below = Permission::new(PermissionType::Readwrite, format!("{prefix}/"))
        .with_range_end(format!("{prefix}0"));
    admin.role_grant_permission("svc", below).await.unwrap();
    admin.user_add("svc", password, None).await.unwrap();
    admin.user_grant_role("svc", "svc").await.unwrap();
    admin.auth_enable().await.unwrap();
    let login = ConnectOptions::new().with_user("root", "root");
    Client::connect([url], Some(login)).await.unwrap()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_password_changed_at_the_server_is_read_again_and_nothing_is_lost() {
    let server = own_server().await;
    let (url, prefix) = (server.program().url(), prefix());
    let mut admin = with_users(&url, &prefix, "first").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "first\n").unwrap();

    let config = EtcdConfig::new([&url])
        .with_prefix(&prefix)
        .with_password_file("svc", file.path());
    let registry = sd_etcd::connect(config).unwrap();
    let ttl = Duration::from_secs(9);
    let mut guard = registry.register(instance(1)).ttl(ttl).await.unwrap();
    event(&mut guard, "registered").await;
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    // The file comes late, so the old password is refused for a while.
    admin.user_change_password("svc", "second").await.unwrap();
    let events = event(&mut guard, "at_risk").await;
    let Some(RegistrationEvent::AtRisk(error)) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    fs::write(file.path(), "second\n").unwrap();
    let events = event(&mut guard, "recovered").await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(registry.list(&service()).await.unwrap().len(), 1);
    guard.deregister().await.unwrap();
    until(&mut seen, "gone", is_live_with(0)).await;
}

/// A restarted server knows no token that it gave out before.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_token_that_is_no_longer_valid_is_renewed_unseen() {
    let mut server = own_server().await;
    let (url, prefix) = (server.program().url(), prefix());
    let admin = with_users(&url, &prefix, "secret").await;
    drop(admin);
    let config = EtcdConfig::new([&url])
        .with_prefix(&prefix)
        .with_user("svc", "secret");
    let registry = sd_etcd::connect(config).unwrap();
    let _guard = registry.register(instance(1)).await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(registry.list(&service()).await.unwrap().len(), 1);
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_wrong_or_missing_login_is_denied_and_a_needless_one_ignored() {
    let server = own_server().await;
    let (url, prefix) = (server.program().url(), prefix());
    let config = || EtcdConfig::new([&url]).with_prefix(&prefix);
    let with_login = sd_etcd::connect(config().with_user("svc", "hunter2")).unwrap();
    assert!(with_login.list(&service()).await.unwrap().is_empty());

    with_users(&url, &prefix, "hunter2").await;
    // Authentication was switched on under a client that had connected without.
    assert!(with_login.list(&service()).await.unwrap().is_empty());

    for config in [
        config(),
        config().with_user("svc", "wrong"),
        config().with_user("unknown", "wrong"),
        config()
            .with_user("svc", "hunter2")
            .with_prefix("/not-ours"),
    ] {
        let registry = sd_etcd::connect(config).unwrap();
        let error = registry.list(&service()).await.unwrap_err();
        let report = error.report().to_string();
        assert_eq!(error.kind(), ErrorKind::Denied, "{report}");
        assert!(
            !report.contains("wrong") && !report.contains("hunter2"),
            "{report}"
        );
        let error = registry.register(instance(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn a_candidate_needs_rights_below_its_prefix_and_no_others() {
    let server = own_server().await;
    let (url, prefix) = (server.program().url(), prefix());
    with_users(&url, &prefix, "hunter2").await;
    let log_in = |config: EtcdConfig| config.with_user("svc", "hunter2");
    let booth = Booth::with(&url, &prefix, log_in);
    let (one, two) = (booth.elector(), booth.elector());
    assert!(one.safety().await.unwrap().fair);
    let (a, b) = (ticket("a").with_term_record(), ticket("b"));
    let leader = one.join(&a).await.unwrap();
    leads(&*leader).await;
    let next = two.join(&b).await.unwrap();
    let waiting = waits(&*next).await;
    let mut feed = one.observe(&name()).await.unwrap();
    feed.next().await.unwrap();
    let leaving = async {
        leader.proclaim(b"still me").await.unwrap();
        leader.confirm().await.unwrap();
        one.leave(&a).await.unwrap();
    };
    let (told, ()) = tokio::join!(after(&*next, &waiting), leaving);
    first(told);

    let elsewhere = Booth::with(&url, "/not-ours", log_in).elector();
    let error = elsewhere.join(&a).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    elsewhere.leave(&a).await.unwrap();
    let error = elsewhere.observe(&name()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
}

/// An authority with certificates of its making, as files.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes `<name>.pem` and `<name>.key`, a certificate for `host`.
    fn issue(&self, name: &str, host: &str) -> (PathBuf, PathBuf) {
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (cert, key_path) = (
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
        );
        fs::write(&cert, certificate.pem()).unwrap();
        fs::write(&key_path, key.serialize_pem()).unwrap();
        (cert, key_path)
    }
}

/// An etcd that shows a certificate for `host`, and asks clients for one of `clients`, if given.
async fn tls_server(
    authority: &Authority,
    host: &str,
    clients: Option<&Path>,
) -> ServerProcess<Etcd> {
    let (cert, key) = authority.issue("server", host);
    let mut args = vec![
        format!("--cert-file={}", cert.display()),
        format!("--key-file={}", key.display()),
    ];
    if let Some(ca) = clients {
        args.push("--client-cert-auth".to_owned());
        args.push(format!("--trusted-ca-file={}", ca.display()));
    }
    let program = Etcd::from_env().unwrap().with_tls().with_args(args);
    ServerProcess::launch(program).await.unwrap()
}

fn tls(server: &ServerProcess<Etcd>) -> EtcdConfig {
    EtcdConfig::new([server.program().url()]).with_prefix(prefix())
}

/// Accepting connections comes before serving: asks until there is an answer.
async fn works(config: EtcdConfig) {
    let registry = sd_etcd::connect(config).unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    let guard = timeout(LONG, registry.register(instance(1))).await.unwrap();
    let _guard = guard.unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
}

async fn fails(config: EtcdConfig) -> String {
    let registry = sd_etcd::connect(config).unwrap();
    let error = registry.list(&service()).await.unwrap_err();
    error.report().to_string()
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn tls_with_an_authority_of_ones_own() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = tls_server(&authority, "127.0.0.1", None).await;
    works(tls(&server).with_ca(authority.ca())).await;

    for config in [
        // Neither another authority nor the system's vouch for it.
        tls(&server).with_ca(stranger.ca()),
        tls(&server),
        tls(&server)
            .with_ca(authority.ca())
            .with_server_name("other.example"),
    ] {
        let report = fails(config).await;
        assert!(report.contains("certificate"), "{report}");
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn tls_to_a_server_whose_certificate_has_another_name() {
    let authority = Authority::new();
    let server = tls_server(&authority, "etcd.example", None).await;
    let config = || tls(&server).with_ca(authority.ca());
    works(config().with_server_name("etcd.example")).await;
    let report = fails(config()).await;
    assert!(report.contains("certificate"), "{report}");
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test --backend etcd"]
async fn mutual_tls() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = tls_server(&authority, "127.0.0.1", Some(&authority.ca())).await;
    let config = || tls(&server).with_ca(authority.ca());
    let (cert, key) = authority.issue("client", "client");
    works(config().with_identity(cert, key)).await;

    let (cert, key) = stranger.issue("client", "client");
    for config in [config(), config().with_identity(cert, key)] {
        assert!(!fails(config).await.is_empty());
    }
}
