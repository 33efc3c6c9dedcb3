//! `sdctl config-service serve`, as a process.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::Signal;
use sd_cluster::{ClusterConfig, Received, RemoteConfig};
use sd_core::{Instance, Registry};
use sd_testing::{LONG, Peer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::running::{LIMIT, Running, command, failure};

const ISP_KIT: &str = "SD_TEST_CLUSTER_ISP_KIT";
const TOKEN: &str = "0123456789abcdef";
/// Where the number of its layout is in an SQLite file.
const USER_VERSION: std::ops::Range<usize> = 60..64;
const ANY: [&str; 4] = ["--listen", "127.0.0.1:0", "--operators", "127.0.0.1:0"];

/// A service with this token of operators, or none.
fn serve(token: &str, arguments: &[&str]) -> Command {
    let all = [&["config-service", "serve"], arguments].concat();
    let mut command = command("", &all);
    command
        .env("SDCTL_CONFIG_SERVICE_TOKEN", token)
        .env_remove("NOTIFY_SOCKET");
    command
}

/// The program, which listens.
struct Program {
    running: Running,
    modules: SocketAddr,
    operators: String,
}

impl Program {
    async fn start(mut command: Command) -> Self {
        command.arg("--json");
        let mut running = Running::spawn(command);
        let told = running.json_where(|_| true).await;
        Self {
            modules: told["modules"][0].as_str().unwrap().parse().unwrap(),
            operators: told["operators"].as_str().unwrap().to_owned(),
            running,
        }
    }

    async fn keeping(file: &Path) -> Self {
        let file = ["--file", file.to_str().unwrap()];
        Self::start(serve(TOKEN, &[&ANY[..], &file].concat())).await
    }

    /// What an operator prints of it.
    async fn ask(&self, arguments: &[&str]) -> String {
        let all = [
            &["config-service"],
            arguments,
            &["--service", &self.operators],
        ];
        let mut command = command("", &all.concat());
        command.env("SDCTL_CONFIG_SERVICE_TOKEN", TOKEN);
        let output = timeout(LIMIT, command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns its log.
    async fn stop(self) -> String {
        self.running.signal(Signal::TERM);
        let (status, _, log) = self.running.end().await;
        assert!(status.success(), "{status}: {log}");
        log
    }
}

/// A module, and the configurations that it gets.
fn module(address: SocketAddr) -> (Registry, mpsc::Receiver<Value>) {
    let (tell, told) = mpsc::channel(16);
    let remote = RemoteConfig::new(r#"{"workers":4}"#, move |received: Received<Value>| {
        let tell = tell.clone();
        async move { tell.send((*received.config).clone()).await }
    });
    let config = ClusterConfig::new([address.to_string()])
        .with_module("orders")
        .with_remote_config(remote.unwrap());
    (sd_cluster::connect(config).unwrap(), told)
}

async fn next(told: &mut mpsc::Receiver<Value>) -> Value {
    timeout(LONG, told.recv()).await.unwrap().unwrap()
}

fn configuration(folder: &TempDir, json: &str) -> PathBuf {
    let path = folder.path().join("orders.json");
    std::fs::write(&path, json).unwrap();
    path
}

#[tokio::test]
async fn a_module_joins_gets_what_an_operator_sets_and_it_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config-service.sqlite");
    let program = Program::keeping(&file).await;
    let (registry, mut told) = module(program.modules);
    let orders = Instance::new("orders", "10.0.0.7:50051").unwrap();
    let guard = registry.register(orders).await.unwrap();
    assert_eq!(next(&mut told).await, json!({"workers": 4}));
    let changed = configuration(&folder, r#"{"workers": 8}"#);
    let set = ["set", "orders", changed.to_str().unwrap(), "--over", "1"];
    program.ask(&set).await;
    assert_eq!(next(&mut told).await, json!({"workers": 8}));
    let modules = program.ask(&["modules"]).await;
    assert!(modules.contains("10.0.0.7:50051"), "{modules}");
    guard.deregister().await.unwrap();
    registry.close().await.unwrap();
    let log = program.stop().await;
    assert!(log.contains("ready") && log.contains("stopping"), "{log}");
    // Configurations hold secrets.
    assert!(!log.contains("workers") && !log.contains(TOKEN), "{log}");

    let again = Program::keeping(&file).await;
    let kept = again.ask(&["get", "orders"]).await;
    assert_eq!(kept, "{\"workers\": 8}\n");
    let (_registry, mut told) = module(again.modules);
    assert_eq!(next(&mut told).await, json!({"workers": 8}));
    // One that is killed keeps what an operator has written.
    again.running.signal(Signal::KILL);
    again.running.end().await;
    let third = Program::keeping(&file).await;
    assert_eq!(third.ask(&["get", "orders"]).await, kept);
    third.stop().await;
}

#[tokio::test]
#[ignore = "needs cluster's peer in Go: cargo xtask test --backend cluster"]
async fn a_module_in_go_joins_gets_a_change_and_comes_back_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config-service.sqlite");
    let program = Program::keeping(&file).await;
    let modules = program.modules.to_string();
    let orders = json!({
        "name": "orders", "version": "1.2.3", "address": {"ip": "10.0.0.7", "port": "9999"},
        "schema": {"type": "object"}, "config": {"workers": 4}, "receive_config": true,
    });
    let arguments = ["client", &modules, &orders.to_string()];
    let mut peer = Peer::start(ISP_KIT, &arguments).unwrap();
    let mut config = async || {
        loop {
            let line = timeout(LONG, peer.line()).await.unwrap().unwrap();
            let told: Value = serde_json::from_str(&line).unwrap();
            if told["event"] == "config" {
                return serde_json::from_str::<Value>(told["data"].as_str().unwrap()).unwrap();
            }
        }
    };
    assert_eq!(config().await, json!({"workers": 4}));
    let changed = configuration(&folder, r#"{"workers": 8}"#);
    program
        .ask(&["set", "orders", changed.to_str().unwrap()])
        .await;
    assert_eq!(config().await, json!({"workers": 8}));
    program.stop().await;
    // It looks for the service each second, at the same address.
    let file = ["--file", file.to_str().unwrap(), "--listen", &modules];
    let again = serve(TOKEN, &[&file[..], &ANY[2..]].concat());
    let again = Program::start(again).await;
    assert_eq!(config().await, json!({"workers": 8}));
    timeout(LONG, peer.dismiss()).await.unwrap().unwrap();
    again.stop().await;
}

#[tokio::test]
async fn it_stops_in_time_although_a_module_does_not_answer() {
    let program = Program::start(serve("", &ANY)).await;
    let mut silent = TcpStream::connect(program.modules).await.unwrap();
    let request = "GET /isp-etp/?module_name=silent HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    silent.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(LONG, silent.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    let log = program.stop().await;
    assert!(log.contains("in memory"), "{log}");
}

#[tokio::test]
async fn systemd_is_told_when_it_listens_lives_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut with_systemd = serve("", &ANY);
    with_systemd
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000");
    let program = Program::start(with_systemd).await;
    let wait_for = async |part: &'static str| {
        let socket = socket.try_clone().unwrap();
        let waiting = tokio::task::spawn_blocking(move || {
            let mut message = [0; 4096];
            loop {
                let read = socket.recv(&mut message).unwrap();
                let text = String::from_utf8_lossy(&message[..read]);
                if text.lines().any(|line| line.starts_with(part)) {
                    return;
                }
            }
        });
        timeout(2 * LONG, waiting).await.unwrap().unwrap();
    };
    wait_for("READY=1").await;
    TcpStream::connect(program.modules).await.unwrap();
    for _ in 0..2 {
        wait_for("WATCHDOG=1").await;
    }
    program.running.signal(Signal::TERM);
    wait_for("STOPPING=1").await;
    assert!(program.running.end().await.0.success());
}

