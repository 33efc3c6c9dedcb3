//! The client of the agent and `sdctl` over TLS, at the program.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rcgen::CertificateParams;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sd_sidecar::agent::{
    Agent, AgentConfig, ApiClient, App, Client, ClientTls, EventKind, HttpClient, Service,
    ServiceNode, ServiceOptions, Status,
};
use sd_testing::LONG;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::common::Certificates;
use crate::common::program::{AgentProcess, private_file};

const TOKEN: &str = "sesame-sesame-sesame";

/// An agent that listens over TLS as well, and wants a token of its callers.
struct Served {
    certificates: Certificates,
    agent: AgentProcess,
    port: u16,
}

/// Serves with the certificate `agent`, for `localhost`.
async fn serve(certificates: Certificates, more: &[&str]) -> Served {
    let path = |name: &str| certificates.path(name);
    private_file(
        path("tokens.toml").as_ref(),
        &format!("[[token]]\nname = \"a\"\ntoken = \"{TOKEN}\"\n"),
    );
    let (cert, key, tokens) = (path("agent.pem"), path("agent.key"), path("tokens.toml"));
    let mut arguments = vec![
        "--listen=tls:127.0.0.1:0",
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--tokens",
        &tokens,
    ];
    arguments.extend(more);
    let agent = AgentProcess::start(&arguments).await;
    let line = agent.logged("address=tls:").await;
    let (_, port) = line.rsplit_once(':').unwrap();
    let port = port.parse().unwrap();
    Served {
        certificates,
        agent,
        port,
    }
}

impl Served {
    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// What trusts its authority.
    fn trusting(&self) -> ClientTls {
        ClientTls::new().with_ca(self.certificates.path("ca.pem"))
    }

    /// Why a service cannot be registered.
    async fn refusal(&self, url: &str, tls: ClientTls) -> String {
        let client = client(url, tls).register(&node()).await;
        client.unwrap_err().to_string()
    }
}

fn client(url: &str, tls: ClientTls) -> ApiClient {
    let http = HttpClient::new(url, LONG).unwrap().with_tls(tls).unwrap();
    ApiClient::new(http.with_token(TOKEN).unwrap())
}

fn node() -> ServiceNode {
    let options = ServiceOptions {
        app: App {
            id: "a-1".into(),
            instance_id: "run-1".into(),
            env: "prod".into(),
            name: "auth-app".into(),
            version: "v1.2.0".into(),
        },
        service: Service {
            name: "auth".into(),
            ..Service::default()
        },
        protocol: "grpc".into(),
        server_port: 9090,
        ..ServiceOptions::default()
    };
    ServiceNode::new(options, ["/acme.auth.v1.AuthService/Login".to_owned()])
}

fn issued() -> Certificates {
    let certificates = Certificates::new();
    certificates.issue("agent");
    certificates
}

async fn status(agent: &Agent, wanted: impl FnMut(&Status) -> bool) -> Status {
    let mut changes = agent.status_changes();
    let status = timeout(LONG, changes.wait_for(wanted)).await;
    status
        .unwrap_or_else(|_| panic!("{:?}", agent.status()))
        .unwrap()
        .clone()
}

