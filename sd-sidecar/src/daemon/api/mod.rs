//! The agent's HTTP API. It knows nothing of listeners, TLS and tokens: what serves it tells it who asks, with a
//! [`Caller`](crate::daemon::registrations::Caller) in each request's extensions.
//!
//! | path | what it does | file |
//! |---|---|---|
//! | `/v1/registrations…` | declares, shows, drains and withdraws registrations | `registrations.rs` |
//! | `/v1/services`, `/v1/services/{name}` | shows what is registered, also as a long poll | `services.rs` |
//! | `/v1/services/{name}/events` | streams a service, from `feeds.rs` | `service_events.rs` |
//! | `/register`, `/drain`, `/deregister`, `/debug/…` | the reference system's API, in all of its dialects | `legacy.rs` |
//! | `/watch` | the reference system's stream of the agent itself | `watch.rs` |
//! | `/healthz`, `/readyz` | probes | `probes.rs` |

mod asked;
mod body;
mod config;
mod entry_view;
mod failure;
mod feeds;
mod json;
mod legacy;
mod parts;
mod plain_words;
mod probes;
mod recent_changes;
mod registrations;
mod service_events;
mod services;
mod streams;
mod view;
mod wanted;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode, Uri};
use sd_core::Registry;
use serde::Serialize;
use tokio::sync::watch::Receiver;
use uuid::Uuid;

pub(in crate::daemon) use self::body::{parse_or_default, read as read_body};
pub use self::config::ApiConfig;
pub(in crate::daemon) use self::failure::Failure;
use self::failure::JSON;
use self::feeds::Feeds;
use self::probes::RecentHealth;
use self::streams::Streams;
use super::lifecycle::Lifecycle;
use super::registrations::Registrations;

/// What the API needs of the agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ApiState {
    registrations: Registrations,
    registry: Registry,
    lifecycle: Receiver<Lifecycle>,
    config: Arc<ApiConfig>,
    name: Arc<AgentName>,
    feeds: Feeds,
    streams: Streams,
    health: RecentHealth,
}

/// How the agent is called in the reference system's replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentName {
    /// The same after each start: `<cluster>:<zone>:<address of the host>` there.
    pub id: String,
    /// Another one after each start.
    pub run_id: String,
}

impl Default for AgentName {
    fn default() -> Self {
        Self {
            id: "sd-agent".to_owned(),
            run_id: Uuid::now_v7().to_string(),
        }
    }
}

impl ApiState {
    /// An API over these registrations and their registry.
    pub fn new(
        registrations: Registrations,
        lifecycle: Receiver<Lifecycle>,
        config: ApiConfig,
    ) -> Self {
        let registry = registrations.registry().clone();
        Self {
            feeds: Feeds::new(registry.clone(), &config),
            streams: Streams::new(&config),
            health: RecentHealth::default(),
            registry,
            registrations,
            lifecycle,
            config: Arc::new(config),
            name: Arc::default(),
        }
    }

    /// How many streams and long polls are open.
    pub fn open_streams(&self) -> usize {
        self.streams.count()
    }

    /// Says how the agent is called. By default `sd-agent`, and a random name for its run.
    #[must_use]
    pub fn with_name(mut self, name: AgentName) -> Self {
        self.name = Arc::new(name);
        self
    }
}

/// The API.
pub fn router(state: ApiState) -> Router {
    const RECORD: &str = "/v1/registrations/{service}/{id}";
    let of_record = |what: &str| format!("{RECORD}/{what}");
    Router::new()
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route(
            "/v1/registrations",
            get(registrations::list).post(registrations::register),
        )
        .route(
            RECORD,
            get(registrations::one).delete(registrations::deregister),
        )
        .route(&of_record("drain"), post(registrations::drain))
        .route(&of_record("beat"), post(registrations::beat))
        .route(&of_record("ready"), put(registrations::set_ready))
        .route("/v1/services", get(services::list))
        .route("/v1/services/{service}", get(services::one))
        .route("/v1/services/{service}/events", get(service_events::events))
        .route("/register", post(legacy::register))
        .route("/drain", post(legacy::drain))
        .route("/deregister", post(legacy::deregister))
        .route("/watch", get(watch::watch))
        .route("/debug/services", get(legacy::services))
        .route("/debug/xds", get(legacy::xds))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(state)
}

async fn no_such_path(uri: Uri) -> Failure {
    let text = format_args!("there is no {}", uri.path()).to_string();
    Failure::new(StatusCode::NOT_FOUND, "not_found", text)
}

/// The header `Allow` is added by the router.
async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let text = format!("{method} is not allowed at {}", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text)
}

/// An answer in JSON.
fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    (status, [(CONTENT_TYPE, JSON)], json::to_bytes(value)).into_response()
}
