//! Logins, access control lists and TLS, over servers of our own.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::election::{Booth, leads, ticket};
use common::{
    LONG, close, config_at, event, eventually, instance, is_live_with, own_server, own_server_with,
    prefix, until,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use sd_core::{Error, ErrorKind, RegistrationEvent, Registry, Subscription};
use sd_testing::{Log, ServerProcess, free_port, is_stale};
use sd_zk::{Access, ZkBackend, ZkConfig};
use server_programs::{LocalServer, ZooKeeper};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use zookeeper_client as zk;

/// So that no attempt holds a test up, and a busy machine answers in time.
const PATIENCE: Duration = Duration::from_secs(10);

fn registry(config: ZkConfig) -> Registry {
    sd_zk::connect(config.with_request_timeout(PATIENCE)).unwrap()
}

/// A client beside ours that has logged in.
async fn operator(address: &str, login: &str) -> zk::Client {
    let connector = zk::Client::connector().with_auth("digest", login.as_bytes());
    let connector = connector.with_session_timeout(Duration::from_secs(30));
    connector.connect(address).await.unwrap()
}

async fn list_error(registry: &Registry) -> Error {
    registry.list("greeter").await.unwrap_err()
}

/// Why a subscription knows nothing, or no longer what is.
async fn trouble(seen: &mut Subscription) -> Error {
    let state = until(seen, "in trouble", |state| state.status().error().is_some()).await;
    state.status().error().unwrap().clone()
}

#[track_caller]
fn is_denied_and_says_what_to_do(error: &Error) {
    let report = error.report().to_string();
    assert_eq!(error.kind(), ErrorKind::Denied, "{report}");
    assert!(report.contains("access control list"), "{report}");
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_is_private_is_for_those_with_the_login_until_it_is_granted_to_others() {
    let server = own_server().await;
    let (address, prefix) = (server.program().url(), prefix());
    let config = || config_at(&address, &prefix);
    let owner = registry(
        config()
            .with_user("svc", "right")
            .with_access(Access::Private),
    );
    let guard = owner.register(instance(1)).await.unwrap();
    assert_eq!(owner.list("greeter").await.unwrap().len(), 1);

    let strangers = [config(), config().with_user("svc", "wrong")].map(registry);
    let mut following = Vec::new();
    for stranger in &strangers {
        is_denied_and_says_what_to_do(&list_error(stranger).await);
        is_denied_and_says_what_to_do(&stranger.services().await.unwrap_err());
        let refused = stranger.register(instance(2)).await.unwrap_err();
        is_denied_and_says_what_to_do(&refused);
        let removed = stranger.remove_record(guard.record_id()).await;
        is_denied_and_says_what_to_do(&removed.unwrap_err());
        let mut seen = stranger.subscribe("greeter").unwrap();
        is_denied_and_says_what_to_do(&trouble(&mut seen).await);
        assert!(!seen.state().is_known());
        following.push(seen);
    }
    let mut waiting = strangers[1].register(instance(2)).in_background().unwrap();
    event(&mut waiting, "retrying").await;

    let operator = operator(&address, "svc:right").await;
    let folder = format!("{prefix}/greeter");
    let all = zk::Acl::new(zk::Permission::ALL, zk::AuthId::anyone());
    let nodes = operator.list_children(&folder).await.unwrap();
    let records = nodes.iter().map(|node| format!("{folder}/{node}"));
    for path in records.chain([folder.clone(), prefix.clone()]) {
        operator
            .set_acl(&path, std::slice::from_ref(&all), None)
            .await
            .unwrap();
    }
    event(&mut waiting, "registered").await;
    for seen in &mut following {
        until(seen, "granted", is_live_with(2)).await;
    }
    close(operator).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_password_that_is_replaced_is_used_in_the_session_that_is_there() {
    let server = own_server().await;
    let (address, prefix) = (server.program().url(), prefix());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "first\n").unwrap();
    let config = config_at(&address, &prefix).with_password_file("svc", file.path());
    let registry = registry(config.with_access(Access::Private));
    let mut guard = registry.register(instance(1)).await.unwrap();
    event(&mut guard, "registered").await;
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let folder = format!("{prefix}/greeter");
    let record = format!("{folder}/{}", guard.record_id().id);

    // First for both passwords, then for the second one alone.
    let both = operator(&address, "svc:first").await;
    both.auth("digest", b"svc:second").await.unwrap();
    let second = operator(&address, "svc:second").await;
    let ours = zk::Acl::new(zk::Permission::ALL, zk::AuthId::authed());
    let ours = std::slice::from_ref(&ours);
    for operator in [&both, &second] {
        for path in [&record, &folder, &prefix] {
            operator.set_acl(path, ours, None).await.unwrap();
        }
    }
    let before = second.check_stat(&record).await.unwrap().unwrap();
    // The file comes late, so the old password is refused for a while.
    let events = event(&mut guard, "at_risk").await;
    let Some(RegistrationEvent::AtRisk(error)) = events.last() else {
        panic!("{events:?}");
    };
    is_denied_and_says_what_to_do(error);
    fs::write(file.path(), "second\n").unwrap();
    let events = event(&mut guard, "recovered").await;
    assert_eq!(events.len(), 1, "{events:?}");
    let after = second.check_stat(&record).await.unwrap().unwrap();
    assert_eq!((after.czxid, after.version), (before.czxid, before.version));
    guard.deregister().await.unwrap();
    until(&mut seen, "gone", is_live_with(0)).await;
    close(both).await;
    close(second).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_is_read_only_is_read_by_all_and_changed_by_those_with_the_login() {
    let server = own_server().await;
    let (address, prefix) = (server.program().url(), prefix());
    let login = |password: &str| {
        config_at(&address, &prefix)
            .with_user("svc", password)
            .with_access(Access::ReadOnly)
    };
    let owner = registry(login("right"));
    let guard = owner.register(instance(1)).await.unwrap();
    for config in [config_at(&address, &prefix), login("wrong")] {
        let stranger = registry(config);
        assert_eq!(stranger.list("greeter").await.unwrap().len(), 1);
        let refused = stranger.register(instance(2)).await.unwrap_err();
        is_denied_and_says_what_to_do(&refused);
        let removed = stranger.remove_record(guard.record_id()).await;
        is_denied_and_says_what_to_do(&removed.unwrap_err());
    }
    // Another process of the same owner's may.
    let colleague = registry(login("right"));
    colleague.register(instance(2)).await.unwrap();
    guard.set_ready(false).await.unwrap();
    guard.deregister().await.unwrap();
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_server_that_takes_no_client_without_a_login_says_so_and_takes_one_with_it() {
    let server = own_server_with(ZooKeeper::with_digest).await;
    let (address, prefix) = (server.program().url(), prefix());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "right\n").unwrap();
    let config = || config_at(&address, &prefix);
    let anonymous = registry(config());
    let refused = list_error(&anonymous).await;
    let report = refused.report().to_string();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{report}");
    assert!(
        report.contains("user") && report.contains("password"),
        "{report}"
    );

    let with_file = config().with_password_file("svc", file.path());
    let owner = registry(with_file.with_access(Access::Private));
    let guard = owner.register(instance(1)).await.unwrap();
    let mut seen = owner.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    // Each connection logs in, also that of a session which was there before.
    let mut server = server;
    server.restart().await.unwrap();
    until(&mut seen, "there again", is_live_with(1)).await;
    guard.deregister().await.unwrap();
    until(&mut seen, "gone", is_live_with(0)).await;
    let stranger = registry(config().with_user("svc", "wrong"));
    is_denied_and_says_what_to_do(&list_error(&stranger).await);
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_candidate_without_the_rights_is_refused_and_neither_takes_part_nor_disturbs() {
    let server = own_server().await;
    let address = server.program().url();
    let booth = Booth::with(&address, &prefix(), |config| {
        config
            .with_user("svc", "right")
            .with_access(Access::Private)
    });
    let (elector, a, b) = (booth.elector(), ticket("a"), ticket("b"));
    let entry = elector.join(&a).await.unwrap();
    let token = leads(&*entry).await;
    let stranger = Booth::with(&address, &booth.prefix, |config| {
        config.with_user("svc", "wrong")
    });
    let theirs = stranger.elector();
    is_denied_and_says_what_to_do(&theirs.join(&b).await.err().unwrap());
    theirs.leave(&b).await.unwrap();
    let mut feed = theirs.observe(&a.name).await;
    let denied = match &mut feed {
        Ok(feed) => feed.next().await.err().unwrap(),
        Err(_) => feed.err().unwrap(),
    };
    is_denied_and_says_what_to_do(&denied);
    entry.confirm().await.unwrap();
    assert_eq!(leads(&*entry).await, token);
    elector.leave(&a).await.unwrap();
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn no_password_and_no_key_is_in_any_log_error_or_debug_output() {
    let log = Log::of_the_process();
    let pki = Pki::new();
    let server = server_with_tls(&pki, &["127.0.0.1"], &pki.path("ca.pem")).await;
    let (cert, key) = pki.sign("client", &["client"]);
    let (password, prefix) = (format!("hunter2-{:016x}", fastrand::u64(..)), prefix());
    let url = format!(
        "zks://svc:{password}@{}?prefix={prefix}&access=private&ca={}&cert={}&key={}",
        server.program().url(),
        pki.path("ca.pem").display(),
        cert.display(),
        key.display()
    );
    let config = ZkConfig::from_url(&url).unwrap();
    let other = config.clone().with_user("svc", format!("not {password}"));
    let (cert, other_key) = pki.sign("other", &["client"]);
    let other = other.with_identity(cert, other_key);
    let mut shown = vec![format!("{config:?} {other:?}")];
    let backend = Arc::new(ZkBackend::new(config).unwrap());
    shown.push(format!("{backend:?}"));
    let owner = Registry::new(backend);
    let guard = owner.register(instance(1)).await.unwrap();
    let stranger = registry(other);
    let denied = list_error(&stranger).await;
    assert_eq!(denied.kind(), ErrorKind::Denied, "{}", denied.report());
    shown.push(format!("{denied:?} {denied} {}", denied.report()));
    shown.push(format!("{owner:?} {guard:?} {stranger:?}"));
    shown.push(format!("{:?}", owner.dump()));
    drop(server);
    let mut seen = owner.subscribe("other").unwrap();
    shown.push(format!("{:?}", trouble(&mut seen).await));

    let logged = log.text();
    // The client crate's own lines are there, too.
    assert!(logged.contains(&prefix) && logged.contains("sending request"));
    shown.push(logged);
    let shown = shown.concat();
    let key = fs::read_to_string(key).unwrap();
    let secrets = key.lines().filter(|line| !line.starts_with("-----"));
    for secret in secrets.chain([&*password]) {
        assert!(!shown.contains(secret), "{secret}");
    }
}

/// An authority, and what it has signed, as files.
struct Pki {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = format!("test authority {:016x}", fastrand::u64(..));
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Certificate and key for these names.
    fn sign(&self, file: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).unwrap();
        // A client is known by that.
        params.distinguished_name.push(DnType::CommonName, file);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (cert_path, key_path) = (
            self.path(&format!("{file}.pem")),
            self.path(&format!("{file}-key.pem")),
        );
        fs::write(&cert_path, certificate.pem()).unwrap();
        fs::write(&key_path, key.serialize_pem()).unwrap();
        (cert_path, key_path)
    }

    /// Key and certificate for these names in one file, as ZooKeeper reads them.
    fn sign_for_server(&self, names: &[&str]) -> PathBuf {
        let (cert, key) = self.sign("server", names);
        let both = [key, cert].map(|file| fs::read_to_string(file).unwrap());
        let path = self.path(&format!("server-{:016x}.pem", fastrand::u64(..)));
        fs::write(&path, both.concat()).unwrap();
        path
    }
}

/// A server with a certificate for these names, which asks clients for one that an authority in the file `clients` has signed.
async fn server_with_tls(pki: &Pki, names: &[&str], clients: &Path) -> ServerProcess<ZooKeeper> {
    let both = pki.sign_for_server(names);
    own_server_with(|program| program.with_tls(&both, clients, free_port).unwrap()).await
}

/// The same, for all clients.
async fn server_with_tls_for_all(pki: &Pki, names: &[&str]) -> ServerProcess<ZooKeeper> {
    let (both, ca) = (pki.sign_for_server(names), pki.path("ca.pem"));
    own_server_with(|program| {
        let program = program.with_tls(&both, &ca, free_port).unwrap();
        // The last line counts.
        program.with_config("ssl.clientAuth=none")
    })
    .await
}

fn tls_at(server: &ServerProcess<ZooKeeper>, prefix: &str, ca: &Path) -> ZkConfig {
    config_at(&server.program().url(), prefix).with_ca(ca)
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn tls_trusts_the_given_authority_and_no_other() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = server_with_tls_for_all(&pki, &["127.0.0.1"]).await;
    let (prefix, ca) = (prefix(), pki.path("ca.pem"));
    let trusting = registry(tls_at(&server, &prefix, &ca));
    let _guard = trusting.register(instance(1)).await.unwrap();
    let mut seen = trusting.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    let mistrusting = registry(tls_at(&server, &prefix, &other.path("ca.pem")));
    let refused = list_error(&mistrusting).await;
    let report = refused.report().to_string();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{report}");
    assert!(report.contains("set ca to the PEM file"), "{report}");
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_failure_of_tls_says_what_to_look_at() {
    let (pki, other) = (Pki::new(), Pki::new());
    let ca = pki.path("ca.pem");
    let elsewhere = server_with_tls_for_all(&pki, &["zookeeper.example"]).await;
    let secure = server_with_tls(&pki, &["127.0.0.1"], &ca).await;
    let prefix = prefix();
    let plain = secure.program().operators_address().to_string();
    let (cert, key) = other.sign("client", &["client"]);
    for (config, why) in [
        (
            tls_at(&elsewhere, &prefix, &ca),
            "certificate is for another name",
        ),
        (
            config_at(&plain, &prefix).with_ca(&ca),
            "does not speak TLS",
        ),
        (tls_at(&secure, &prefix, &ca), "set cert and key"),
        (
            tls_at(&secure, &prefix, &ca).with_identity(&cert, &key),
            "whether it trusts the authority of our cert",
        ),
        (config_at(&secure.program().url(), &prefix), "write zks://"),
    ] {
        let refused = list_error(&registry(config)).await;
        let report = refused.report().to_string();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{report}");
        assert!(report.contains(why), "{why}: {report}");
    }
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_server_that_asks_for_a_certificate_is_shown_ours_also_a_replaced_one() {
    let (pki, other) = (Pki::new(), Pki::new());
    let clients = pki.path("clients.pem");
    fs::copy(pki.path("ca.pem"), &clients).unwrap();
    let mut server = server_with_tls(&pki, &["127.0.0.1"], &clients).await;
    let prefix = prefix();
    // Not one that the server knows, at first.
    let (cert, key) = other.sign("client", &["client"]);
    let config = tls_at(&server, &prefix, &pki.path("ca.pem")).with_identity(&cert, &key);
    let registry = registry(config.with_session_timeout(Duration::from_secs(40)));
    list_error(&registry).await;
    let (renewed, renewed_key) = pki.sign("renewed", &["client"]);
    fs::copy(&renewed, &cert).unwrap();
    fs::copy(&renewed_key, &key).unwrap();
    let asked = || async { registry.list("greeter").await.is_ok() };
    eventually("let in", LONG, asked).await;
    let mut guard = registry.register(instance(1)).await.unwrap();
    event(&mut guard, "registered").await;
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    // The authority of clients is another one from now on, so that a connection takes the certificate as it is now.
    let (renewed, renewed_key) = other.sign("renewed", &["client"]);
    fs::copy(&renewed, &cert).unwrap();
    fs::copy(&renewed_key, &key).unwrap();
    fs::copy(other.path("ca.pem"), &clients).unwrap();
    server.kill().unwrap();
    until(&mut seen, "stale", is_stale).await;
    server.restart().await.unwrap();
    until(&mut seen, "live again", is_live_with(1)).await;
    // In the same session: the record was there all the time.
    while let Ok(Some(told)) = timeout(Duration::ZERO, guard.next_event()).await {
        assert!(!matches!(told.as_str(), "lost" | "registered"), "{told:?}");
    }
    guard.deregister().await.unwrap();
}

#[test]
fn a_certificate_file_that_hangs_or_is_missing_is_told_at_once() {
    let pki = Pki::new();
    let (cert, key) = pki.sign("client", &["client"]);
    let (pipe, missing) = (pki.path("pipe"), pki.path("missing"));
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let ca = pki.path("ca.pem");
    let tls = || ZkConfig::new(["127.0.0.1:1"]).with_ca(&ca);
    for (wrong, what) in [(&pipe, "it is a pipe"), (&missing, "No such file")] {
        for (config, at) in [
            (tls().with_ca(wrong), "ca: cannot read "),
            (tls().with_identity(wrong, &key), "cert: cannot read "),
            (tls().with_identity(&cert, wrong), "key: cannot read "),
        ] {
            let since = Instant::now();
            let refused = sd_zk::connect(config).unwrap_err();
            let report = refused.report().to_string();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{report}");
            assert!(report.contains(at) && report.contains(what), "{report}");
            assert!(since.elapsed() < Duration::from_secs(4));
        }
    }
    // A password may come through a pipe, which is waited for as long as for a request.
    let limit = Duration::from_millis(200);
    let config = ZkConfig::new(["127.0.0.1:1"]).with_password_file("u", &pipe);
    let hangs = sd_zk::connect(config.with_request_timeout(limit)).unwrap_err();
    let report = hangs.report().to_string();
    assert!(report.contains("look for one that hangs"), "{report}");
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn files_that_go_bad_harm_no_session_that_is_there_and_are_told_when_the_next_is_made() {
    let pki = Pki::new();
    let ca = pki.path("ca.pem");
    let mut server = server_with_tls(&pki, &["127.0.0.1"], &ca).await;
    let (cert, key) = pki.sign("client", &["client"]);
    let good = fs::read(&cert).unwrap();
    let prefix = prefix();
    let config = tls_at(&server, &prefix, &ca).with_identity(&cert, &key);
    let (used, unused) = (registry(config.clone()), registry(config));
    let _guard = used.register(instance(1)).await.unwrap();
    let mut seen = used.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    fs::write(&cert, "garbage").unwrap();
    let refused = list_error(&unused).await;
    let report = refused.report().to_string();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{report}");
    assert!(
        report.contains("cert: ") && report.contains("holds no certificate"),
        "{report}"
    );
    fs::remove_file(&cert).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&cert)
            .status()
            .unwrap()
            .success()
    );
    let since = Instant::now();
    let refused = list_error(&unused).await;
    let report = refused.report().to_string();
    assert!(report.contains("it is a pipe"), "{report}");
    assert!(since.elapsed() < PATIENCE / 2);
    // A connection that was lost comes back with what could be read last.
    server.kill().unwrap();
    until(&mut seen, "stale", is_stale).await;
    server.restart().await.unwrap();
    until(&mut seen, "live again", is_live_with(1)).await;
    fs::remove_file(&cert).unwrap();
    fs::write(&cert, good).unwrap();
    let asked = || async { unused.list("greeter").await.is_ok() };
    eventually("let in", LONG, asked).await;
}