#[tokio::test]
async fn what_cannot_work_is_said_on_one_line_before_anything_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("not-ours"), "SQLite it is not").unwrap();
    std::fs::write(path("open-token"), TOKEN).unwrap();
    let everyone = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path("open-token"), everyone).unwrap();
    for (token, option, value, status, part) in [
        ("", "--operators", "0.0.0.0:0".to_owned(), 2, "set a token"),
        (
            "short",
            "--operators",
            "127.0.0.1:0".to_owned(),
            2,
            "at least 16",
        ),
        ("", "--token-file", path("missing"), 2, "cannot read"),
        (
            "",
            "--token-file",
            path("open-token"),
            2,
            "every user can read",
        ),
        ("", "--listen", "localhost".to_owned(), 2, "127.0.0.1:9001"),
        ("", "--file", path("none/file"), 2, "does not exist"),
        (
            "",
            "--service",
            "http://127.0.0.1:1".to_owned(),
            2,
            "how a config service is asked",
        ),
        ("", "--timeout", "5s".to_owned(), 2, "--timeout says how"),
        (
            "",
            "--registry",
            "memory://".to_owned(),
            2,
            "--registry says how",
        ),
        (
            "",
            "--operators",
            "127.0.0.1:9001".to_owned(),
            2,
            "127.0.0.1:9001 is named twice",
        ),
        (
            "",
            "--listen",
            "isps://127.0.0.1:9001".to_owned(),
            2,
            "needs a certificate",
        ),
        ("", "--tls-cert", path("cert"), 2, "--tls-key"),
        ("", "--file", path("not-ours"), 2, "not-ours"),
    ] {
        let output = serve(token, &["--check", option, &value]).output();
        let output = timeout(LIMIT, output).await.unwrap().unwrap();
        let line = failure(&output);
        assert!(line.contains(part), "{option} {value}: {line}");
        assert_eq!(
            output.status.code(),
            Some(status),
            "{option} {value}: {line}"
        );
    }
    let elsewhere = command("memory://", &["config-service", "serve", "--check"]).output();
    let line = failure(&elsewhere.await.unwrap());
    assert!(line.contains("--registry says how"), "{line}");
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let output = serve("", &["--listen", &taken, "--operators", "127.0.0.1:0"]).output();
    let output = timeout(LIMIT, output).await.unwrap().unwrap();
    assert!(failure(&output).contains(&taken), "{output:?}");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

