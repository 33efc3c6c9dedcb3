//! A service in a process of its own, which is killed.

use std::env;
use std::io::{Read, stdin};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use sd_cluster::server::{Admin, ConfigService};
use sd_testing::Peer;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use crate::http::{TOKEN, operate};
use crate::raw::Raw;
use crate::within;

/// Where the process that is to be killed keeps its file.
const FILE: &str = "SD_TEST_CLUSTER_KILLED_FILE";

/// Does nothing unless another test has started this program for it: then it serves until its standard input ends.
#[tokio::test]
async fn serves_where_another_test_says() {
    let Some(file) = env::var_os(FILE) else {
        return;
    };
    let service = ConfigService::builder().file(file).start().await.unwrap();
    let modules = service
        .listen("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    let admin = Admin::new().token(TOKEN).unwrap();
    service.serve_admin(listener, admin).unwrap();
    println!("\nserving {modules} {api}");
    let ended = spawn_blocking(|| stdin().read_to_end(&mut Vec::new()));
    ended.await.unwrap().unwrap();
}

async fn start(file: &Path) -> (Peer, SocketAddr, SocketAddr) {
    let mut program = Command::new(env::current_exe().unwrap());
    let name = "killed::serves_where_another_test_says";
    program
        .args(["--exact", name, "--nocapture"])
        .env(FILE, file);
    let mut process = Peer::launch(program).unwrap();
    let line = loop {
        let line = within("the process serves", process.line()).await.unwrap();
        if let Some(addresses) = line.strip_prefix("serving ") {
            break addresses.to_owned();
        }
    };
    let (modules, api) = line.split_once(' ').unwrap();
    (process, modules.parse().unwrap(), api.parse().unwrap())
}

#[tokio::test]
async fn what_an_operator_was_told_to_be_written_outlives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.sqlite");
    for round in 1..=3 {
        let (process, modules, api) = start(&file).await;
        let mut raw = Raw::connect(modules, "a").await;
        let default = r#"{"config":{"round":0}}"#;
        let (before, _) = raw.ask("MODULE:SEND_CONFIG_SCHEMA", default).await;
        let last = round - 1;
        assert_eq!(
            before,
            [format!(
                r#"CONFIG:SEND_CONFIG_WHEN_CONNECTED||0||{{"round":{last}}}"#
            )]
        );
        let config = format!(r#"{{"round":{round}}}"#);
        let written = operate(api, "PUT /v1/modules/a/config", &config).await;
        assert_eq!(written.status, 200, "{}", written.body);
        let id = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(id.unwrap(), Signal::KILL).unwrap();
        assert!(within("its end", process.dismiss()).await.is_err());
        // The connection ends with the process.
        while raw.next().await.is_some() {}
    }
}
