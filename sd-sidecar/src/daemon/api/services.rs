//! `GET /v1/services` and `GET /v1/services/{name}`: what is registered, now or once it has changed.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::ApiState;
use super::asked::service_name;
use super::failure::{Failure, JSON};
use super::feeds::Followed;
use super::streams::Reader;
use super::view::{Index, View};
use super::wanted::Wanted;
use crate::daemon::lifecycle::Lifecycle;

/// So many instances that are looked at for one reader alone count as much as a request.
pub(super) const INSTANCES_PER_REQUEST: usize = 500;

/// Waits for a change: of what `If-None-Match` names, or of `index`, which is in each answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListQuery {
    #[serde(with = "humantime_serde")]
    wait: Option<Duration>,
    index: Option<String>,
}

/// As [`ListQuery`], and which instances are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ServiceQuery {
    #[serde(with = "humantime_serde")]
    wait: Option<Duration>,
    index: Option<String>,
    ready: Option<String>,
    zone: Option<String>,
}

pub(super) async fn list(
    State(state): State<ApiState>,
    reader: Reader,
    query: Result<Query<ListQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Query(query) = query?;
    let asked = Asked::new(&state, query.wait, query.index.as_deref(), &headers)?;
    let everything = Wanted::default();
    asked
        .answer(&reader, &Followed::Services, &everything)
        .await
}

pub(super) async fn one(
    State(state): State<ApiState>,
    reader: Reader,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<ServiceQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let service = service_name(&name?.0)?;
    let Query(query) = query?;
    let wanted = Wanted::new(query.ready.as_deref(), query.zone)?;
    let asked = Asked::new(&state, query.wait, query.index.as_deref(), &headers)?;
    let service = Followed::Service(service);
    asked.answer(&reader, &service, &wanted).await
}

/// A reader that may have something already.
struct Asked<'a> {
    state: &'a ApiState,
    wait: Option<Duration>,
    has: Vec<Index>,
    /// Whether the reader wants to hear that nothing has changed instead of what it has.
    is_conditional: bool,
    /// Whether the reader has something, whatever it is: `If-None-Match: *`.
    has_any: bool,
}

impl<'a> Asked<'a> {
    fn new(
        state: &'a ApiState,
        wait: Option<Duration>,
        index: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, Failure> {
        let longest = state.config.longest_wait;
        if wait.is_some_and(|wait| wait > longest) {
            let text = format!("wait: at most {}", humantime::format_duration(longest));
            return Err(Failure::bad_request(text));
        }
        let tags = entity_tags(headers);
        if wait.is_some() && index.is_none() && tags.is_empty() {
            return Err(Failure::bad_request(
                "wait: say what you have, with the index of an answer as `index` or its ETag in If-None-Match",
            ));
        }
        Ok(Self {
            state,
            wait,
            is_conditional: !tags.is_empty(),
            has_any: has_any(headers),
            has: tags
                .into_iter()
                .chain(index.and_then(Index::of_reader))
                .collect(),
        })
    }

    async fn answer(
        &self,
        reader: &Reader,
        what: &Followed,
        wanted: &Wanted,
    ) -> Result<Response, Failure> {
        let mut views = self.state.feeds.follow(reader.caller(), what)?;
        self.known(&mut views).await?;
        let view = self.changed(reader, &mut views, wanted).await?;
        let tag = format!("W/\"{}\"", view.index().as_str());
        let tag = HeaderValue::try_from(tag)
            .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error))?;
        let headers = [
            (ETAG, tag),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        if self.has_any || self.is_conditional && self.has.contains(view.index()) {
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        let kind = [(CONTENT_TYPE, JSON)];
        Ok((headers, kind, Body::from(view.body())).into_response())
    }

    /// Waits for the first read. An answer before it would say that there is nothing.
    async fn known(&self, views: &mut watch::Receiver<Arc<View>>) -> Result<(), Failure> {
        let limit = self.state.config.first_read_within;
        let read = views.wait_for(|view| view.is_known() || view.is_final());
        let read = timeout(limit, read).await.map(|read| read.map(drop));
        let view = Arc::clone(&views.borrow());
        match (view.is_known(), view.error()) {
            (true, _) => Ok(()),
            (false, Some(error)) => Err(Failure::of_registry(error)),
            (false, None) if matches!(read, Ok(Err(_))) => Err(closed()),
            (false, None) => Err(Failure::unavailable(
                "registry_unavailable",
                format!("the registry did not answer within {limit:?}"),
            )),
        }
    }

    /// The view once it is not what the reader has, or at the end of its wait. The reader pays for what is looked at for it alone.
    async fn changed(
        &self,
        reader: &Reader,
        views: &mut watch::Receiver<Arc<View>>,
        wanted: &Wanted,
    ) -> Result<Arc<View>, Failure> {
        let clock = &self.state.registry.config().clock;
        let mut unpaid = 0;
        let mut selected = |view: Arc<View>| {
            let (view, looked_at) = wanted.of(&view, clock.as_ref());
            // Now, as it may have left before its answer.
            unpaid += looked_at;
            reader.pays(unpaid / INSTANCES_PER_REQUEST);
            unpaid %= INSTANCES_PER_REQUEST;
            view
        };
        let mut view = selected(Arc::clone(&views.borrow_and_update()));
        let Some(wait) = self.wait.filter(|_| self.has.contains(view.index())) else {
            return Ok(view);
        };
        let begin = Instant::now();
        let mut lifecycle = self.state.lifecycle.clone();
        let open = self.state.streams.open(reader, &lifecycle)?;
        while self.has.contains(view.index()) {
            let remaining = wait.saturating_sub(begin.elapsed());
            let changed = tokio::select! {
                () = Lifecycle::stopping(&mut lifecycle) => break,
                () = open.revoked() => break,
                changed = timeout(remaining, views.changed()) => changed,
            };
            match changed {
                Ok(Ok(())) => view = selected(Arc::clone(&views.borrow_and_update())),
                Ok(Err(_)) => return Err(closed()),
                Err(_) => break,
            }
        }
        Ok(view)
    }
}

fn closed() -> Failure {
    Failure::unavailable("registry_unavailable", "the registry is closed")
}

/// Whether `If-None-Match` means whatever there is: RFC 9110, 13.1.2.
fn has_any(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(IF_NONE_MATCH).iter();
    values.any(|value| value.as_bytes().trim_ascii() == b"*")
}

/// The entity tags of `If-None-Match`, weak or not: content that is equal has an equal one.
fn entity_tags(headers: &HeaderMap) -> Vec<Index> {
    /// A reader has one.
    const MOST: usize = 16;
    let lists = headers.get_all(IF_NONE_MATCH).iter();
    let lists = lists.filter_map(|list| list.to_str().ok());
    let tags = lists.flat_map(|list| list.split(',')).map(str::trim);
    let tags = tags.filter_map(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag.strip_prefix('"')?.strip_suffix('"')
    });
    tags.filter_map(Index::of_reader).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use sd_core::Instance;
    use sd_core::memory::Memory;
    use sd_testing::LONG;

