//! The agent as a process: its configuration, its reload, its state on disk, and what systemd is told.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use sd_testing::{LONG, eventually};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::common::program::{AgentProcess, WITHOUT_OPTIONS, command, output, private_file};

fn state(folder: &TempDir) -> String {
    let path = folder.path().join("state.json");
    path.to_str().unwrap().to_owned()
}

fn declare(service: &str, id: &str) -> serde_json::Value {
    json!({"service": service, "id": id, "address": "127.0.0.1:50051"})
}

#[tokio::test]
async fn it_runs_without_any_configuration_and_shows_what_it_holds() {
    let agent = AgentProcess::start(&WITHOUT_OPTIONS).await;
    let client = agent.client();
    let registered = client
        .post("/v1/registrations", &declare("greeter", "g-1"))
        .await;
    assert_eq!(registered.expect(200)["stage"], "Serving");
    let shown = client.get("/v1/agent").await.expect(200);
    assert_eq!(shown["lifecycle_state"], "running");
    assert_eq!(shown["registry"], "memory://");
    assert_eq!(shown["registrations"]["Serving"], 1);
    assert_eq!(shown["pid"], agent.pid());
    let metrics = client.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in [
        "sd_agent_registrations{stage=\"Serving\"} 1",
        "sd_agent_requests_total{route=\"/v1/registrations\",status=\"200\"} 1",
        "sd_registration_events_total{service=\"greeter\",event=\"registered\"} 1",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line}: {metrics}");
    }
    let line = agent.logged("path=/v1/registrations").await;
    assert!(
        line.contains("access") && line.contains("status=200") && line.contains("caller=anonymous"),
        "{line}"
    );
    let (status, log) = agent.stop().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

#[tokio::test]
async fn a_configuration_is_checked_and_shown_without_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.yaml");
    fs::write(
        &file,
        "registry: etcd://root:sesame@127.0.0.1:1/services\nzone: a\nlimits:\n  streams: 7\n",
    )
    .unwrap();
    let mut check = command(&["--check", "--config", file.to_str().unwrap(), "--zone=b"]);
    check.env("SD_AGENT_LIMITS_STREAMS", "8");
    let from_systemd = folder.path().join("registrations.json");
    fs::write(&from_systemd, "{\"version\": 1, \"registrat").unwrap();
    check.env("STATE_DIRECTORY", folder.path());
    let checked = output(check).await;
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success(), "{:?}", checked.stderr);
    let told = String::from_utf8(checked.stderr).unwrap();
    assert!(told.contains("is damaged: a start loses all"), "{told}");
    let state_line = format!("state = {} (systemd)", from_systemd.display());
    for line in [
        state_line.as_str(),
        "registry = etcd://root:***@127.0.0.1:1/services (file)",
        "zone = b (command line)",
        "limits.streams = 8 (environment)",
        "limits.body = 1048576 (default)",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}: {text}");
    }
}

