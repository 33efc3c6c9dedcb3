//! The service on one SQLite file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sd_cluster::server::{ConfigService, Limits, StoredConfig, Variable};
use sd_core::{ErrorKind, Result};

use crate::raw::Raw;
use crate::started;

async fn open(path: &Path) -> Result<ConfigService> {
    ConfigService::builder().file(path).start().await
}

fn versions(configs: &[StoredConfig]) -> Vec<(u32, &str)> {
    configs
        .iter()
        .map(|config| (config.version(), config.data()))
        .collect()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_and_the_limit_of_versions_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.sqlite");
    let mut limits = Limits::default();
    limits.versions = 2;
    let builder = ConfigService::builder().limits(limits).file(&path);
    let (service, address) = started(builder).await;
    service
        .set_variable("v", Variable::secret("sesame").described("d"))
        .await
        .unwrap();
    let mut raw = Raw::connect(address, "a").await;
    raw.ask(
        "MODULE:SEND_CONFIG_SCHEMA",
        r#"{"version":"7","schema":{"s":1},"config":{"v":"_Var(v)"}}"#,
    )
    .await;
    for version in 2..=4 {
        service
            .set_config("a", &version.to_string(), None)
            .await
            .unwrap();
    }
    service
        .set_config("before it connects", "{}", None)
        .await
        .unwrap();
    service.set_config("gone", "{}", None).await.unwrap();
    service.delete_module("gone").await.unwrap();
    service.stop().await;
    let closed = service.set_config("a", "5", None).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closed);

    let service = open(&path).await.unwrap();
    assert_eq!(
        versions(&service.configs("a").await.unwrap()),
        [(4, "4"), (3, "3")]
    );
    let known = service.module("a").await.unwrap();
    assert_eq!(
        (known.schema.as_deref(), known.schema_version.as_deref()),
        (Some(r#"{"s":1}"#), Some("7"))
    );
    let names: Vec<String> = service
        .modules()
        .await
        .unwrap()
        .iter()
        .map(|one| one.name.to_string())
        .collect();
    assert_eq!(names, ["a", "before it connects"]);
    service
        .set_config("a", r#"["_Var(v)"]"#, Some(4))
        .await
        .unwrap();
    assert_eq!(service.variables().await.unwrap()[0].description, "d");
    let address = service
        .listen("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let mut raw = Raw::connect(address, "a").await;
    let (before, _) = raw
        .ask("MODULE:SEND_CONFIG_SCHEMA", r#"{"config":{}}"#)
        .await;
    assert_eq!(
        before,
        [r#"CONFIG:SEND_CONFIG_WHEN_CONNECTED||0||["sesame"]"#]
    );
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_user_reads_a_file_that_is_made_and_one_that_is_there_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.sqlite");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let service = open(&path).await.unwrap();
    service.set_config("a", "{}", None).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&folder.path().join("config.sqlite-wal")), 0o600);
    service.stop().await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    open(&path).await.unwrap();
    assert_eq!(mode(&path), 0o640);
}

#[tokio::test]
async fn a_file_has_one_process_and_is_free_when_that_has_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.sqlite");
    let first = open(&path).await.unwrap();
    let second = open(&path).await.unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Conflict, "{}", second.report());
    assert!(
        second.report().to_string().contains("another process"),
        "{}",
        second.report()
    );
    first.stop().await;
    open(&path).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_damaged_or_no_file_of_ours_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.sqlite");
    let service = open(&path).await.unwrap();
    let large = format!("\"{}\"", "x".repeat(100_000));
    service.set_config("a", &large, None).await.unwrap();
    service.stop().await;
    let whole = fs::read(&path).unwrap();

    let mut damaged = whole.clone();
    let half = damaged.len() / 2;
    // Its header is well, and pages are not.
    damaged[4096..half].fill(0xa5);
    let other = {
        let other = folder.path().join("other.sqlite");
        let database = rusqlite::Connection::open(&other).unwrap();
        database
            .execute_batch("CREATE TABLE t (a); PRAGMA user_version = 1")
            .unwrap();
        drop(database);
        fs::read(other).unwrap()
    };
    for (bytes, why) in [
        (&damaged, "damaged"),
        (
            &b"no database at all, but long enough to look at".repeat(30),
            "damaged",
        ),
        (&whole[..5000].to_vec(), "damaged"),
        (&other, "not a file of this program"),
    ] {
        fs::write(&path, bytes).unwrap();
        let refused = open(&path).await.unwrap_err();
        let report = refused.report().to_string();
        assert_eq!(refused.kind(), ErrorKind::InvalidData, "{report}");
        assert!(
            report.contains(why) && report.contains("config.sqlite"),
            "{report}"
        );
        assert_eq!(&fs::read(&path).unwrap(), bytes);
    }
    fs::write(&path, whole).unwrap();
    let service = open(&path).await.unwrap();
    assert_eq!(service.configs("a").await.unwrap()[0].data(), large);
    let nowhere = open(&folder.path().join("no/such/folder"))
        .await
        .unwrap_err();
    assert_eq!(
        nowhere.kind(),
        ErrorKind::Unavailable,
        "{}",
        nowhere.report()
    );
}

#[tokio::test]
async fn a_full_service_refuses_what_it_has_no_room_for_and_goes_on_with_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.sqlite");
    let mut limits = Limits::default();
    limits.stored_bytes = 100_000;
    let (service, address) = started(ConfigService::builder().limits(limits).file(&path)).await;
    service.set_config("a", "1", None).await.unwrap();
    let large = format!("\"{}\"", "x".repeat(60_000));
    service.set_config("b", &large, None).await.unwrap();
    let full = service.set_config("a", &large, None).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Unavailable);
    let mut raw = Raw::connect(address, "a").await;
    let (before, answer) = raw
        .ask("MODULE:SEND_CONFIG_SCHEMA", r#"{"schema":{},"config":{}}"#)
        .await;
    assert_eq!(
        (&*before[0], &*answer),
        ("CONFIG:SEND_CONFIG_WHEN_CONNECTED||0||1", "ok")
    );
    service.delete_module("b").await.unwrap();
    service.set_config("a", &large, None).await.unwrap();
}

