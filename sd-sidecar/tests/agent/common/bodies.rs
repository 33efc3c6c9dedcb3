//! Bodies as clients of the reference system send them.

use serde_json::{Value, json};

/// What a client of the first generation registers.
pub(crate) fn flat(name: &str, port: u16) -> Value {
    json!({
        "app_id": "a-1", "app_name": "auth-app", "name": name, "namespace": "default",
        "dns": format!("{name}.default.svc.cluster.local"), "env": "prod", "protocol": "grpc",
        "version": "v1.2.0", "port": port, "weight": 100,
        "kernel": {"language": "Golang", "version": "v1.4.8"},
        "methods": ["/acme.auth.v1.AuthService/Login", "/acme.auth.v1.AuthService/Logout"],
    })
}

/// What a client of the second generation registers for one run of its application. Those after it send the same without a port in `dns`.
pub(crate) fn nested(name: &str, port: u16, run: &str) -> Value {
    json!({
        "app": {
            "id": "a-1", "env": "prod", "name": "auth-app", "secret": "", "version": "v1.2.0",
            "instance_id": run,
        },
        "kernel": {"Language": "Golang", "Version": "v1.4.8"},
        "service": {
            "name": name, "type": "svc", "namespace": "default", "cluster_domain": "cluster.local",
            "port": 9090, "weight": 100,
        },
        "protocol": "grpc", "server_port": port, "managed_port": 9091,
        "dns": format!("{name}.default.svc.cluster.local:{port}"),
        "run_date": "2026-01-02T15:04:05+08:00", "proto_count": 1,
        "methods": ["/acme.auth.v1.AuthService/Login"],
    })
}