#[tokio::test]
async fn what_cannot_be_used_ends_with_2_and_one_line_that_says_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("unknown.toml"), "registri = \"memory://\"").unwrap();
    fs::write(
        path("open.toml"),
        "[[token]]\nname = \"a\"\ntoken = \"sesame-sesame-sesame\"",
    )
    .unwrap();
    for (arguments, part) in [
        (
            vec!["--config".to_owned(), path("unknown.toml")],
            "did you mean registry?",
        ),
        (
            vec!["--config".to_owned(), path("missing.toml")],
            "cannot be read",
        ),
        (vec!["--registry=etdc://root:sesame@h:1".to_owned()], "etcd"),
        (
            vec!["--registry=etcd://root:sesame@h:1/?tttl=3s".to_owned()],
            "ttl",
        ),
        (
            vec!["--registry=etcd://h:1".to_owned(), "--ttl=1s".to_owned()],
            "ttl: 1s is none that this registry takes: write 2s to",
        ),
        (
            vec![
                "--registry=etcd://h:1".to_owned(),
                "--advertise=127.0.0.1".to_owned(),
            ],
            "advertise: 127.0.0.1 can only be dialled on this machine",
        ),
        (
            vec![
                "--registry=consul://h:1/?tag=a".to_owned(),
                "--route-prefix=routes".to_owned(),
            ],
            "route_prefix: with tag in the registry's URL",
        ),
        (
            vec![
                "--registry=consul://h:1/?consistency=stale".to_owned(),
                "--route-prefix=routes".to_owned(),
            ],
            "route_prefix: with consistency=stale in the registry's URL",
        ),
        (vec!["--log-level=loud".to_owned()], "\"loud\" is no level"),
        (vec!["--listn=x".to_owned()], "--listen"),
        (vec!["--ttl=5".to_owned()], "500ms, 10s"),
        (vec!["--listen=0.0.0.0:1".to_owned()], "set tokens"),
        (vec![format!("--tokens={}", path("open.toml"))], "0600"),
        (
            vec![
                "--listen=tls:127.0.0.1:0".to_owned(),
                "--tls-cert=/none".to_owned(),
                "--tls-key=/none".to_owned(),
            ],
            "cannot read /none",
        ),
    ] {
        for check in [true, false] {
            let mut arguments = arguments.clone();
            if check {
                arguments.push("--check".to_owned());
            }
            let ended = output(command(&arguments)).await;
            let told = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {told}");
            let last = told.lines().last().unwrap();
            assert!(
                last.starts_with("sd-agent: ") && last.contains(part),
                "{arguments:?}: {told}"
            );
            assert!(!told.contains("sesame"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_check_looks_at_the_state_and_changes_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("newer.json"), r#"{"version": 2, "registrations": []}"#).unwrap();
    for (state, part) in [
        (path("no/such/state.json"), Some("no/such cannot be used")),
        (path("newer.json"), Some("is of version 2")),
        (path("new/state.json"), None),
    ] {
        let ended = output(command(&["--check", "--state", &state])).await;
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(part.map_or(0, |_| 2)), "{told}");
        assert!(told.contains(part.unwrap_or_default()), "{told}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_reload_takes_what_it_can_and_a_bad_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, tokens) = (
        folder.path().join("agent.toml"),
        folder.path().join("tokens.toml"),
    );
    let token = |token: &str| {
        private_file(
            &tokens,
            &format!("[[token]]\nname = \"a\"\ntoken = \"{token}\"\n"),
        );
    };
    let config = |more: &str| {
        fs::write(
            &file,
            format!("tokens = {:?}\n{more}", tokens.to_str().unwrap()),
        )
        .unwrap();
    };
    token("first-first-first-first");
    config("zone = \"a\"");
    let agent = AgentProcess::start(&["--config", file.to_str().unwrap()]).await;
    let post = async |token: &str| {
        let client = agent
            .client()
            .with("authorization", format!("Bearer {token}"));
        client
            .post("/v1/registrations", &declare("greeter", "g-1"))
            .await
            .status
            .as_u16()
    };
    assert_eq!(post("first-first-first-first").await, 200);
    assert_eq!(post("second-second-second").await, 401);

    let first = agent
        .client()
        .with("authorization", "Bearer first-first-first-first");
    let mut stream = first.events("/watch").await;
    stream.event_named("connected").await;
    token("second-second-second");
    config("zone = \"b\"\nstop_within = \"9s\"\nlog.level = \"debug\"\nlog.access = false");
    agent.signal(Signal::HUP);
    let line = agent.logged("take effect at the next start").await;
    assert!(line.contains("zone") && !line.contains("log."), "{line}");
    assert!(line.contains("stop_within"), "{line}");
    let line = agent.logged("reloaded taken=").await;
    assert!(
        line.ends_with("taken=log.level, log.access, tokens (a changed)"),
        "{line}"
    );
    assert_eq!(post("second-second-second").await, 200);
    assert_eq!(post("first-first-first-first").await, 401);
    // What the old token has opened does not outlive it.
    timeout(LONG, async { while stream.next().await.is_some() {} })
        .await
        .expect("the stream ends");

    config("zonne = \"b\"");
    agent.signal(Signal::HUP);
    let line = agent.logged("not reloaded: nothing of it is taken").await;
    assert!(
        line.contains("agent.toml: line 2: there is no key zonne: did you mean zone?"),
        "{line}"
    );
    private_file(&tokens, "[[token]]\nname = \"a\"\ntoken = \"short\"\n");
    config("");
    agent.signal(Signal::HUP);
    let line = agent.logged("at least 16").await;
    assert!(line.contains("tokens.toml: line 3: token: "), "{line}");
    assert!(
        line.ends_with("also_not_taken=log.level, log.access"),
        "{line}"
    );
    assert_eq!(post("second-second-second").await, 200);
    let (status, log) = agent.stop().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(
        log.iter().all(|line| !line.contains("second-second")),
        "{log:#?}"
    );
}

#[tokio::test]
async fn systemd_is_told_when_it_is_ready_alive_reloading_and_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut with_systemd = command(&["--listen", "127.0.0.1:0"]);
    with_systemd
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000")
        .env("STATE_DIRECTORY", folder.path());
    let agent = AgentProcess::spawn(with_systemd);
    let (send, mut told) = tokio::sync::mpsc::channel(1024);
    std::thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(read) = socket.recv(&mut message) {
            if send
                .blocking_send(String::from_utf8_lossy(&message[..read]).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let mut wait_for = async |part: &str| {
        let found = timeout(LONG, async {
            loop {
                let message = told.recv().await.unwrap();
                if message.lines().any(|line| line.starts_with(part)) {
                    return message;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("{part} is not told"))
    };
    wait_for("READY=1").await;
    // What it logged before may be read later.
    agent.logged("listening").await;
    // It listens by then, and has its file in the folder of systemd.
    agent.client().get("/healthz").await.expect(200);
    assert!(folder.path().join("registrations.json.lock").exists());
    for _ in 0..3 {
        wait_for("WATCHDOG=1").await;
    }
    agent.signal(Signal::HUP);
    assert!(wait_for("RELOADING=1").await.contains("MONOTONIC_USEC="));
    wait_for("READY=1").await;
    agent
        .client()
        .post("/v1/registrations", &declare("greeter", "g-1"))
        .await
        .expect(200);
    wait_for("STATUS=1 registrations").await;
    agent.signal(Signal::TERM);
    wait_for("STOPPING=1").await;
    let (status, log) = agent.end().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

#[tokio::test]
async fn with_a_damaged_state_it_starts_and_the_file_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(state(&folder), "{\"version\": 1, \"registrat").unwrap();
    let agent = AgentProcess::start(&["--state", &state(&folder)]).await;
    agent.logged("damaged").await;
    agent
        .client()
        .post("/v1/registrations", &declare("greeter", "g-1"))
        .await
        .expect(200);
    let kept = fs::read_to_string(state(&folder)).unwrap();
    assert!(kept.contains("g-1"), "{kept}");
    // Another agent cannot have the same file, and takes nothing of it.
    let second = output(command(&[
        "--listen=127.0.0.1:0",
        "--state",
        &state(&folder),
    ]))
    .await;
    let told = String::from_utf8(second.stderr).unwrap();
    assert!(
        !second.status.success() && told.contains("another agent uses"),
        "{told}"
    );
    let (status, log) = agent.stop().await;
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

#[tokio::test]
async fn one_damaged_byte_in_the_state_costs_one_registration_which_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let agent = AgentProcess::start(&["--state", &state(&folder)]).await;
    for id in ["g-1", "g-2", "g-3"] {
        let declared = declare("greeter", id);
        let client = agent.client();
        client
            .post("/v1/registrations", &declared)
            .await
            .expect(200);
    }
    agent.kill().await;
    let mut bytes = fs::read(state(&folder)).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let second = text.rfind("\"id\":\"g-2\"").unwrap();
    let passing = second + text[second..].find("\"passing\"").unwrap();
    bytes[passing] = 0xff;
    fs::write(state(&folder), bytes).unwrap();

    let next = AgentProcess::start(&["--state", &state(&folder)]).await;
    let line = next.logged("is damaged, and lost").await;
    assert!(
        line.contains("registration=g-2 of greeter (byte "),
        "{line}"
    );
    let client = next.client();
    for (id, status) in [("g-1", 200), ("g-2", 404), ("g-3", 200)] {
        let path = format!("/v1/registrations/greeter/{id}");
        client.get(&path).await.expect(status);
    }
    let notes = client.get("/v1/agent").await.expect(200)["notes"].to_string();
    assert!(
        notes.contains("were lost, g-2 of greeter (byte "),
        "{notes}"
    );
    let metrics = client.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let line = "sd_agent_state_lost_registrations 1";
    assert!(metrics.lines().any(|one| one == line), "{metrics}");
    client.get("/readyz").await.expect(200);
    next.stop().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_and_nothing_of_the_state_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={}", taken.local_addr().unwrap());
    let ended = output(command(&[&listen, &format!("--state={}", state(&folder))])).await;
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{told}");
    assert!(told.contains("cannot listen at 127.0.0.1:"), "{told}");
    assert!(!Path::new(&state(&folder)).exists());
}

/// What is delivered is one file.
#[tokio::test]
async fn one_that_is_killed_while_it_ends_its_connections_has_noted_already_that_all_is_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let agent = AgentProcess::start(&["--state", &state(&folder)]).await;
    let client = agent.client();
    let declared = declare("greeter", "g-1");
    client
        .post("/v1/registrations", &declared)
        .await
        .expect(200);
    // A request whose body does not come holds its connection for as long as it may.
    let mut unfinished = tokio::net::TcpStream::connect(agent.address())
        .await
        .unwrap();
    let head = format!(
        "POST /v1/registrations HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000\r\n\r\n{{",
        agent.address()
    );
    unfinished.write_all(head.as_bytes()).await.unwrap();
    eventually("handled", LONG, async || {
        let metrics = client.get("/metrics").await;
        // This one, and the one that asks.
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        text.lines()
            .any(|line| line.starts_with("sd_agent_connections") && line.ends_with(" 2"))
    })
    .await;
    agent.signal(Signal::TERM);
    let is_noted = async || {
        let written = fs::read_to_string(state(&folder)).unwrap();
        written.contains("\"ending\":true") && written.contains("g-1")
    };
    eventually("noted", LONG, is_noted).await;
    let log = agent.log();
    let have_ended = log
        .iter()
        .any(|line| line.contains("connections have ended"));
    assert!(!have_ended, "{log:#?}");
    agent.kill().await;
    let next = AgentProcess::start(&["--state", &state(&folder)]).await;
    next.client()
        .get("/v1/registrations/greeter/g-1")
        .await
        .expect(404);
    next.kill().await;
}

#[tokio::test]
async fn a_stop_that_leaves_an_older_state_ends_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let agent = AgentProcess::start(&["--state", &state(&folder)]).await;
    let declared = declare("greeter", "g-1");
    let client = agent.client();
    client
        .post("/v1/registrations", &declared)
        .await
        .expect(200);
    // Neither written nor removed.
    fs::remove_file(state(&folder)).unwrap();
    fs::create_dir_all(Path::new(&state(&folder)).join("x")).unwrap();
    let gone = client
        .delete("/v1/registrations/greeter/g-1")
        .await
        .expect(202);
    assert_eq!(gone["stage"], "Deregistered");
    let why = gone["error"].as_str().unwrap();
    assert!(why.contains("still has it"), "{why}");
    let (status, log) = agent.stop().await;
    assert_eq!(status.code(), Some(1), "{log:#?}");
    assert!(
        log.iter().any(|line| line.contains("older one")),
        "{log:#?}"
    );
}

#[tokio::test]
async fn only_libraries_of_the_system_are_linked() {
    let mut ldd = tokio::process::Command::new("ldd");
    let listed = ldd.arg(env!("CARGO_BIN_EXE_sd-agent")).output();
    let listed = timeout(LONG, listed).await.unwrap().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let known = [
        "linux-vdso",
        "libc.",
        "libm.",
        "libgcc_s.",
        "libdl.",
        "libpthread.",
        "librt.",
        "ld-linux",
    ];
    for line in listed.lines() {
        let file = line.trim().rsplit('/').next().unwrap();
        let name = line.trim().split(' ').next().unwrap();
        let is_known = known
            .iter()
            .any(|known| name.starts_with(known) || file.starts_with(known));
        assert!(is_known || line.contains("statically linked"), "{line}");
    }
}

/// Each check is a shell and its child, neither of which ends by itself.
#[tokio::test]
async fn no_program_of_a_check_outlives_the_agent_however_it_is_stopped() {
    for insists in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let started = folder.path().join("started");
        let script = format!("sleep 1000 & echo $$ $! >> {}; wait", started.display());
        let checks = json!([{
            "kind": "command", "command": ["sh", "-c", script], "timeout": "60s", "interval": "100ms",
        }]);
        let drain = if insists { "--drain=60s" } else { "--drain=0s" };
        let agent = AgentProcess::start(&["--checks-commands=true", drain]).await;
        let client = agent.client();
        for number in 0..20 {
            let mut body = declare("checked", &format!("c-{number}"));
            body["checks"] = checks.clone();
            client.post("/v1/registrations", &body).await.expect(200);
        }
        let running = async {
            loop {
                let text = fs::read_to_string(&started).unwrap_or_default();
                if text.ends_with('\n') && text.lines().count() == 20 {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let running = timeout(LONG, running).await.expect("all run");
        agent.signal(Signal::TERM);
        if insists {
            agent.logged("connections have ended").await;
            // A second one that follows at once was sent along with the first.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            agent.signal(Signal::TERM);
        }
        let (status, log) = agent.end().await;
        assert_eq!(status.success(), !insists, "{log:#?}");
        let all_gone = async {
            for pid in running.split_whitespace() {
                while is_running(pid) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        timeout(LONG, all_gone).await.expect("all are gone");
    }
}

/// Whether a process is there, and not only waits for its parent to notice that it is dead.
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