#[tokio::test]
async fn a_process_is_registered_and_follows_its_agent_over_tls_once_the_files_are_right() {
    let served = serve(issued(), &[]).await;
    // An operator has not put the right one there yet.
    let ca = served.certificates.path("trusted.pem");
    fs::copy(Certificates::new().path("ca.pem"), &ca).unwrap();
    let config = AgentConfig::new(&served.url())
        .with_tls(ClientTls::new().with_ca(&ca))
        .with_token(TOKEN)
        .with_request_timeout(LONG)
        .with_reconnect_interval(Duration::from_millis(20));
    let agent = Agent::new(node(), config).unwrap();
    let mut events = agent.events();
    agent.start();
    let refused = status(&agent, |status| status.disconnect_count > 0).await;
    assert!(
        refused.last_error.contains("set ca to the PEM file"),
        "{refused:?}"
    );
    fs::copy(served.certificates.path("ca.pem"), &ca).unwrap();
    status(&agent, |status| status.registered).await;
    let next = async {
        loop {
            let event = events.next().await.unwrap();
            if event.kind == EventKind::Connected {
                return;
            }
        }
    };
    timeout(LONG, next).await.unwrap();
    agent.shutdown().await.unwrap();
    served.agent.stop().await;
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_an_agent_that_asks_for_one() {
    let certificates = issued();
    certificates.issue("client");
    let other = Certificates::new();
    other.issue("client");
    let ca = certificates.path("ca.pem");
    let served = serve(certificates, &["--tls-client-ca", &ca]).await;
    let path = |name: &str| served.certificates.path(name);
    let identity = |of: &Certificates| {
        let tls = served.trusting();
        tls.with_identity(of.path("client.pem"), of.path("client.key"))
    };
    let why = served.refusal(&served.url(), served.trusting()).await;
    assert!(
        why.contains("the agent asks for a client certificate, and none is set: set cert and key"),
        "{why}"
    );
    let why = served.refusal(&served.url(), identity(&other)).await;
    assert!(why.contains(&served.url()), "{why}");
    let shown = client(&served.url(), identity(&served.certificates));
    shown.register(&node()).await.unwrap();
    shown.deregister(&node()).await.unwrap();

    let swapped = served
        .trusting()
        .with_identity(path("client.key"), path("client.pem"));
    let http = HttpClient::new(&served.url(), LONG).unwrap();
    let why = http.with_tls(swapped).unwrap_err().to_string();
    assert!(
        why.contains("cert: ") && why.contains("it holds a private key"),
        "{why}"
    );
    served.agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_does_not_prove_who_it_is_is_asked_nothing_and_the_reason_is_told() {
    let served = serve(issued(), &[]).await;
    let other = Certificates::new();
    let stranger = ClientTls::new().with_ca(other.path("ca.pem"));
    let by_address = format!("https://127.0.0.1:{}", served.port);
    for (url, tls, part) in [
        (&served.url(), stranger, "no trusted authority signed"),
        (
            &served.url(),
            ClientTls::new(),
            "no trusted authority signed",
        ),
        (&by_address, served.trusting(), "is for another name"),
        (
            &served.url(),
            served.trusting().with_server_name("other.example"),
            "is for another name",
        ),
    ] {
        let why = served.refusal(url, tls).await;
        assert!(why.contains(part) && why.contains(url.as_str()), "{why}");
    }
    let named = served.trusting().with_server_name("localhost");
    client(&by_address, named).register(&node()).await.unwrap();
    served.agent.stop().await;

    let certificates = Certificates::new();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    certificates.issue_as("agent", &params);
    let served = serve(certificates, &[]).await;
    let why = served.refusal(&served.url(), served.trusting()).await;
    assert!(why.contains("has expired"), "{why}");
    served.agent.stop().await;
}

/// What a server learns whose certificate is refused: nothing in TLS, and nothing beside it.
#[tokio::test]
async fn a_token_is_never_sent_over_a_connection_whose_certificate_was_refused() {
    let (trusted, other) = (Certificates::new(), issued());
    let tls = ClientTls::new().with_ca(trusted.path("ca.pem"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let chain = vec![CertificateDer::from_pem_file(other.path("agent.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(other.path("agent.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let client = client(&url, tls);
    let node = node();
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await.map(drop)
    };
    let (accepted, asked) = timeout(LONG, async {
        tokio::join!(accepting, client.register(&node))
    })
    .await
    .unwrap();
    assert!(
        asked
            .unwrap_err()
            .to_string()
            .contains("no trusted authority")
    );
    assert!(accepted.is_err(), "the handshake has ended well");

    // One that speaks no TLS.
    let reading = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut begin = vec![0; 4096];
        let read = stream.read(&mut begin).await.unwrap();
        begin.truncate(read);
        drop(stream);
        begin
    };
    let (read, asked) = timeout(LONG, async {
        tokio::join!(reading, client.register(&node))
    })
    .await
    .unwrap();
    assert!(asked.is_err());
    // The begin of a handshake.
    assert_eq!(read.first(), Some(&22), "{read:?}");
    let text = String::from_utf8_lossy(&read);
    assert!(!text.contains("POST") && !text.contains(TOKEN), "{text}");
}

#[test]
fn settings_of_tls_beside_an_address_that_asks_for_none_are_refused() {
    let config =
        AgentConfig::new("http://127.0.0.1:1").with_tls(ClientTls::new().with_server_name("a"));
    let why = Agent::new(node(), config).err().unwrap().to_string();
    assert!(
        why.contains("http://127.0.0.1:1") && why.contains("write https://"),
        "{why}"
    );
    let json = r#"{"base_url": "https://h:1", "tls": {"ca": "/does/not/exist"}}"#;
    let config: AgentConfig = serde_json::from_str(json).unwrap();
    let why = Agent::new(node(), config).err().unwrap().to_string();
    assert!(why.contains("ca: cannot read /does/not/exist"), "{why}");
}

#[cfg(feature = "cli")]
mod sdctl {
    use std::process::Output;

    use super::*;

    async fn sdctl(arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sdctl"));
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("SDCTL_")) {
                command.env_remove(name);
            }
        }
        command.env("SDCTL_AGENT_TOKEN", TOKEN).arg("agent");
        let output = command.args(arguments).output();
        timeout(LONG, output).await.expect("sdctl ends").unwrap()
    }

    #[tokio::test]
    async fn it_asks_over_tls_with_what_stands_before_or_after_the_command() {
        let certificates = issued();
        certificates.issue("client");
        let ca = certificates.path("ca.pem");
        let served = serve(certificates, &["--tls-client-ca", &ca]).await;
        let path = |name: &str| served.certificates.path(name);
        let url = served.url();
        let (cert, key) = (path("client.pem"), path("client.key"));
        let trusting = ["--agent", &url, "--ca", &ca];
        let shown = ["--cert", &cert, "--key", &key];
        let (before, after) = (["--timeout", "30s"], ["status"]);
        for arguments in [
            [&trusting[..], &shown, &before, &after].concat(),
            [&after[..], &trusting, &shown, &before].concat(),
            [&before[..], &shown, &after, &trusting].concat(),
        ] {
            let output = sdctl(&arguments).await;
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("is running"), "{text}");
        }
        let others = Certificates::new();
        let other = others.path("ca.pem");
        let by_address = format!("https://127.0.0.1:{}", served.port);
        let plain = format!("http://localhost:{}", served.port);
        for (arguments, code, part) in [
            (
                vec!["--agent", &url, "--ca", &other],
                6,
                "no trusted authority",
            ),
            (vec!["--agent", &by_address, "--ca", &ca], 6, "another name"),
            (
                vec!["--agent", &url, "--ca", &ca],
                3,
                "asks for a client certificate",
            ),
            (
                vec!["--agent", &url, "--ca", "/none"],
                2,
                "ca: cannot read /none",
            ),
            (vec!["--agent", &url, "--cert", &cert], 2, "cert and key"),
            (vec!["--agent", &plain, "--ca", &ca], 2, "https://host:port"),
        ] {
            let arguments = [arguments, vec!["status"]].concat();
            let output = sdctl(&arguments).await;
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
            assert!(told.contains(part) && !told.contains(TOKEN), "{told}");
        }
        let named = [
            "--server-name",
            "localhost",
            "--agent",
            &by_address,
            "--ca",
            &ca,
        ];
        let output = sdctl(&[&named[..], &shown, &after].concat()).await;
        assert!(output.status.success(), "{output:?}");
        served.agent.stop().await;
    }
}