    use super::*;
    use crate::daemon::api::ApiConfig;
    use crate::daemon::limits::{Bill, RequestRates};
    use crate::daemon::registrations::{Caller, Registrations};

    #[tokio::test(start_paused = true)]
    async fn what_is_looked_at_for_one_reader_is_paid_for_also_if_it_leaves_before_its_answer() {
        let registry = Memory::new().connect();
        let mut guards = Vec::new();
        for port in 0..INSTANCES_PER_REQUEST {
            let instance = Instance::new("greeter", format!("h:{}", port + 1)).unwrap();
            guards.push(registry.register(instance).in_background().unwrap());
        }
        let (_lifecycle, lifecycle) = watch::channel(Lifecycle::Running);
        let registrations = Registrations::new(registry);
        let state = ApiState::new(registrations, lifecycle, ApiConfig::default());
        let what = Followed::Service(service_name("greeter").unwrap());
        let mut views = state.feeds.follow(&Caller("caller".into()), &what).unwrap();
        let all = views.wait_for(|view| view.instance_count() == INSTANCES_PER_REQUEST);
        let index = {
            let view = timeout(LONG, all).await.unwrap().unwrap();
            // None is in that zone.
            let none = view.filtered(|_| false, state.registry.config().clock.as_ref());
            none.index().as_str().to_owned()
        };
        let (rates, caller) = (Arc::new(RequestRates::default()), Arc::from("caller"));
        rates.take(&caller, 1, 1, Instant::now()).unwrap();
        let reader = Reader::for_test("caller", Some(Bill::new(&rates, &caller, 1)));
        let wait = Some(Duration::from_secs(60));
        let asked = Asked::new(&state, wait, Some(&index), &HeaderMap::new()).unwrap();
        let wanted = Wanted::new(None, Some("elsewhere".to_owned())).unwrap();
        let waiting = asked.answer(&reader, &what, &wanted);
        assert!(waiting.now_or_never().is_none(), "it has to wait");
        let next = rates.take(&caller, 1, 1, Instant::now()).unwrap_err();
        assert_eq!(next, Duration::from_secs(2));
    }

    #[test]
    fn entity_tags_are_read_in_all_their_forms() {
        let tags = |value: &'static str| {
            let header = (IF_NONE_MATCH, HeaderValue::from_static(value));
            let tags = entity_tags(&HeaderMap::from_iter([header]));
            let tags = tags.iter().map(|tag| tag.as_str().to_owned());
            tags.collect::<Vec<_>>()
        };
        assert_eq!(tags(r#""a""#), ["a"]);
        assert_eq!(tags(r#"W/"a", "b" ,W/"c""#), ["a", "b", "c"]);
        assert_eq!(tags(r#"a, ", "", *"#), [""]);
        assert!(tags("").is_empty());
    }
}