/// A certificate for `localhost` with its issuer, as files of this folder.
fn certificate(folder: &TempDir) {
    let path = |name: &str| folder.path().join(name);
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    std::fs::write(path("ca"), authority.pem()).unwrap();
    std::fs::write(path("cert"), certificate.pem()).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
    let own = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path("key"), own).unwrap();
}

#[tokio::test]
async fn over_tls_modules_and_operators_show_their_certificates_and_others_are_refused() {
    let (files, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificate(&files);
    certificate(&other);
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca"), path("cert"), path("key"));
    let mut served = serve(TOKEN, &[]);
    served.args([
        "--listen",
        "isps://127.0.0.1:0",
        "--operators",
        "https://127.0.0.1:0",
    ]);
    served.args([
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &ca,
        "--json",
    ]);
    let mut running = Running::spawn(served);
    let told = running.json_where(|_| true).await;
    let at = |text: &Value, scheme: &str| {
        let address = text.as_str().unwrap().strip_prefix(scheme).unwrap();
        address.parse::<SocketAddr>().unwrap().port()
    };
    let modules = at(&told["modules"][0], "isps://");
    let operators = format!("https://localhost:{}", at(&told["operators"], "https://"));

    let client = |ca: &Path| {
        ClusterConfig::new([format!("localhost:{modules}")])
            .with_module("orders")
            .with_ca(ca)
    };
    let trusted = client(Path::new(&ca)).with_identity(&cert, &key);
    let registry = sd_cluster::connect(trusted).unwrap();
    let orders = Instance::new("orders", "10.0.0.7:50051").unwrap();
    let _guard = registry.register(orders).await.unwrap();
    for refused in [
        client(&other.path().join("ca")).with_identity(&cert, &key),
        client(Path::new(&ca)),
    ] {
        let registry = sd_cluster::connect(refused).unwrap();
        registry.check().await.unwrap_err();
    }

    let ask = async |arguments: &[&str]| {
        let all = [
            &["config-service", "modules", "--service", &operators],
            arguments,
        ]
        .concat();
        timeout(LIMIT, command("", &all).output())
            .await
            .unwrap()
            .unwrap()
    };
    let shown = ask(&["--ca", &ca, "--cert", &cert, "--key", &key]).await;
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(
        shown.status.success() && text.contains("10.0.0.7:50051"),
        "{shown:?}"
    );
    let others = other.path().join("ca");
    for arguments in [
        &["--ca", &ca][..],
        &[
            "--ca",
            others.to_str().unwrap(),
            "--cert",
            &cert,
            "--key",
            &key,
        ],
    ] {
        let refused = ask(arguments).await;
        assert!(!refused.status.success(), "{refused:?}");
    }
    let plain = command("", &["config-service", "modules", "--ca", &ca]).output();
    let line = failure(&plain.await.unwrap());
    assert!(line.contains("write https://host:port"), "{line}");
    running.signal(Signal::TERM);
    assert!(running.end().await.0.success());
}

#[tokio::test]
async fn a_check_says_what_counts_neither_makes_nor_changes_a_file_and_disturbs_no_service_that_runs()
 {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config-service.sqlite");
    let check = async || {
        let arguments = ["--check", "--file", file.to_str().unwrap()];
        let output = serve(TOKEN, &arguments).output();
        let output = timeout(Duration::from_secs(60), output)
            .await
            .unwrap()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let told = check().await;
    for part in ["127.0.0.1:9001", "http://127.0.0.1:9003", "will be made"] {
        assert!(told.contains(part), "{told}");
    }
    assert!(!file.exists());
    let program = Program::keeping(&file).await;
    let told = check().await;
    assert!(told.contains("has open now"), "{told}");
    program.ask(&["modules"]).await;
    program.stop().await;
    // As a version has left it that kept no instances: the next start brings it up to date, and no check does.
    let mut older = std::fs::read(&file).unwrap();
    older[USER_VERSION].copy_from_slice(&1_u32.to_be_bytes());
    std::fs::write(&file, &older).unwrap();
    let told = check().await;
    assert!(told.ends_with("config-service.sqlite\n"), "{told}");
    assert_eq!(std::fs::read(&file).unwrap(), older);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "a check leaves something beside the file");
}