#[tokio::test]
async fn a_write_that_fails_is_answered_and_has_a_line_in_the_log() {
    let log = sd_testing::Log::of_the_process();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.sqlite");
    let service = open(&path).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    let admin = sd_cluster::server::Admin::new().token(crate::http::TOKEN);
    service.serve_admin(listener, admin.unwrap()).unwrap();
    fs::rename(&path, folder.path().join("aside")).unwrap();
    let put = "PUT /v1/modules/not-kept/config";
    let failed = crate::http::operate(api, put, "{}").await;
    assert_eq!(failed.status, 503);
    let text = log.text();
    let is = |line: &str| line.contains("not-kept") && line.contains("put it back");
    assert!(text.lines().any(is), "{text}");
}

#[tokio::test]
async fn instances_of_the_last_run_are_listed_until_they_are_back_or_it_takes_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.sqlite");
    let builder = || {
        ConfigService::builder()
            .ping_every(Duration::from_secs(60))
            .file(&path)
    };
    let (service, address) = started(builder()).await;
    let mut there = Vec::new();
    for ip in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        let mut raw = Raw::connect(address, "a").await;
        raw.ready("a", ip).await;
        there.push(raw);
    }
    // One that leaves is not expected back.
    drop(there.pop());
    crate::until(&service, "a", |module| module.connections == 2).await;
    service.stop().await;

    let service = builder()
        .return_within(Duration::from_secs(3))
        .start()
        .await
        .unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let address = service.listen(any).await.unwrap();
    let mut reader = Raw::connect(address, "reader").await;
    let host = |ip: &str| format!(r#"{{"ip":"{ip}","port":"9"}}"#);
    let (first, second) = (host("10.0.0.1"), host("10.0.0.2"));
    let told = reader.follow("a").await;
    assert_eq!(told, format!("a_MODULE_CONNECTED||0||[{second},{first}]"));
    let mut back = Raw::connect(address, "a").await;
    back.ready("a", "10.0.0.1").await;
    let told = reader.message().await;
    assert_eq!(told, format!("a_MODULE_CONNECTED||0||[{first},{second}]"));
    let told = reader.message().await;
    assert_eq!(told, format!("a_MODULE_CONNECTED||0||[{first}]"));
    assert_eq!(service.routes().await.unwrap().len(), 1);
    service.stop().await;
    let (service, _) = started(builder()).await;
    assert_eq!(service.module("a").await.unwrap().instances.len(), 1);
    service.delete_module("a").await.unwrap();
    assert!(service.routes().await.unwrap().is_empty());
}
