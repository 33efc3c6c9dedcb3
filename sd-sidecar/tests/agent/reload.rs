//! What a reload takes of the files of TLS and of the log, and what an address of TLS says to a client that speaks none.

use std::fs;
use std::net::SocketAddr;

use rcgen::CertificateParams;
use rustix::process::Signal;
use rustls::pki_types::ServerName;
use sd_testing::LONG;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::common::Certificates;
use crate::common::program::{AgentProcess, command, output};

/// An agent with the certificate `agent`, and certificates of `clients.pem` asked for.
struct Served {
    certificates: Certificates,
    agent: AgentProcess,
    address: SocketAddr,
}

impl Served {
    async fn start() -> Self {
        let certificates = Certificates::new();
        for name in ["agent", "client"] {
            certificates.issue(name);
        }
        let path = |name: &str| certificates.path(name);
        fs::copy(path("ca.pem"), path("clients.pem")).unwrap();
        let agent = AgentProcess::start(&[
            "--listen=tls:127.0.0.1:0",
            "--tls-cert",
            &path("agent.pem"),
            "--tls-key",
            &path("agent.key"),
            "--tls-client-ca",
            &path("clients.pem"),
        ])
        .await;
        let line = agent.logged("address=tls:").await;
        let (_, address) = line.rsplit_once("address=tls:").unwrap();
        let address = address.parse().unwrap();
        Self {
            certificates,
            agent,
            address,
        }
    }

    /// Asks on a connection that stays.
    async fn ask(&self, path: &str) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(self.certificates.client(Some("client")));
        let mut stream = connector.connect(name, stream).await.unwrap();
        send(&mut stream, path).await;
        stream
    }

    async fn reload(&self, taken: &str) {
        self.agent.signal(Signal::HUP);
        self.agent.logged(&format!("taken={taken}")).await;
    }
}

async fn send(stream: &mut TlsStream<TcpStream>, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads until this has come.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), part: &str) {
    let mut read = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&read).contains(part) {
            read.push(stream.read_u8().await.unwrap());
        }
    };
    timeout(LONG, reading)
        .await
        .unwrap_or_else(|_| panic!("no {part}"));
}

/// All that comes to the end of a connection.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut rest = Vec::new();
    // It may end without the last word of TLS.
    let _ = timeout(LONG, stream.read_to_end(&mut rest))
        .await
        .expect("it ends");
    String::from_utf8(rest).unwrap()
}

#[tokio::test]
async fn connections_end_whose_clients_are_no_longer_let_in_and_streams_with_a_last_event() {
    let served = Served::start().await;
    let mut stream = served.ask("/v1/services/greeter/events").await;
    read_until(&mut stream, "event: snapshot").await;
    let mut resting = served.ask("/healthz").await;
    read_until(&mut resting, "\"ok\"}").await;

    // Clients know nothing of this.
    served.certificates.issue("agent");
    served.reload("tls.cert, tls.key").await;
    send(&mut resting, "/healthz").await;
    read_until(&mut resting, "\"ok\"}").await;

    let other = Certificates::new();
    let path = |name: &str| served.certificates.path(name);
    fs::copy(other.path("ca.pem"), path("clients.pem")).unwrap();
    served.reload("tls.client_ca").await;
    assert_eq!(rest(&mut resting).await, "");
    let last = rest(&mut stream).await;
    assert!(last.contains("event: disconnected"), "{last}");
    served.agent.stop().await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_taken_with_a_warning() {
    let served = Served::start().await;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    served.certificates.issue_as("agent", &params);
    served.reload("tls.cert, tls.key").await;
    let line = served.agent.logged("tls.cert: it has expired").await;
    assert!(
        line.contains("WARN") && line.contains("2020-01-01"),
        "{line}"
    );
    let path = |name: &str| served.certificates.path(name);
    let checked = output(command(&[
        "--check",
        "--tls-cert",
        &path("agent.pem"),
        "--tls-key",
        &path("agent.key"),
    ]));
    let checked = checked.await;
    let told = String::from_utf8(checked.stderr).unwrap();
    assert!(
        checked.status.success() && told.contains("it has expired"),
        "{told}"
    );
    served.agent.stop().await;
}

#[tokio::test]
async fn who_speaks_no_tls_where_it_is_meant_is_told_so() {
    let served = Served::start().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["code"], "invalid_request");
    assert!(
        body["message"].as_str().unwrap().contains("https://"),
        "{body}"
    );
    assert!(body["generated_at"].is_string(), "{body}");
    served.agent.stop().await;
}

#[tokio::test]
async fn what_a_reload_has_taken_is_logged_also_if_less_is_logged_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    fs::write(&file, "log.level = \"info\"").unwrap();
    let agent = AgentProcess::start(&["--config", file.to_str().unwrap()]).await;
    fs::write(&file, "log.level = \"warn\"").unwrap();
    agent.signal(Signal::HUP);
    agent.logged("reloaded taken=log.level").await;
    // And the other way round.
    fs::write(&file, "log.level = \"debug\"").unwrap();
    agent.signal(Signal::HUP);
    let twice = async || {
        let log = agent.log();
        log.iter()
            .filter(|line| line.contains("reloaded taken=log.level"))
            .count()
            == 2
    };
    sd_testing::eventually("logged again", LONG, twice).await;
    agent.stop().await;
}
