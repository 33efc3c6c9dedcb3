//! The reference system's API: `/register`, `/drain`, `/deregister` and `/debug/…`, for clients of all of its generations.
//!
//! They take only the status 200 for success. A reply has the fields of the service for the first generation, and an envelope around them
//! for the later ones.

use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use sd_core::Address;
use serde::Serialize;
use serde_json::json;

use super::asked::{Act, By, May};
use super::failure::Failure;
use super::{AgentName, ApiState, answer};
use crate::daemon::registrations::{Entry, Refused, Registrations, Selector};
use crate::wire::dialect::{BadBody, Deregister, Drain, Register, Target};
use crate::wire::{LocalService, envelope, rfc3339};

impl From<BadBody> for Failure {
    fn from(bad: BadBody) -> Self {
        Self::bad_request(bad)
    }
}

impl From<Target> for Selector {
    fn from(target: Target) -> Self {
        match target {
            Target::App { app, service, port } => Self::App { app, service, port },
            Target::Port { service, port } => Self::Port { service, port },
        }
    }
}

pub(super) async fn register(
    State(state): State<ApiState>,
    By(caller): By,
    may: May,
    body: Body,
) -> Result<Response, Failure> {
    let request = Register::parse(&state.read(body).await?)?;
    let declaration = request.declaration()?;
    may.register(&declaration.service)?;
    let entry = state.promptly().register(&caller, declaration).await;
    let entry = entry.map_err(|refused| failure("register_failed", refused))?;
    Ok(done(&state.name, &[entry]))
}

pub(super) async fn drain(
    State(state): State<ApiState>,
    By(caller): By,
    may: May,
    body: Body,
) -> Result<Response, Failure> {
    let Drain { target, grace } = Drain::parse(&state.read(body).await?)?;
    let registrations = state.promptly();
    let drained = may
        .act(caller, &registrations, target.into(), Act::Drain(grace))
        .await;
    let drained = drained.map_err(|refused| failure("drain_failed", refused))?;
    Ok(done(&state.name, &drained))
}

pub(super) async fn deregister(
    State(state): State<ApiState>,
    By(caller): By,
    may: May,
    body: Body,
) -> Result<Response, Failure> {
    let Deregister { target } = Deregister::parse(&state.read(body).await?)?;
    let registrations = state.promptly();
    let gone = may
        .act(caller, &registrations, target.into(), Act::Deregister)
        .await;
    let gone = match gone {
        // What is not there is as it should be: clients take every other answer for a failure.
        Err(Refused::NotFound(_)) if !state.config.strict_deregister => Vec::new(),
        gone => gone.map_err(|refused| failure("deregister_failed", refused))?,
    };
    Ok(done(&state.name, &gone))
}

impl ApiState {
    /// The registrations, whose callers are answered before clients of the reference system give up.
    fn promptly(&self) -> Registrations {
        let limit = self.config.legacy_within;
        self.registrations.confirming_within(limit)
    }
}

/// What the registry said has the code that fits what was asked for; what the agent itself refuses keeps its own.
fn failure(code: &'static str, refused: Refused) -> Failure {
    let of_registry = matches!(refused, Refused::Registry(_));
    let failure = Failure::from(refused);
    if of_registry {
        failure.with_code(code)
    } else {
        failure
    }
}

/// All services of this agent, also those that are gone.
pub(super) async fn services(State(state): State<ApiState>) -> Response {
    let entries = state.registrations.entries();
    let mut services: Vec<_> = entries
        .iter()
        .map(|entry| local_service(&state.name, entry))
        .collect();
    services.sort_by(|a, b| {
        let key = |service: &LocalService| (service.request.name.clone(), service.request.port);
        key(a).cmp(&key(b))
    });
    answer(StatusCode::OK, &services)
}

/// What there is to say of xDS by an agent that has none.
pub(super) async fn xds() -> Response {
    answer(StatusCode::OK, &json!({}))
}

/// The services that something was done to: the first one as the reference system shows its only one, and all if there are more.
#[derive(Serialize)]
struct Done {
    #[serde(flatten)]
    first: LocalService,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    services: Vec<LocalService>,
}

fn done(name: &AgentName, entries: &[Entry]) -> Response {
    let now = SystemTime::now();
    let services = entries.iter().map(|entry| local_service(name, entry));
    let mut services: Vec<_> = services.collect();
    let Some(first) = services.first().cloned() else {
        let gone = json!({"state": "Deregistered"});
        return answer(StatusCode::OK, &envelope::success(&gone, now));
    };
    if services.len() == 1 {
        services.clear();
    }
    let done = Done { first, services };
    answer(StatusCode::OK, &envelope::success(&done, now))
}

fn local_service(agent: &AgentName, entry: &Entry) -> LocalService {
    let mut request = Register::of(&entry.declaration);
    if request.port == 0 {
        request.port = entry.instance.endpoint().port().unwrap_or_default();
    }
    let Register {
        env,
        namespace,
        name,
        ..
    } = &request;
    let id = &entry.record.id;
    LocalService {
        instance_id: id.to_string(),
        agent_id: agent.id.clone(),
        agent_run_id: agent.run_id.clone(),
        address: match entry.instance.endpoint().address() {
            Address::Tcp { host, .. } => host.to_string(),
            _ => entry.instance.endpoint().to_string(),
        },
        zone: entry.instance.zone().unwrap_or_default().to_owned(),
        route_prefixes: request.route_prefixes(),
        route_config_ref: format!("routes/{env}/{namespace}/{name}/current"),
        lease_check_id: format!("service:{id}:agent-lease"),
        state: entry.stage.as_str().to_owned(),
        registered_at: rfc3339(entry.registered_at),
        updated_at: rfc3339(entry.updated_at),
        drain_deadline: entry.drain_deadline.map(rfc3339),
        request,
    }
}
