//! `/v1/registrations`: what processes want to have registered.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::asked::{Act, By, May};
use super::body::{parse, parse_or_default, read};
use super::entry_view::EntryView;
use super::failure::Failure;
use super::{ApiState, answer};
use crate::daemon::registrations::{Entry, Selector};
use crate::wire::{CheckState, Declaration};

/// The service and the id of a path.
type Record = Result<Path<(String, String)>, PathRejection>;

fn selector(record: Record) -> Result<Selector, Failure> {
    let Path((service, id)) = record?;
    Ok(Selector::Record { service, id })
}

/// Declares a registration. The same declaration again is a replay, and changes nothing.
pub(super) async fn register(
    State(state): State<ApiState>,
    By(caller): By,
    may: May,
    body: Body,
) -> Result<Response, Failure> {
    let body = state.read(body).await?;
    let declaration: Declaration = parse(&body)?;
    may.register(&declaration.service)?;
    let entry = state.registrations.register(&caller, declaration).await?;
    let mut response = changed(std::slice::from_ref(&entry));
    if let Ok(location) = HeaderValue::try_from(path_of(&entry)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Where an entry is found. Its names may hold anything that is one line of text.
fn path_of(entry: &Entry) -> String {
    let mut path = "/v1/registrations".to_owned();
    for segment in [entry.record.service.as_str(), entry.record.id.as_str()] {
        path.push('/');
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
                path.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(path, "%{byte:02X}");
            }
        }
    }
    path
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListQuery {
    service: Option<String>,
}

#[derive(Serialize)]
struct List<'a> {
    registrations: Vec<EntryView<'a>>,
}

/// All registrations of this agent, or those of one service.
pub(super) async fn list(
    State(state): State<ApiState>,
    By(caller): By,
    may: May,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query?;
    let mut entries = state.registrations.entries();
    if let Some(service) = query.service {
        entries.retain(|entry| entry.record.service.as_str() == service);
    }
    let shown = |entry| EntryView::for_reader(entry, may.see(&caller, entry));
    let registrations = entries.iter().map(shown).collect();
    Ok(answer(StatusCode::OK, &List { registrations }))
}

/// One registration.
pub(super) async fn one(
    State(state): State<ApiState>,
    By(caller): By,
    may: May,
    record: Record,
) -> Result<Response, Failure> {
    let entry = find(&state, record)?;
    let view = EntryView::for_reader(&entry, may.see(&caller, &entry));
    Ok(answer(StatusCode::OK, &view))
}

fn find(state: &ApiState, record: Record) -> Result<Entry, Failure> {
    let which = selector(record)?;
    let entry = state.registrations.entry(&which);
    entry.ok_or_else(|| which.not_found().into())
}

/// Withdraws one registration.
pub(super) async fn deregister(
    State(state): State<ApiState>,
    By(caller): By,
    may: May,
    record: Record,
) -> Result<Response, Failure> {
    let which = selector(record)?;
    let registrations = &state.registrations;
    let entries = may.act(caller, registrations, which, Act::Deregister);
    let entries = entries.await?;
    let is_done = entries.iter().all(|entry| entry.error.is_none());
    Ok(the_one(&entries, is_done))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DrainRequest {
    #[serde(with = "humantime_serde")]
    grace: Option<Duration>,
}

/// Has readers see it as not ready, and withdraws it after `grace`.
pub(super) async fn drain(
    State(state): State<ApiState>,
    By(caller): By,
    may: May,
    record: Record,
    body: Body,
) -> Result<Response, Failure> {
    let which = selector(record)?;
    let body = state.read(body).await?;
    let request: DrainRequest = parse_or_default(&body)?;
    let grace = request.grace.unwrap_or(state.config.default_grace);
    if grace.is_zero() {
        return Err(Failure::bad_request("grace must be greater than zero"));
    }
    let registrations = &state.registrations;
    let entries = may.act(caller, registrations, which, Act::Drain(grace));
    Ok(changed(&entries.await?))
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BeatRequest {
    check: String,
    state: CheckState,
    output: String,
}

impl Default for BeatRequest {
    fn default() -> Self {
        Self {
            // What a check is called that has no other name.
            check: "ttl".to_owned(),
            state: CheckState::Passing,
            output: String::new(),
        }
    }
}

/// A process says how it is.
pub(super) async fn beat(
    State(state): State<ApiState>,
    By(caller): By,
    record: Record,
    body: Body,
) -> Result<Response, Failure> {
    let which = selector(record)?;
    let body = state.read(body).await?;
    let BeatRequest {
        check,
        state: said,
        output,
    } = parse_or_default(&body)?;
    let registrations = &state.registrations;
    let entry = registrations.beat(&caller, &which, &check, said, &output)?;
    Ok(answer(StatusCode::OK, &EntryView::new(&entry)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadyRequest {
    ready: bool,
}

/// A process says whether it wants calls.
pub(super) async fn set_ready(
    State(state): State<ApiState>,
    By(caller): By,
    may: May,
    record: Record,
    body: Body,
) -> Result<Response, Failure> {
    let body = state.read(body).await?;
    let ReadyRequest { ready } = parse(&body)?;
    let which = selector(record)?;
    let registrations = &state.registrations;
    let entries = may.act(caller, registrations, which, Act::SetReady(ready));
    Ok(changed(&entries.await?))
}

/// The one that was changed. The agent goes on trying to have the registry confirm what it has not confirmed yet.
fn changed(entries: &[Entry]) -> Response {
    let is_done = entries.iter().all(|entry| entry.is_confirmed);
    the_one(entries, is_done)
}

/// The one that was meant, whether or not it `is_done` what was asked.
fn the_one(entries: &[Entry], is_done: bool) -> Response {
    let status = if is_done {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    match entries.first() {
        Some(entry) => answer(status, &EntryView::new(entry)),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

impl ApiState {
    /// Reads a request's body, within the bounds of the configuration.
    pub(super) async fn read(&self, body: Body) -> Result<axum::body::Bytes, Failure> {
        let config = &self.config;
        read(body, config.most_body_bytes, config.body_within).await
    }
}
