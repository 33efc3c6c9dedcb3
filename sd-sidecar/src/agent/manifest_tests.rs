//! Manifests, and every rule that they may break.

use serde_json::{Value, json};

use super::*;

fn document() -> Value {
    json!({
        "schema": "firefly.gateway.manifest.v1",
        "services": [
            {"name": "b.v1.B", "methods": ["/b.v1.B/M"]},
            {"name": "a.v1.A", "methods": ["/a.v1.A/Z", " /a.v1.A/B "]},
        ],
        "routes": [
            {"http_method": "post", "path": "/v1/z", "full_method": "/a.v1.A/Z"},
            {"http_method": "GET", "path": "/v1/b", "full_method": "/a.v1.A/B"},
        ],
    })
}

fn load(text: &str) -> std::result::Result<GatewayManifest, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    GatewayManifest::load(file.path()).map_err(|error| error.to_string())
}

#[test]
fn services_methods_and_routes_are_sorted_and_described() {
    let manifest = load(&document().to_string()).unwrap();
    let methods: Vec<_> = manifest.methods().collect();
    assert_eq!(methods, ["/a.v1.A/B", "/a.v1.A/Z", "/b.v1.B/M"]);
    let node = manifest.node(ServiceOptions::default());
    assert_eq!((node.proto_count, node.methods.len()), (2, 3));
    let routes: Vec<_> = node
        .http_routes
        .iter()
        .map(|r| (r.http_method.as_str(), r.path.as_str()))
        .collect();
    assert_eq!(routes, [("GET", "/v1/b"), ("POST", "/v1/z")]);
}

#[test]
fn routes_may_be_passed_on_to_a_path_or_without_a_prefix() {
    let mut manifest = document();
    manifest["routes"] = json!([
        {"http_method": "GET", "path": "/a", "upstream_path": "/x"},
        {"http_method": "GET", "path": "/b", "strip_prefix": "/b"},
        {"http_method": "PUT", "path": "/b"},
    ]);
    assert_eq!(load(&manifest.to_string()).unwrap().routes().len(), 3);
    manifest["routes"] = json!([]);
    assert!(load(&manifest.to_string()).unwrap().routes().is_empty());
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_rule_is_kept() {
    let route = |route: Value| ("routes", json!([route]));
    for ((field, value), reason) in [
        (("schema", json!("v2")), "validate gateway manifest"),
        (("services", json!([])), "services must not be empty"),
        (
            ("services", json!([{"name": " ", "methods": ["/a/b"]}])),
            "has no name",
        ),
        (
            ("services", json!([{"name": "a", "methods": []}])),
            "service a has no methods",
        ),
        (
            (
                "services",
                json!([{"name": "a", "methods": ["/a/b"]}, {"name": "a", "methods": ["/a/c"]}]),
            ),
            "service a is there twice",
        ),
        (
            (
                "services",
                json!([{"name": "a", "methods": ["/a/b", "/a/b"]}]),
            ),
            "method /a/b is there twice",
        ),
        (
            ("services", json!([{"name": "a", "methods": ["/b/b"]}])),
            "must be /a/ and a name",
        ),
        (
            ("services", json!([{"name": "a", "methods": ["a/b"]}])),
            "must be /a/ and a name",
        ),
        (
            ("services", json!([{"name": "a", "methods": ["/a/"]}])),
            "must be /a/ and a name",
        ),
        (
            ("services", json!([{"name": "a", "methods": ["/a/b/c"]}])),
            "must be /a/ and a name",
        ),
        (("extra", json!(1)), "decode gateway manifest"),
        (
            route(json!({"http_method": "", "path": "/a"})),
            "has no http_method",
        ),
        (
            route(json!({"http_method": "GET", "path": "a"})),
            "path must start with /",
        ),
        (
            route(json!({"http_method": "GET", "path": "/a", "full_method": "/no/x"})),
            "is of no service here",
        ),
        (
            route(
                json!({"http_method": "GET", "path": "/a", "full_method": "/a.v1.A/B", "strip_prefix": "/a"}),
            ),
            "mean nothing",
        ),
        (
            route(
                json!({"http_method": "GET", "path": "/a", "full_method": "/a.v1.A/B", "upstream_path": "/a"}),
            ),
            "mean nothing",
        ),
        (
            route(
                json!({"http_method": "GET", "path": "/a", "upstream_path": "/x", "strip_prefix": "/a"}),
            ),
            "choose one",
        ),
        (
            route(json!({"http_method": "GET", "path": "/a", "upstream_path": "x"})),
            "upstream_path must start with /",
        ),
        (
            route(json!({"http_method": "GET", "path": "/a", "upstream_path": "/x?y"})),
            "upstream_path must start with /",
        ),
        (
            route(json!({"http_method": "GET", "path": "/a", "extra": 1})),
            "decode gateway manifest",
        ),
        (
            (
                "routes",
                json!([{"http_method": "get", "path": "/a"}, {"http_method": "GET", "path": "/a"}]),
            ),
            "route GET /a is there twice",
        ),
        (
            (
                "routes",
                json!([{"http_method": "GET", "path": "/a"}, {"http_method": "GET", "path": "/b", "full_method": "/a.v1.A/B"}]),
            ),
            "must not be mixed",
        ),
    ] {
        let mut manifest = document();
        manifest[field] = value;
        let error = load(&manifest.to_string()).unwrap_err();
        assert!(error.contains(reason), "{error}: {reason}");
    }
}

#[test]
fn what_cannot_be_read_is_named_with_its_path() {
    let error = GatewayManifest::load("").unwrap_err().to_string();
    assert_eq!(error, "gateway manifest path is required");
    let error = GatewayManifest::load("/no/such\u{1b}file")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("read gateway manifest \"/no/such") && !error.contains('\u{1b}'),
        "{error}"
    );
    let error = load(&format!("{}{{}}", document())).unwrap_err();
    assert!(error.starts_with("decode gateway manifest"), "{error}");
}
