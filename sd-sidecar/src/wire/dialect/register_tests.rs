//! Bodies of every generation, and what is wrong with bad ones.

use serde_json::{Value, json};

use super::*;

fn flat() -> Value {
    json!({
        "app_id": "a-1", "app_name": "auth-app", "name": "auth", "namespace": "default",
        "dns": "auth.default.svc.cluster.local", "env": "prod", "protocol": "grpc", "version": "v1.2.0",
        "port": 9090, "weight": 100, "kernel": {"language": "Golang", "version": "v1.4.8"},
        "methods": ["/acme.auth.v1.AuthService/Login"],
    })
}

/// As the second generation sends it.
fn nested() -> Value {
    json!({
        "app": {"id": "a-1", "env": "prod", "name": "auth-app", "secret": "", "version": "v1.2.0", "instance_id": "run-1"},
        "kernel": {"Language": "Golang", "Version": "v1.4.8"},
        "service": {"name": "auth", "type": "svc", "namespace": "default", "cluster_domain": "cluster.local", "port": 80, "weight": 100},
        "protocol": "grpc", "server_port": 9090, "managed_port": 9091,
        "dns": "auth.default.svc.cluster.local:9090", "run_date": "2026-01-02T15:04:05+08:00",
        "proto_count": 1, "methods": ["/acme.auth.v1.AuthService/Login"],
    })
}

fn parse(body: &Value) -> Result<Register, String> {
    Register::parse(body.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// The body with the value at a JSON pointer replaced, or removed.
fn with(mut body: Value, pointer: &str, value: Option<Value>) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(field.to_owned(), value),
        None => parent.remove(field),
    };
    body
}

#[test]
fn every_generation_describes_the_same_service() {
    let flat = parse(&flat()).unwrap();
    let second = parse(&nested()).unwrap();
    let third = with(
        nested(),
        "/dns",
        Some(json!("auth.default.svc.cluster.local")),
    );
    assert_eq!(parse(&third).unwrap(), second);
    let routes = json!([{"http_method": "POST", "path": "/v1/login", "full_method": "/acme.auth.v1.AuthService/Login"}]);
    let fourth = parse(&with(nested(), "/http_routes", Some(routes))).unwrap();
    assert_eq!(fourth.http_routes[0].path, "/v1/login");
    assert_eq!(
        Register {
            http_routes: Vec::new(),
            ..fourth
        },
        second
    );
    assert_eq!(
        Register {
            app_instance_id: String::new(),
            run_date: String::new(),
            ..second
        },
        flat
    );
    assert_eq!(flat.dns, "auth.default.svc.cluster.local");
    assert_eq!((flat.port, flat.weight), (9090, 100));
}

#[test]
fn a_body_that_is_flat_and_nested_counts_as_nested() {
    let mut both = flat();
    let nested = nested();
    for (field, value) in nested.as_object().unwrap() {
        both[field] = value.clone();
    }
    assert_eq!(parse(&both), parse(&nested));
    // No object is no nested part.
    let read = parse(&with(flat(), "/service", Some(Value::Null))).unwrap();
    assert_eq!(read.app_instance_id, "");
}

#[test]
fn a_nested_body_without_port_or_weight_has_those_of_its_service() {
    let body = with(nested(), "/server_port", None);
    assert_eq!(parse(&body).unwrap().port, 80);
    let body = with(nested(), "/service/weight", Some(json!(0)));
    assert_eq!(parse(&body).unwrap().weight, 100);
}

#[test]
fn the_reference_systems_words_say_which_field_is_missing() {
    let strings = [
        "app_id",
        "app_name",
        "name",
        "namespace",
        "dns",
        "env",
        "protocol",
        "version",
        "kernel/language",
        "kernel/version",
    ];
    check_required(&flat(), &strings);
    let strings = [
        "app/id",
        "app/instance_id",
        "app/name",
        "app/env",
        "app/version",
        "kernel/Language",
        "kernel/Version",
        "service/name",
        "service/namespace",
        "protocol",
        "dns",
    ];
    check_required(&nested(), &strings);
    // Of several, always the same.
    assert_eq!(parse(&json!({})).unwrap_err(), "app_id is required");
    assert_eq!(
        parse(&json!({"app": {}})).unwrap_err(),
        "app.id is required"
    );
}

