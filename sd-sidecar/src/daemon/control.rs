//! What the agent says of itself, and how it is told to stop: `/v1/agent`, `/v1/agent/stop`, `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::api::{ApiState, Failure, parse_or_default};
use super::lifecycle::Lifecycle;
use super::metrics::Metrics;
use super::registrations::{Registrations, Stage};
use super::security::STOP;

/// A request to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopRequest {
    /// Whether to leave the records for the next agent. By default as the configuration says.
    pub keep: Option<bool>,
}

/// The agent, as it says who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Identity {
    pub(crate) version: &'static str,
    pub(crate) pid: u32,
    pub(crate) agent_id: String,
    pub(crate) agent_run_id: String,
    pub(crate) started_at: String,
    pub(crate) registry: String,
    pub(crate) host: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) env: String,
    pub(crate) keeps_state: bool,
    pub(crate) listen: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) identity: Arc<Identity>,
    pub(crate) registrations: Registrations,
    pub(crate) api: ApiState,
    pub(crate) lifecycle: watch::Receiver<Lifecycle>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: mpsc::Sender<StopRequest>,
}

pub(crate) fn router(control: Control) -> Router {
    describe_gauge!(
        "sd_agent_registrations",
        "Registrations that the agent holds, by stage"
    );
    describe_gauge!("sd_agent_streams", "Open streams of events and long polls");
    describe_gauge!(
        "sd_agent_state_lost_registrations",
        "Registrations that could not be read from a damaged state at this start"
    );
    describe_gauge!("sd_agent_connections", "Open connections, by address");
    describe_counter!(
        "sd_agent_requests_total",
        "Requests that were answered, by route and status"
    );
    describe_histogram!(
        "sd_agent_request_seconds",
        "Time from a request to the head of its answer, by route"
    );
    describe_counter!(
        "sd_agent_refused_total",
        "Requests and connections that were refused, by reason"
    );
    Router::new()
        .route("/v1/agent", get(show))
        .route(STOP, post(stop))
        .route("/metrics", get(measure))
        .with_state(control)
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    identity: &'a Identity,
    lifecycle_state: &'static str,
    reasons: Vec<String>,
    /// What an operator should know, and the agent cannot mend.
    notes: Vec<&'a str>,
    registrations: BTreeMap<&'static str, usize>,
}

/// How many registrations are at each stage, also at those where there is none.
fn by_stage(registrations: &Registrations) -> BTreeMap<&'static str, usize> {
    let stages = registrations.stages();
    let counted = Stage::ALL.map(|stage| {
        let count = stages.get(&stage).copied().unwrap_or_default();
        (stage.as_str(), count)
    });
    counted.into()
}

async fn show(State(control): State<Control>) -> Response {
    let lifecycle = control.lifecycle.borrow().clone();
    Json(Shown {
        identity: &control.identity,
        lifecycle_state: lifecycle.name(),
        reasons: lifecycle.reasons().to_vec(),
        notes: control.registrations.state_damage().into_iter().collect(),
        registrations: by_stage(&control.registrations),
    })
    .into_response()
}

async fn stop(State(control): State<Control>, body: Bytes) -> Result<Response, Failure> {
    let request: StopRequest = parse_or_default(&body)?;
    if request.keep == Some(true) && !control.identity.keeps_state {
        let text = "the next agent learns of the records from a file: start the agent with --state";
        return Err(Failure::new(StatusCode::CONFLICT, "no_state", text));
    }
    // One is enough: a request that comes later is told the same.
    let _ = control.stop.try_send(request);
    Ok((
        StatusCode::ACCEPTED,
        Json(serde_json::json!({"success": true, "code": "stopping"})),
    )
        .into_response())
}

async fn measure(State(control): State<Control>) -> Response {
    for (stage, count) in by_stage(&control.registrations) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        gauge!("sd_agent_registrations", "stage" => stage).set(f64::from(count));
    }
    let streams = u32::try_from(control.api.open_streams()).unwrap_or(u32::MAX);
    gauge!("sd_agent_streams").set(f64::from(streams));
    let lost = u32::try_from(control.registrations.state_lost()).unwrap_or(u32::MAX);
    gauge!("sd_agent_state_lost_registrations").set(f64::from(lost));
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, control.metrics.render()).into_response()
}
