//! What `POST /register` may hold.

use crate::wire::go_json::{List, go_struct};

go_struct! {
    /// All that any generation sends. Of the flat body and the nested one, `weight` and the like differ in their place.
    pub(super) struct Body {
        app_id: String,
        app_name: String,
        name: String,
        namespace: String,
        dns: String,
        env: String,
        protocol: String,
        version: String,
        port: i64,
        weight: i64,
        kernel: KernelBody,
        methods: List<String>,
        app: Nested<AppBody>,
        service: Nested<ServiceBody>,
        server_port: i64,
        ready: Ready,
        run_date: String,
        http_routes: List<RouteBody>,
    }
}

go_struct! {
    pub(super) struct AppBody {
        id: String,
        name: String,
        env: String,
        version: String,
        instance_id: String,
    }
}

go_struct! {
    pub(super) struct ServiceBody {
        name: String,
        namespace: String,
        port: i64,
        weight: i64,
    }
}

go_struct! {
    pub(super) struct KernelBody {
        language: String,
        version: String,
    }
}

go_struct! {
    pub(super) struct RouteBody {
        http_method: String,
        path: String,
        full_method: String,
        upstream_path: String,
        strip_prefix: String,
    }
}

/// Only clients of ours say it.
pub(super) struct Ready(pub(super) bool);

impl Default for Ready {
    fn default() -> Self {
        Self(true)
    }
}

impl<'de> serde::Deserialize<'de> for Ready {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bool::deserialize(deserializer).map(Self)
    }
}

/// An object that makes a body a nested one by being there.
pub(super) struct Nested<T>(pub(super) Option<T>);

impl<T> Default for Nested<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: serde::Deserialize<'de>> serde::Deserialize<'de> for Nested<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|value| Self(Some(value)))
    }
}
