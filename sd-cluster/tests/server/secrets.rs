//! No secret reaches a log.

use sd_cluster::server::{Admin, Variable};
use sd_testing::Log;
use tokio::net::TcpListener;

use crate::http::{TOKEN, operate};
use crate::raw::Raw;
use crate::service;

#[tokio::test]
async fn nothing_of_a_configuration_a_schema_or_a_variable_is_logged() {
    const SECRET: &str = "hunter2-sesame";
    let log = Log::of_the_process();
    let (service, address) = service().await;
    service
        .set_variable("v", Variable::secret(SECRET))
        .await
        .unwrap();
    let mut raw = Raw::connect(address, "secretive").await;
    let sent = format!(
        r#"{{"schema":{{"default":"{SECRET}"}},"config":{{"a":"{SECRET}","b":"_Var(v)"}}}}"#
    );
    let (before, answer) = raw.ask("MODULE:SEND_CONFIG_SCHEMA", &sent).await;
    assert!(before[0].contains(SECRET) && answer == "ok");
    for (event, data) in [
        ("MODULE:SEND_CONFIG_SCHEMA", format!("\"{SECRET}\"")),
        ("MODULE:READY", format!(r#"{{"version":["{SECRET}"]}}"#)),
        ("Unknown", SECRET.to_owned()),
    ] {
        raw.ask(event, &data).await;
    }
    raw.text(format!("malformed {SECRET}")).await;
    let config = format!(r#"{{"password":"{SECRET}"}}"#);
    service
        .set_config("secretive", &config, None)
        .await
        .unwrap();
    assert!(raw.message().await.contains(SECRET));
    let refused = service
        .set_config("secretive", &format!("{{\"a\":\"{SECRET}\""), None)
        .await;
    let report = refused.unwrap_err().report().to_string();
    assert!(!report.contains(SECRET), "{report}");
    // In each error of an operator, too, also where the value comes from a variable.
    let schema = format!(
        r#"{{"schema":{{"properties":{{"a":{{"enum":["{SECRET}-2"]}},"b":{{"type":"null"}}}}}}}}"#
    );
    raw.ask("MODULE:SEND_CONFIG_SCHEMA", &schema).await;
    for config in [
        format!(r#"{{"a":"{SECRET}"}}"#),
        r#"{"b":"_Var(v)"}"#.to_owned(),
        format!(r#"{{"b":"_ToInt({SECRET})"}}"#),
    ] {
        let refused = service.set_config("secretive", &config, None).await;
        let report = refused.unwrap_err().report().to_string();
        assert!(report.contains("schema"), "{report}");
        assert!(!report.contains(SECRET), "{report}");
    }
    let large = format!(r#"{{"version":"{SECRET}{}"}}"#, "x".repeat(64 << 10));
    raw.ask("MODULE:READY", &large).await;
    let body = format!(r#"{{"kind":"TEXT","value":["{SECRET}"]}}"#);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    let admin = Admin::new().token(TOKEN).unwrap();
    service.serve_admin(listener, admin).unwrap();
    for (request, body) in [
        ("PUT /v1/variables/v", &*body),
        ("PUT /v1/modules/secretive/config", &*format!("\"{SECRET}")),
        (
            "PUT /v1/modules/secretive/config",
            &*format!(r#"{{"a":"{SECRET}"}}"#),
        ),
    ] {
        let refused = operate(api, request, body).await;
        assert_eq!(refused.status, 400, "{}", refused.body);
        assert!(!refused.body.contains(SECRET), "{}", refused.body);
    }
    let shown = format!(
        "{:?} {:?}",
        service,
        service.configs("secretive").await.unwrap()
    );
    assert!(!shown.contains(SECRET), "{shown}");
    service.stop().await;
    let text = log.text();
    assert!(
        text.contains("a module is refused"),
        "nothing is logged at all"
    );
    for secret in [SECRET, TOKEN] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn a_peer_that_sends_nonsense_under_a_long_name_does_not_fill_the_log() {
    const BYTES: usize = 4242;
    let log = Log::of_the_process();
    let (service, address) = service().await;
    let name = "q".repeat(5000);
    let mut raw = Raw::connect(address, &name).await;
    for _ in 0..30 {
        raw.text("x".repeat(BYTES)).await;
        raw.ask("MODULE:READY", "nonsense").await;
    }
    service.stop().await;
    let text = log.text();
    assert!(text.contains("qqq") && !text.contains(&name[..300]));
    let warnings = text.lines().filter(|line| line.contains("WARN"));
    let (malformed, refused): (Vec<_>, Vec<_>) = warnings
        .filter(|line| line.contains("malformed") || line.contains("qqq"))
        .partition(|line| line.contains("malformed"));
    let of_this = |line: &&&str| line.contains(&BYTES.to_string());
    let malformed = malformed.iter().filter(of_this).count();
    assert_eq!((malformed, refused.len()), (10, 10));
}
