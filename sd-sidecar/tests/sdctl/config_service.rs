//! `sdctl config-service`, at a service in this process.

use std::net::SocketAddr;
use std::process::Output;

use sd_cluster::server::{Admin, ConfigService};
use serde_json::json;
use tokio::net::TcpListener;

use crate::running::{command, failure};

const TOKEN: &str = "0123456789abcdef";

async fn service() -> (ConfigService, SocketAddr) {
    let service = ConfigService::builder().start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    let admin = Admin::new().token(TOKEN).unwrap();
    service.serve_admin(listener, admin).unwrap();
    (service, api)
}

async fn sdctl(api: SocketAddr, token: &str, arguments: &[&str]) -> Output {
    let service = format!("http://{api}");
    let arguments = [&["config-service"], arguments, &["--service", &service]].concat();
    let mut command = command("", &arguments);
    command.env("SDCTL_CONFIG_SERVICE_TOKEN", token);
    command.output().await.unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn a_configuration_is_set_from_a_file_printed_and_written_over_the_version_that_was_read() {
    let (service, api) = service().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.json");
    let config = "{\n  \"limit\": 10\n}";
    std::fs::write(&file, config).unwrap();
    let file = file.to_str().unwrap();
    // A name that a path has no room for as it is.
    let module = "a/b c";
    let set = sdctl(api, TOKEN, &["set", module, file, "--over", "0"]).await;
    let first = "it is the first one: no module of this name has connected and sent its default\n";
    assert_eq!(
        text(&set),
        format!("a/b c has version 1 of its configuration\n{first}")
    );
    assert_eq!(service.configs(module).await.unwrap()[0].data(), config);
    let get = sdctl(api, TOKEN, &["get", module]).await;
    assert_eq!(text(&get), format!("{config}\n"));
    let json_of =
        |output: &Output| serde_json::from_str::<serde_json::Value>(&text(output)).unwrap();
    let get = sdctl(api, TOKEN, &["get", module, "--json"]).await;
    assert_eq!(
        json_of(&get),
        json!({"version": 1, "config": {"limit": 10}})
    );
    let forced = sdctl(api, TOKEN, &["set", "free", file, "--force"]).await;
    assert_eq!(
        text(&forced),
        format!("free has version 1 of its configuration\n{first}")
    );
    std::fs::write(file, "{}").unwrap();
    let second = sdctl(api, TOKEN, &["set", "free", file]).await;
    assert_eq!(text(&second), "free has version 2 of its configuration\n");
    let modules = sdctl(api, "", &["modules"]).await;
    assert!(text(&modules).contains("a/b c"), "{modules:?}");
    let modules = sdctl(api, "", &["modules", "--json"]).await;
    assert_eq!(json_of(&modules)[0]["config_version"], 1);

    for (token, arguments, status, why) in [
        (
            TOKEN,
            &["set", module, file, "--over", "0"][..],
            2,
            "the newest version is 1",
        ),
        (TOKEN, &["set", module, "/dev/null"], 2, "it is no JSON"),
        (TOKEN, &["set", module, "no/such/file"], 2, "cannot read"),
        (TOKEN, &["get", "unknown"], 5, "refuses"),
        ("", &["get", module], 6, "Authorization"),
        ("", &["set", module, file], 6, "Authorization"),
    ] {
        let output = sdctl(api, token, arguments).await;
        let line = failure(&output);
        assert!(line.contains(why), "{arguments:?}: {line}");
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {line}");
    }
    service.stop().await;
    let gone = sdctl(api, TOKEN, &["modules"]).await;
    assert_eq!(gone.status.code(), Some(3), "{gone:?}");
}
