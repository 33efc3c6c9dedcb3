//! The bytes of each generation.

use super::*;
use crate::wire::dialect::{Deregister, Drain, Register, Target};
use crate::wire::{AppInstance, Service, ServiceOptions};

/// What the golden bodies describe.
fn node() -> ServiceNode {
    let options = ServiceOptions {
        app: App {
            id: "a-1".into(),
            env: "prod".into(),
            name: "auth-app".into(),
            version: "v1.2.0".into(),
            instance_id: "0190aaaa".into(),
        },
        kernel: Kernel {
            language: "Golang".into(),
            version: "v1.4.8".into(),
        },
        service: Service {
            name: "auth".into(),
            ..Service::default()
        },
        protocol: "grpc".into(),
        server_port: 9090,
        managed_port: 9091,
    };
    let methods = ["/acme.auth.v1.AuthService/Login".to_owned()];
    ServiceNode {
        run_date: "2026-01-02T15:04:05+08:00".into(),
        ..ServiceNode::new(options, methods)
    }
}

fn with_route() -> ServiceNode {
    node().with_http_routes(vec![HttpRoute {
        http_method: "POST".into(),
        path: "/v1/login".into(),
        full_method: "/acme.auth.v1.AuthService/Login".into(),
        ..HttpRoute::default()
    }])
}

fn register(node: &ServiceNode, dialect: Dialect) -> String {
    String::from_utf8(node.register_body(dialect)).unwrap()
}

#[test]
fn each_generation_registers_with_its_bytes() {
    let node = with_route();
    for (dialect, golden) in [
        (Dialect::G1, include_str!("golden/register-g1.json")),
        (Dialect::G2, include_str!("golden/register-g2.json")),
        (Dialect::G3, include_str!("golden/register-g3.json")),
        (Dialect::G4, include_str!("golden/register-g4.json")),
        (Dialect::Union, include_str!("golden/register-union.json")),
    ] {
        assert_eq!(register(&node, dialect), golden.trim_end(), "{dialect:?}");
        Register::parse(golden.as_bytes()).unwrap();
    }
}

#[test]
fn each_generation_leaves_with_its_bytes() {
    let node = node();
    let ids = r#""app_id":"a-1","app_instance_id":"0190aaaa""#;
    let all =
        format!(r#"{ids},"service_name":"auth","service_port":9090,"name":"auth","port":9090"#);
    for (dialect, drain, deregister) in [
        (
            Dialect::G1,
            r#"{"name":"auth","port":9090,"grace_period":"20s"}"#.to_owned(),
            r#"{"name":"auth","port":9090}"#.to_owned(),
        ),
        (
            Dialect::G2,
            format!(r#"{{{ids},"service_name":"auth","grace_period":"20s"}}"#),
            format!(r#"{{{ids},"service_name":"auth","service_port":9090}}"#),
        ),
        (
            Dialect::G3,
            format!(r#"{{{ids},"grace_period":"20s"}}"#),
            format!("{{{ids}}}"),
        ),
        (
            Dialect::G4,
            format!(r#"{{{ids},"grace_period":"20s"}}"#),
            format!("{{{ids}}}"),
        ),
        (
            Dialect::Union,
            format!(r#"{{{all},"grace_period":"20s"}}"#),
            format!("{{{all}}}"),
        ),
    ] {
        let sent = node.drain_body(dialect, "20s");
        assert_eq!(String::from_utf8_lossy(&sent), drain, "{dialect:?}");
        Drain::parse(&sent).unwrap();
        let sent = node.deregister_body(dialect);
        assert_eq!(String::from_utf8_lossy(&sent), deregister, "{dialect:?}");
        Deregister::parse(&sent).unwrap();
    }
}

#[test]
fn the_union_is_read_alike_by_flat_and_by_nested_readers() {
    let node = node();
    let nested = Register::parse(&node.register_body(Dialect::Union)).unwrap();
    assert_eq!(
        nested,
        Register::parse(&node.register_body(Dialect::G2)).unwrap()
    );
    let flat = Register::parse(&node.register_body(Dialect::G1)).unwrap();
    assert_eq!(
        flat,
        Register {
            app_instance_id: String::new(),
            run_date: String::new(),
            ..nested
        }
    );
    let target = Deregister::parse(&node.deregister_body(Dialect::Union))
        .unwrap()
        .target;
    assert_eq!(
        target,
        Target::App {
            app: AppInstance {
                app_id: "a-1".into(),
                app_instance_id: "0190aaaa".into(),
            },
            service: Some("auth".into()),
            port: Some(9090),
        }
    );
}

#[test]
fn a_service_that_wants_no_calls_says_so_in_the_union_alone() {
    let mut node = node();
    assert!(
        Register::parse(&node.register_body(Dialect::Union))
            .unwrap()
            .ready
    );
    node.ready = false;
    let read = Register::parse(&node.register_body(Dialect::Union)).unwrap();
    assert!(!read.ready && !read.declaration().unwrap().ready);
    assert_eq!(Register::of(&read.declaration().unwrap()), read);
    assert!(
        Register::parse(&node.register_body(Dialect::G4))
            .unwrap()
            .ready
    );
}

#[test]
fn what_go_escapes_is_escaped() {
    let mut node = node();
    node.options.app.name = "a<b>&\u{2028}\"\u{1}ü".into();
    let body = register(&node, Dialect::G1);
    assert!(
        body.contains(r#""app_name":"a\u003cb\u003e\u0026\u2028\"\u0001ü""#),
        "{body}"
    );
}

#[test]
fn a_process_without_methods_sends_an_empty_list() {
    let node = ServiceNode::new(node().options, []);
    for dialect in [Dialect::G1, Dialect::G2, Dialect::Union] {
        assert!(register(&node, dialect).contains(r#""methods":[]"#));
    }
    assert_eq!(
        node.validate().unwrap_err().to_string(),
        "methods must not be empty"
    );
}
