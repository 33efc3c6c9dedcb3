//! No secret reaches a log.

use sd_cluster::server::Variable;
use sd_testing::Log;

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
    assert!(!text.contains(SECRET), "{text}");
}
