//! Tokens and TLS, over Consuls of our own.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::election::{Booth, leads, prefix, ticket};
use common::{
    LONG, Operator, TTL, config_at, event, instance, is_live_with, is_stale, own_server_with,
    service, until,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use sd_consul::ConsulConfig;
use sd_core::{ErrorKind, RegistrationEvent, ServiceName, State};
use sd_testing::{HttpProxy, HttpRule, HttpState, Log, ServerProcess};
use server_programs::{Consul, LocalServer};
use tempfile::{NamedTempFile, TempDir};

const MANAGEMENT: &str = "11111111-2222-4333-8444-555555555555";

/// A Consul that denies what no token allows, and an operator who may do everything.
async fn denying() -> (ServerProcess<Consul>, Operator) {
    let server = own_server_with(|program| program.with_acl(MANAGEMENT)).await;
    let operator = Operator::with_token(&server.program().url(), MANAGEMENT);
    (server, operator)
}

/// A new token with these rules, and the id by which it can be deleted.
async fn token(operator: &Operator, rules: &str) -> (String, String) {
    let name = format!("p{:016x}", fastrand::u64(..));
    let policy = serde_json::json!({"Name": name, "Rules": rules});
    operator.put("/v1/acl/policy", &policy.to_string()).await;
    let token = serde_json::json!({"Policies": [{"Name": name}]});
    let made = operator.put("/v1/acl/token", &token.to_string()).await;
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    (text("SecretID"), text("AccessorID"))
}

async fn delete_token(operator: &Operator, accessor: &str) {
    let target = format!("/v1/acl/token/{accessor}");
    let (status, body) = operator.ask(reqwest::Method::DELETE, &target, "").await;
    assert_eq!(status, 200, "{body}");
}

fn rules(service: &ServiceName) -> String {
    format!(r#"service "{service}" {{ policy = "write" }} node_prefix "" {{ policy = "read" }}"#)
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_token_that_is_replaced_under_a_running_process_needs_no_restart() {
    let (server, operator) = denying().await;
    let service = service();
    let (first, accessor) = token(&operator, &rules(&service)).await;
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("{first}\n")).unwrap();
    let config = config_at(&server.program().url()).with_token_file(file.path());
    let registry = sd_consul::connect(config).unwrap();
    let one = instance(&service, 1);
    let mut guard = registry.register(one).ttl(TTL * 5).await.unwrap();
    event(&mut guard, "registered").await;
    let mut seen = registry.subscribe(&service).unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    // From here on Consul follows the service for us: a token that is deleted while that begins is another story.
    let changed = guard.update(|instance| instance.with_weight(2));
    changed.await.unwrap();
    let is_changed = |state: &State| state.snapshot().instances()[0].weight() == 2;
    until(&mut seen, "changed", is_changed).await;

    // The file comes late, so the old token is refused for a while.
    delete_token(&operator, &accessor).await;
    let events = event(&mut guard, "at_risk").await;
    let Some(RegistrationEvent::AtRisk(error)) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    let state = until(&mut seen, "denied", is_stale).await;
    assert_eq!(state.snapshot().len(), 1);
    assert_eq!(state.status().error().unwrap().kind(), ErrorKind::Denied);
    let (second, _) = token(&operator, &rules(&service)).await;
    fs::write(file.path(), format!("{second}\n")).unwrap();
    let events = event(&mut guard, "recovered").await;
    assert_eq!(events.len(), 1, "{events:?}");
    until(&mut seen, "live", is_live_with(1)).await;
    // What the agent finds out from now on, it brings into the catalog with the new token.
    operator.fail(guard.record_id()).await;
    event(&mut guard, "registered").await;
    until(&mut seen, "live again", is_live_with(1)).await;
    guard.deregister().await.unwrap();
    until(&mut seen, "gone", is_live_with(0)).await;
}

/// Consul answers 200 and an empty list to those who may not read.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_list_that_rights_emptied_is_an_error_and_not_an_empty_set() {
    let (server, operator) = denying().await;
    let service = service();
    operator
        .register(&service, "a", r#","Port":1,"Address":"10.0.0.2""#)
        .await;
    let config = || config_at(&server.program().url());
    let unrelated = token(&operator, r#"service "other" { policy = "write" }"#)
        .await
        .0;
    let blind = format!(r#"service "{service}" {{ policy = "read" }}"#);
    let without_nodes = token(&operator, &blind).await.0;
    for config in [
        config(),
        config().with_token(unrelated),
        config().with_token(without_nodes),
        config().with_token("99999999-0000-4000-8000-000000000000"),
    ] {
        let registry = sd_consul::connect(config).unwrap();
        let error = registry.list(&service).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
        let mut seen = registry.subscribe(&service).unwrap();
        let state = until(&mut seen, "explained", |state| {
            state.status().error().is_some()
        })
        .await;
        assert!(!state.is_known());
        let error = registry.register(instance(&service, 2)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    }
    let allowed = sd_consul::connect(config().with_token(MANAGEMENT)).unwrap();
    assert_eq!(allowed.list(&service).await.unwrap().len(), 1);
    let unused = common::service();
    assert!(allowed.list(&unused).await.unwrap().is_empty());
}

/// The agent takes it, and the catalog cannot be looked at.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_registration_needs_no_right_to_read_nodes() {
    let (server, operator) = denying().await;
    let service = service();
    let only_write = format!(r#"service "{service}" {{ policy = "write" }}"#);
    let (secret, _) = token(&operator, &only_write).await;
    let config = config_at(&server.program().url()).with_token(secret);
    let registry = sd_consul::connect(config).unwrap();
    let guard = registry.register(instance(&service, 1)).await.unwrap();
    operator.until(&service, |entries| entries.len() == 1).await;
    guard.deregister().await.unwrap();
    operator.until(&service, <[_]>::is_empty).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_candidate_needs_its_keys_and_sessions_and_nothing_else() {
    let (server, operator) = denying().await;
    let prefix = prefix();
    let rules = format!(
        r#"key_prefix "{prefix}/" {{ policy = "write" }} session_prefix "" {{ policy = "write" }}"#
    );
    let (secret, accessor) = token(&operator, &rules).await;
    let url = server.program().url();
    let booth = Booth::with(&url, &prefix, |config| config.with_token(secret));
    let elector = booth.elector();
    let ticket = ticket("a").with_term_record();
    let entry = elector.join(&ticket).await.unwrap();
    leads(&*entry).await;
    entry.proclaim(b"still me").await.unwrap();
    entry.confirm().await.unwrap();
    elector.leave(&ticket).await.unwrap();

    let entry = elector.join(&ticket).await.unwrap();
    leads(&*entry).await;
    delete_token(&operator, &accessor).await;
    // It is unknown whether it still is there.
    assert_eq!(entry.confirm().await.unwrap_err().kind(), ErrorKind::Denied);
    let name = &ticket.name;
    for (rules, what) in [
        (
            format!(r#"key_prefix "{prefix}/" {{ policy = "write" }}"#),
            "sessions",
        ),
        (
            format!(
                r#"key_prefix "{prefix}/{name}/" {{ policy = "write" }} session_prefix "" {{ policy = "write" }}"#
            ),
            "the history of tokens",
        ),
        (
            r#"session_prefix "" { policy = "write" }"#.to_owned(),
            "keys",
        ),
    ] {
        let (secret, _) = token(&operator, &rules).await;
        let booth = Booth::with(&url, &prefix, |config| config.with_token(secret));
        let ticket = common::election::ticket("b");
        let refused = booth.elector().join(&ticket).await.unwrap_err();
        assert_eq!(
            refused.kind(),
            ErrorKind::Denied,
            "without {what}: {}",
            refused.report()
        );
    }
}

/// Consul refuses a transaction with another status than all else.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_election_goes_on_with_a_new_token_though_only_transactions_are_denied() {
    let (server, operator) = denying().await;
    let proxy = HttpProxy::start(server.program().address()).await.unwrap();
    let prefix = prefix();
    let rules = |keys: &str| {
        format!(
            r#"key_prefix "{prefix}/" {{ policy = "{keys}" }} session_prefix "" {{ policy = "write" }}"#
        )
    };
    let (first, _) = token(&operator, &rules("read")).await;
    let (second, _) = token(&operator, &rules("write")).await;
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), first).unwrap();
    let booth = Booth::with(&proxy.url(), &prefix, |config| {
        config.with_token_file(file.path())
    });
    let (elector, ticket) = (booth.elector(), ticket("a"));
    let denied = elector.join(&ticket).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "{}", denied.report());
    fs::write(file.path(), second).unwrap();
    let entry = elector.join(&ticket).await.unwrap();
    leads(&*entry).await;
    elector.leave(&ticket).await.unwrap();
    let requests = proxy.requests();
    let is_ok = |state| [200, 404, 409].map(HttpState::Answered).contains(&state);
    assert!(
        requests.iter().all(|request| is_ok(request.state)),
        "{requests:?}"
    );
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn no_token_is_in_any_log_error_or_debug_output() {
    let log = Log::of_the_process();
    let (server, operator) = denying().await;
    let service = service();
    let (secret, accessor) = token(&operator, &rules(&service)).await;
    let url = server.program().url().replace("http://", "consul://");
    let url = url.replace("consul://", &format!("consul://{secret}@"));
    let config = ConsulConfig::from_url(&url).unwrap();
    let mut shown = vec![format!("{config:?}")];
    let registry = sd_consul::connect(config).unwrap();
    let guard = registry.register(instance(&service, 1)).await.unwrap();
    delete_token(&operator, &accessor).await;
    let error = registry.list(&service).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    shown.push(format!(
        "{error:?} {registry:?} {guard:?} {:?}",
        registry.dump()
    ));
    let logged = log.text();
    assert!(logged.contains(service.as_str()), "{logged}");
    shown.push(logged);
    assert!(!shown.concat().contains(&secret), "{shown:?}");
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
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
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
}

async fn server_with_tls(pki: &Pki, names: &[&str], all_clients: bool) -> ServerProcess<Consul> {
    let (cert, key) = pki.sign("server", names);
    own_server_with(|program: Consul| {
        let program = program.with_tls(&pki.path("ca.pem"), &cert, &key);
        if all_clients {
            program.with_config("tls { https { verify_incoming = false } }")
        } else {
            program
        }
    })
    .await
}

fn at(url: &str, ca: &Path) -> ConsulConfig {
    config_at(url).with_ca(ca)
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn tls_trusts_the_given_authority_and_no_other() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = server_with_tls(&pki, &["127.0.0.1"], true).await;
    let url = server.program().url();
    assert!(url.starts_with("https://"));
    let service = service();
    let registry = sd_consul::connect(at(&url, &pki.path("ca.pem"))).unwrap();
    let _guard = registry.register(instance(&service, 1)).await.unwrap();
    let mut seen = registry.subscribe(&service).unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    for config in [at(&url, &other.path("ca.pem")), config_at(&url)] {
        let stranger = sd_consul::connect(config).unwrap();
        let error = stranger.list(&service).await.unwrap_err();
        let report = error.report().to_string();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(report.contains("certificate"), "{report}");
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_failure_of_tls_says_what_to_look_at() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = server_with_tls(&pki, &["server.dc1.consul"], false).await;
    let secure = server.program().url();
    let plain = own_server_with(|program| program).await;
    let plain = plain.program().url().replace("http://", "https://");
    let untold = secure.replace("https://", "http://");
    let ca = pki.path("ca.pem");
    for (config, hint) in [
        (config_at(&untold), "write https://"),
        (at(&plain, &ca), "does not speak TLS at this port"),
        (at(&secure, &other.path("ca.pem")), "set ca"),
        (at(&secure, &ca), "set server_name"),
        (
            at(&secure, &ca).with_server_name("server.dc1.consul"),
            "set cert and key",
        ),
    ] {
        let registry = sd_consul::connect(config).unwrap();
        let error = registry.list(service()).await.unwrap_err();
        let report = error.report().to_string();
        assert!(report.contains(hint), "{hint}: {report}");
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_token_that_comes_back_in_an_answer_that_cannot_be_read_is_not_repeated() {
    let server = own_server_with(|program| program).await;
    let proxy = HttpProxy::start(server.program().address()).await.unwrap();
    let service = service();
    let listing = format!("/v1/health/service/{service}");
    for body in [
        MANAGEMENT.to_owned(),
        format!(r#""{MANAGEMENT}""#),
        format!(r#"{{"{MANAGEMENT}": 1}}"#),
        format!(r#"[{{"Node": "{MANAGEMENT}"}}]"#),
        format!(
            r#"[{{"Node": {{"Node": "n"}}, "Service": {{"ID": "i", "Port": "{MANAGEMENT}"}}}}]"#
        ),
    ] {
        proxy.set_rules([HttpRule::new("GET", &listing).answer(200, body)]);
        let config = config_at(&proxy.url()).with_token(MANAGEMENT);
        let registry = sd_consul::connect(config).unwrap();
        let error = registry.list(&service).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let shown = format!("{} {error:?} {error}", error.report());
        assert!(!shown.contains(MANAGEMENT), "{shown}");
    }
}

/// Consul's own certificates name `server.<datacenter>.consul`, whatever the address.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_certificate_for_another_name_than_the_host_is_taken_if_that_name_is_given() {
    let pki = Pki::new();
    let server = server_with_tls(&pki, &["server.dc1.consul"], true).await;
    let config = || at(&server.program().url(), &pki.path("ca.pem"));
    let service = service();
    let refused = sd_consul::connect(config()).unwrap();
    refused.list(&service).await.unwrap_err();
    let named = sd_consul::connect(config().with_server_name("server.dc1.consul")).unwrap();
    assert!(named.list(&service).await.unwrap().is_empty());
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn agents_that_ask_for_a_certificate_are_shown_ours_also_a_renewed_one() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = server_with_tls(&pki, &["127.0.0.1"], false).await;
    let (url, service) = (server.program().url(), service());
    let anonymous = sd_consul::connect(at(&url, &pki.path("ca.pem"))).unwrap();
    anonymous.list(&service).await.unwrap_err();

    // Not one that the server knows, at first.
    let (cert, key) = other.sign("client", &["client"]);
    let config = at(&url, &pki.path("ca.pem")).with_identity(&cert, &key);
    let registry = sd_consul::connect(config).unwrap();
    registry.list(&service).await.unwrap_err();
    let (renewed, renewed_key) = pki.sign("client", &["client"]);
    fs::copy(renewed, cert).unwrap();
    fs::copy(renewed_key, key).unwrap();
    let found = tokio::time::timeout(LONG, async {
        loop {
            match registry.list(&service).await {
                Ok(found) => return found,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    assert!(found.await.unwrap().is_empty());
}
