//! Who may do what, against the program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use http::Method;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::common::Certificates;
use crate::common::program::{AgentProcess, private_file};

const TOKENS: &str = r#"
[[token]]
name = "team-a"
token = "team-a-team-a-team-a"
services = ["greeter", "a-*"]

[[token]]
name = "team-b"
token = "team-b-team-b-team-b"

[[token]]
name = "ops"
token = "ops-ops-ops-ops-ops"
rights = ["read", "register", "admin"]
"#;

struct WithTokens {
    agent: AgentProcess,
    folder: tempfile::TempDir,
}

async fn with_tokens(arguments: &[&str]) -> WithTokens {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    private_file(&file, TOKENS);
    let mut all = vec!["--tokens", file.to_str().unwrap()];
    all.extend(arguments);
    WithTokens {
        agent: AgentProcess::start(&all).await,
        folder,
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn declare(service: &str) -> serde_json::Value {
    json!({"service": service, "id": "i-1", "address": "127.0.0.1:50051"})
}

#[tokio::test]
async fn with_tokens_each_change_needs_one_and_no_caller_changes_what_is_anothers() {
    let with = with_tokens(&[]).await;
    let anyone = with.agent.client();
    let [a, b, ops] = [
        "team-a-team-a-team-a",
        "team-b-team-b-team-b",
        "ops-ops-ops-ops-ops",
    ]
    .map(|token| anyone.with("authorization", bearer(token)));
    let refused = anyone.post("/v1/registrations", &declare("greeter")).await;
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    assert_eq!(refused.expect(401)["code"], "token_needed");
    for path in ["/register", "/drain", "/deregister"] {
        anyone.post(path, &json!({})).await.expect(401);
    }
    let guessed = anyone.with("authorization", bearer("team-a-team-a-team-b"));
    assert_eq!(
        guessed.get("/v1/services").await.expect(401)["code"],
        "token_unknown"
    );

    a.post("/v1/registrations", &declare("greeter"))
        .await
        .expect(200);
    let other = a
        .post("/v1/registrations", &declare("other"))
        .await
        .expect(403);
    assert_eq!(other["code"], "right_missing");
    // What others on this host may read needs no token.
    let listed = anyone
        .get("/v1/registrations/greeter/i-1")
        .await
        .expect(200);
    assert_eq!(listed["owner"], "team-a");

    let record = "/v1/registrations/greeter/i-1";
    assert_eq!(b.delete(record).await.expect(403)["code"], "not_yours");
    b.post(&format!("{record}/drain"), &json!({}))
        .await
        .expect(403);
    b.put(&format!("{record}/ready"), &json!({"ready": false}))
        .await
        .expect(403);
    b.post("/v1/registrations", &declare("greeter"))
        .await
        .expect(403);
    let still = anyone.get(record).await.expect(200);
    assert_eq!(
        (&still["owner"], &still["stage"]),
        (&json!("team-a"), &json!("Serving"))
    );
    assert_eq!(ops.delete(record).await.status, 200);

    assert_eq!(
        b.post("/v1/agent/stop", &json!({})).await.expect(403)["code"],
        "right_missing"
    );
    anyone.post("/v1/agent/stop", &json!({})).await.expect(401);
    // The values of a list are not taken for fields.
    let list = ops.post("/v1/agent/stop", &json!([null])).await;
    assert_eq!(list.expect(400)["code"], "invalid_request");
    let keep = ops.post("/v1/agent/stop", &json!({"keep": true})).await;
    assert_eq!(keep.expect(409)["code"], "no_state");
    ops.post("/v1/agent/stop", &json!({})).await.expect(202);
    let (status, log) = with.agent.end().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(
        log.iter()
            .all(|line| !line.contains("team-a-team-a") && !line.contains("ops-ops")),
        "{log:#?}"
    );
}

#[tokio::test]
async fn what_may_be_a_password_in_a_check_is_shown_to_its_owner_and_administrators_alone() {
    let with = with_tokens(&[]).await;
    let anyone = with.agent.client();
    let [a, b, ops] = [
        "team-a-team-a-team-a",
        "team-b-team-b-team-b",
        "ops-ops-ops-ops-ops",
    ]
    .map(|token| anyone.with("authorization", bearer(token)));
    let mut body = declare("greeter");
    body["checks"] = json!([{"kind": "http", "url": "http://127.0.0.1:1/?token=sesame"}]);
    let declared = a.post("/v1/registrations", &body).await.expect(200);
    assert!(declared.to_string().contains("sesame"), "{declared}");
    for path in ["/v1/registrations", "/v1/registrations/greeter/i-1"] {
        for (client, sees) in [(&a, true), (&ops, true), (&b, false), (&anyone, false)] {
            let shown = client.get(path).await.expect(200)["registrations"].take();
            let shown = match shown {
                serde_json::Value::Null => client.get(path).await.expect(200),
                list => list[0].clone(),
            };
            let url = shown["declaration"]["checks"][0]["url"].as_str().unwrap();
            assert_eq!(url.contains("sesame"), sees, "{path}: {url}");
            assert!(url.starts_with("http://127.0.0.1:1/?"), "{url}");
        }
    }
}

#[tokio::test]
async fn web_pages_and_names_of_other_hosts_are_kept_out() {
    let agent = AgentProcess::start(&["--origins", "https://admin.example"]).await;
    let client = agent.client();
    let registered = json!({"service": "greeter", "id": "i-1", "address": "127.0.0.1:50051"});
    for (header, value, code) in [
        ("origin", "https://evil.example", "origin_refused"),
        ("origin", "null", "origin_refused"),
    ] {
        let page = client.with(header, value);
        assert_eq!(
            page.post("/v1/registrations", &registered)
                .await
                .expect(403)["code"],
            code
        );
        assert_eq!(page.get("/watch").await.expect(403)["code"], code);
    }
    let page = client.with("origin", "https://admin.example");
    let shown = page.get("/v1/agent").await;
    assert_eq!(
        shown.header("access-control-allow-origin"),
        "https://admin.example"
    );
    assert_eq!(
        shown.header("access-control-expose-headers"),
        "etag, location, retry-after"
    );
    let asked = page.with("access-control-request-method", "DELETE");
    let asked = asked
        .ask(Method::OPTIONS, "/v1/registrations/greeter/i-1", "")
        .await;
    assert_eq!(asked.status, 204);
    assert!(
        asked
            .header("access-control-allow-methods")
            .contains("DELETE")
    );
    for (host, status) in [
        ("evil.example:15010", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost:15010", 200),
        ("[::1]", 200),
    ] {
        let mut stream = TcpStream::connect(agent.address()).await.unwrap();
        let answer = ask(
            &mut stream,
            &format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
        )
        .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{host}: {answer}"
        );
    }
    let none = client.get("/v1/registrations/greeter/i-1").await;
    assert_eq!(none.status, 404);
}

/// Sends a request and reads to the end.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A peer may end without a word once it has answered.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

fn request(method: &Method, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_user_of_the_unix_socket_is_known_without_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listen = format!("unix:{}", socket.display());
    let with = with_tokens(&["--listen", &listen, "--socket-mode", "0600"]).await;
    let connect = async || UnixStream::connect(&socket).await.unwrap();
    let body = declare("greeter").to_string();
    let answer = ask(
        &mut connect().await,
        &request(&Method::POST, "/v1/registrations", &body),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let user = rustix::process::geteuid().as_raw();
    assert!(
        answer.contains(&format!("\"owner\":\"uid:{user}\"")),
        "{answer}"
    );
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // The user of the agent may stop it.
    let answer = ask(
        &mut connect().await,
        &request(&Method::POST, "/v1/agent/stop", "{}"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let (status, log) = with.agent.end().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_socket_of_an_agent_that_was_killed_is_replaced_and_that_of_a_living_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listen = format!("--listen=unix:{}", socket.display());
    let agent = AgentProcess::start(&[&listen]).await;
    let second = crate::common::program::output(crate::common::program::command(&[&listen])).await;
    let told = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(2), "{told}");
    assert!(told.contains("another agent listens there"), "{told}");
    agent.kill().await;
    assert!(socket.exists());
    let agent = AgentProcess::start(&[&listen]).await;
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    let answer = ask(&mut stream, &request(&Method::GET, "/healthz", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(agent);
}

/// The answer to a request over TLS; empty if the agent lets the client not in.
async fn over_tls(
    address: std::net::SocketAddr,
    config: Arc<ClientConfig>,
    request: &str,
) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    match TlsConnector::from(config).connect(name, stream).await {
        Ok(mut stream) => {
            // The agent's refusal of a certificate comes after the client's part of the handshake.
            let mut answer = Vec::new();
            let _ = stream.write_all(request.as_bytes()).await;
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        }
        Err(_) => String::new(),
    }
}

#[tokio::test]
async fn over_tls_a_client_needs_the_certificate_that_is_asked_for_and_a_reload_takes_new_files() {
    let certificates = Certificates::new();
    certificates.issue("agent");
    certificates.issue("client");
    let (other, path) = (Certificates::new(), |name: &str| certificates.path(name));
    other.issue("client");
    let arguments = [
        "--listen",
        "tls:127.0.0.1:0",
        "--tls-cert",
        &path("agent.pem"),
        "--tls-key",
        &path("agent.key"),
        "--tls-client-ca",
        &path("ca.pem"),
    ];
    let with = with_tokens(&arguments).await;
    let line = with.agent.logged("address=tls:").await;
    let (_, address) = line.rsplit_once("address=tls:").unwrap();
    let address = address.parse().unwrap();
    let get = request(&Method::GET, "/v1/agent", "");
    let good = certificates.client(Some("client"));
    let answer = over_tls(address, Arc::clone(&good), &get).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(over_tls(address, certificates.client(None), &get).await, "");
    // One of another authority is not shown by a client that knows which one is asked for, or refused.
    let stranger = {
        let mut roots = Certificates::client(&certificates, None).as_ref().clone();
        let chain = vec![CertificateDer::from_pem_file(other.path("client.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(other.path("client.key")).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = rustls::sign::CertifiedKey::from_der(chain, key, &provider).unwrap();
        roots.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
        Arc::new(roots)
    };
    assert_eq!(over_tls(address, stranger, &get).await, "");
    // A certificate is no token.
    let body = declare("greeter").to_string();
    let answer = over_tls(
        address,
        Arc::clone(&good),
        &request(&Method::POST, "/v1/registrations", &body),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");

    certificates.issue("agent");
    with.agent.signal(rustix::process::Signal::HUP);
    let line = with.agent.logged("reloaded taken=").await;
    assert!(line.ends_with("taken=tls.cert, tls.key"), "{line}");
    let answer = over_tls(address, good, &get).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    fs::write(Path::new(&path("agent.pem")), "garbage").unwrap();
    with.agent.signal(rustix::process::Signal::HUP);
    let line = with
        .agent
        .logged("not reloaded: nothing of it is taken")
        .await;
    assert!(line.contains("agent.pem holds no certificate"), "{line}");
    // Each file that is refused is told.
    let tokens = with.folder.path().join("tokens.toml");
    private_file(&tokens, "[[token]]\nname = \"a\"\ntoken = \"short\"\n");
    with.agent.signal(rustix::process::Signal::HUP);
    let line = with.agent.logged("tokens.toml: line 3: token: ").await;
    assert!(line.contains("agent.pem holds no certificate"), "{line}");
    let answer = over_tls(address, certificates.client(Some("client")), &get).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