fn check_required(body: &Value, fields: &[&str]) {
    for field in fields {
        for value in [None, Some(json!(" \t"))] {
            let error = parse(&with(body.clone(), &format!("/{field}"), value)).unwrap_err();
            let name = field.to_lowercase().replace('/', ".");
            assert_eq!(error, format!("{name} is required"));
        }
    }
}

#[test]
fn the_reference_systems_words_say_what_is_wrong_with_a_number_or_a_method() {
    for (pointer, value, error) in [
        ("/port", json!(0), "port is invalid: 0"),
        ("/port", json!(70000), "port is invalid: 70000"),
        ("/port", json!(-1), "port is invalid: -1"),
        ("/weight", json!(0), "weight must be greater than zero"),
        ("/weight", json!(-5), "weight must be greater than zero"),
        (
            "/weight",
            json!(70000),
            "weight is invalid: 70000: at most 65535",
        ),
        ("/methods", json!([]), "methods must not be empty"),
        ("/methods", Value::Null, "methods must not be empty"),
        ("/methods", json!(["Login"]), "method is invalid: Login"),
        ("/methods", json!(["/a/b", ""]), "method is invalid: "),
        (
            "/methods",
            json!(["/a/b,/c/d"]),
            "method is invalid: /a/b,/c/d",
        ),
        ("/name", json!("x".repeat(129)), ""),
    ] {
        let body = with(flat(), pointer, Some(value));
        match parse(&body) {
            Err(said) => assert_eq!(said, error),
            Ok(read) => {
                let said = read.declaration().unwrap_err().to_string();
                assert!(
                    said.starts_with("name: ") && said.contains("at most 128"),
                    "{said}"
                );
            }
        }
    }
    for (pointer, value, error) in [
        ("/port", json!("9090"), "port: invalid type"),
        (
            "/kernel/language",
            json!(1),
            "kernel.language: invalid type",
        ),
        ("/methods", json!("/a/b"), "methods: invalid type"),
        ("/service", json!([]), "service: invalid type"),
    ] {
        let said = parse(&with(flat(), pointer, Some(value))).unwrap_err();
        assert!(said.starts_with(error), "{said}");
    }
}

#[test]
fn methods_are_kept_trimmed_sorted_and_each_once() {
    let methods = json!(["/b.S/M", " /a.S/M ", "/b.S/M", "/b.S/L"]);
    let read = parse(&with(flat(), "/methods", Some(methods))).unwrap();
    assert!(read.methods.iter().eq(["/a.S/M", "/b.S/L", "/b.S/M"]));
    assert!(read.route_prefixes().iter().eq(["/a.S/", "/b.S/"]));
}

#[test]
fn a_declaration_has_all_that_was_sent_and_gives_it_back() {
    let methods: Vec<String> = (0..100).map(|n| format!("/acme.auth.v1.S{n}/M")).collect();
    let body = with(nested(), "/methods", Some(json!(methods)));
    let routes = json!([
        {"http_method": "POST", "path": "/v1/login", "full_method": "/acme.auth.v1.S1/M"},
        {"http_method": "GET", "path": "/v1/me", "upstream_path": "/me,\n"},
    ]);
    let read = parse(&with(body, "/http_routes", Some(routes))).unwrap();
    let declaration = read.declaration().unwrap();
    assert_eq!(declaration.port, Some(9090));
    assert_eq!(declaration.app.as_ref().unwrap().app_instance_id, "run-1");
    assert_eq!(declaration.metadata["namespace"], "default");
    assert_eq!(declaration.metadata["weight"], "100");
    assert!(declaration.metadata["route_prefixes"].starts_with("/acme.auth.v1.S0/,"));
    assert!(
        declaration
            .metadata
            .values()
            .all(|value| value.len() <= 512)
    );
    assert_eq!(Register::of(&declaration), read);
    // The body of the agent's own requests holds it as well.
    let json = serde_json::to_string(&declaration).unwrap();
    assert_eq!(
        serde_json::from_str::<Declaration>(&json).unwrap(),
        declaration
    );
}

#[test]
fn a_secret_is_never_read() {
    let body = with(nested(), "/app/secret", Some(json!("hunter2")));
    assert!(!format!("{:?}", parse(&body).unwrap()).contains("hunter2"));
}
