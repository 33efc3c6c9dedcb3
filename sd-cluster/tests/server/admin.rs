//! The API for operators.

use std::net::SocketAddr;

use sd_cluster::server::{Admin, ConfigService};
use sd_testing::Log;
use serde_json::json;
use tokio::net::TcpListener;

use crate::http::{TOKEN, ask, operate};
use crate::raw::Raw;
use crate::service;

async fn administered(admin: Admin) -> (ConfigService, SocketAddr, SocketAddr) {
    let (service, address) = service().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    service.serve_admin(listener, admin).unwrap();
    (service, address, api)
}

async fn with_token() -> (ConfigService, SocketAddr, SocketAddr) {
    administered(Admin::new().token(TOKEN).unwrap()).await
}

#[tokio::test]
async fn an_operator_looks_at_modules_and_changes_a_configuration_that_the_module_gets() {
    let (_service, address, api) = with_token().await;
    let mut raw = Raw::connect(address, "a").await;
    raw.ask(
        "MODULE:SEND_CONFIG_SCHEMA",
        r#"{"version":"7","schema":{"s":1},"config":{"b":1}}"#,
    )
    .await;
    raw.ready("a", "10.0.0.1").await;

    let modules = ask(api, "GET /v1/modules", "", "").await.json();
    assert_eq!(modules[0]["name"], "a");
    assert_eq!(modules[0]["config_version"], 1);
    assert_eq!(modules[0]["schema_version"], "7");
    assert_eq!(modules[0]["instances"][0]["host"], "10.0.0.1");
    let routes = ask(api, "GET /v1/routes", "", "").await.json();
    assert_eq!(routes[0]["transport"], "grpc");

    let config = operate(api, "GET /v1/modules/a/config", "").await;
    assert_eq!((config.status, &*config.body), (200, r#"{"b":1}"#));
    assert!(
        config.head.to_lowercase().contains("etag: \"1\""),
        "{}",
        config.head
    );
    let schema = operate(api, "GET /v1/modules/a/schema", "").await;
    assert_eq!(schema.body, r#"{"s":1}"#);

    let put = "PUT /v1/modules/a/config";
    let written = operate(api, put, r#"{ "b": 2 }"#).await.json();
    assert_eq!(written, json!({"version": 2}));
    assert_eq!(
        raw.message().await,
        r#"CONFIG:SEND_CONFIG_CHANGED||0||{ "b": 2 }"#
    );
    let stale = format!("Authorization: Bearer {TOKEN}\r\nIf-Match: \"1\"\r\n");
    let conflict = ask(api, put, &stale, "{}").await;
    assert_eq!(conflict.status, 409);
    assert!(
        conflict.body.contains("the newest version is 2"),
        "{}",
        conflict.body
    );
    let wrong = operate(api, put, "{").await;
    assert_eq!(wrong.status, 400);
    let versions = operate(api, "GET /v1/modules/a/config/versions", "")
        .await
        .json();
    assert_eq!(
        (&versions[0]["version"], &versions[1]["data"]),
        (&json!(2), &json!(r#"{"b":1}"#))
    );

    let schema = r#"{"schema":{"properties":{"b":{"maximum":5}}}}"#;
    raw.ask("MODULE:SEND_CONFIG_SCHEMA", schema).await;
    let unfit = operate(api, put, r#"{"b":9}"#).await;
    assert_eq!(unfit.status, 400);
    assert!(unfit.body.contains("b is more than 5"), "{}", unfit.body);
    let forced = format!("{put}?force=true");
    assert_eq!(operate(api, &forced, r#"{"b":9}"#).await.status, 200);
    assert!(raw.message().await.contains(r#"{"b":9}"#));
    let back = operate(api, put, r#"{ "b": 2 }"#).await;
    assert_eq!(back.status, 200);
    assert!(raw.message().await.contains("\"b\": 2"));

    assert_eq!(
        operate(api, "POST /v1/modules/a/config/resend", "")
            .await
            .status,
        204
    );
    assert!(raw.message().await.contains("\"b\": 2"));
    assert_eq!(operate(api, "DELETE /v1/modules/a", "").await.status, 409);
    for unknown in [
        "GET /v1/modules/b",
        "GET /v1/modules/b/config",
        "GET /",
        "PATCH /v1/modules/a",
    ] {
        assert_eq!(operate(api, unknown, "").await.status, 404, "{unknown}");
    }
}

#[tokio::test]
async fn variables_are_written_and_a_secret_one_is_shown_to_no_operator() {
    let (_service, address, api) = with_token().await;
    let secret = r#"{"kind":"SECRET","value":"sesame","description":"of the database"}"#;
    assert_eq!(
        operate(api, "PUT /v1/variables/pass%20word", secret)
            .await
            .status,
        204
    );
    let mut raw = Raw::connect(address, "a").await;
    let (before, _) = raw
        .ask(
            "MODULE:SEND_CONFIG_SCHEMA",
            r#"{"config":{"p":"_Var(pass word)"}}"#,
        )
        .await;
    assert_eq!(
        before,
        [r#"CONFIG:SEND_CONFIG_WHEN_CONNECTED||0||{"p":"sesame"}"#]
    );
    let shown = operate(api, "GET /v1/variables", "").await;
    assert!(!shown.body.contains("sesame"), "{}", shown.body);
    assert_eq!(shown.json()[0]["used_by"], json!(["a"]));
    assert_eq!(
        operate(api, "DELETE /v1/variables/pass%20word", "")
            .await
            .status,
        409
    );
    for wrong in [
        r#"{"kind":"SECRET","value":7}"#,
        r#"{"kind":"OTHER","value":"sesame"}"#,
        "sesame",
    ] {
        let answer = operate(api, "PUT /v1/variables/x", wrong).await;
        assert_eq!(answer.status, 400);
        assert!(!answer.body.contains("sesame"), "{}", answer.body);
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_the_limit_and_each_change_has_a_line_in_the_log() {
    let log = Log::of_the_process();
    let (service, _, api) = with_token().await;
    let large = format!("\"{}\"", "x".repeat(4 << 20));
    let refused = operate(api, "PUT /v1/modules/logged/config", &large).await;
    assert_eq!(refused.status, 413);
    assert!(
        refused.body.contains("more than 4193280 bytes"),
        "{}",
        refused.body
    );
    operate(api, "PUT /v1/modules/logged/config", r#"{"a":"planted"}"#).await;
    operate(
        api,
        "PUT /v1/modules/logged/config?force=true",
        r#"["planted"]"#,
    )
    .await;
    operate(
        api,
        "PUT /v1/variables/logged-too",
        r#"{"kind":"TEXT","value":"planted"}"#,
    )
    .await;
    operate(api, "PUT /v1/modules/logged/config", r#"{"planted""#).await;
    operate(api, "DELETE /v1/variables/logged-too", "").await;
    operate(api, "DELETE /v1/modules/logged", "").await;
    service.stop().await;
    let text = log.text();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("logged"))
        .collect();
    for (part, other) in [
        ("sets the configuration of a module", "1"),
        ("sets the configuration of a module by force", "2"),
        (
            "sets the configuration of a module, which is refused",
            "InvalidInput",
        ),
        ("sets a variable", "\"logged-too\""),
        ("deletes a variable", "\"logged-too\""),
        ("deletes a module", "\"logged\""),
    ] {
        let is = |line: &&&str| {
            line.contains(part) && line.contains("127.0.0.1") && line.ends_with(other)
        };
        assert!(lines.iter().any(|line| is(&line)), "{part}: {lines:#?}");
    }
    assert!(
        !lines.iter().any(|line| line.contains("planted")),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn without_the_token_modules_can_be_looked_at_and_nothing_else() {
    for (admin, status) in [
        (Admin::new(), 403),
        (Admin::new().token(TOKEN).unwrap(), 401),
    ] {
        let (service, _, api) = administered(admin).await;
        service
            .set_config("a", r#"{"password":"sesame"}"#, None)
            .await
            .unwrap();
        for request in [
            "GET /v1/modules",
            "GET /v1/modules/a",
            "GET /v1/routes",
            "GET /internal/metrics/autodiscovery",
        ] {
            let answer = ask(api, request, "", "").await;
            assert_eq!(answer.status, 200, "{request}");
            assert!(!answer.body.contains("sesame"), "{}", answer.body);
        }
        for request in [
            "GET /v1/modules/a/config",
            "GET /v1/modules/a/config/versions",
            "GET /v1/modules/a/schema",
            "PUT /v1/modules/a/config",
            "DELETE /v1/modules/a",
            "GET /v1/variables",
            "PUT /v1/variables/v",
        ] {
            let answer = ask(api, request, "", "{}").await;
            assert_eq!(answer.status, status, "{request}");
        }
        assert_eq!(service.configs("a").await.unwrap().len(), 1);
        let page = ask(api, "GET /v1/modules", "Origin: http://elsewhere\r\n", "").await;
        assert_eq!(page.status, 403);
    }
    let (service, _) = service().await;
    let everywhere = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = service.serve_admin(everywhere, Admin::new()).unwrap_err();
    assert_eq!(refused.kind(), sd_core::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn targets_of_metrics_are_listed_by_module_as_prometheus_reads_them() {
    let (_service, address, api) = with_token().await;
    let mut modules = Vec::new();
    for (name, metrics) in [
        ("b", r#"{"address":"b:1","labels":{"app":"b"}}"#),
        ("a", r#"{"address":"a:1"}"#),
        ("c", "null"),
    ] {
        let mut raw = Raw::connect(address, name).await;
        let declared = format!(
            r#"{{"moduleName":"{name}","address":{{"ip":"h","port":"9"}},"metricsAutodiscovery":{metrics}}}"#
        );
        assert_eq!(raw.ask("MODULE:READY", &declared).await.1, "ok");
        modules.push(raw);
    }
    let targets = ask(api, "GET /internal/metrics/autodiscovery", "", "")
        .await
        .json();
    assert_eq!(
        targets,
        json!([{"targets": ["a:1"], "labels": {}}, {"targets": ["b:1"], "labels": {"app": "b"}}])
    );
}
