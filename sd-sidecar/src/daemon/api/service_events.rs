//! `GET /v1/services/{name}/events`: a service as a stream of events.
//!
//! | event | says |
//! |---|---|
//! | `snapshot` | the whole set, with its status. The first event, and after each change |
//! | `change` | with `changes=true`, in place of a `snapshot` after the first: what is different from the set before it |
//! | `degraded` | the set cannot be confirmed, since when and why. It stays as it was told last. With the status `initializing`: none could be read yet |
//! | `resync` | the set was read again and is confirmed, and nothing has changed |
//! | `heartbeat` | the stream is alive |
//! | `disconnected` | the agent ends the stream: connect again |
//!
//! With `ready` or `zone` in the query, the set is that of these instances, and what changes none of them is not told.
//!
//! The id of an event names what its reader has then: the set and its status. A reader that returns with it in `Last-Event-ID` is told
//! what differs, and nothing if nothing does.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::HeaderMap;
use sd_core::ServiceName;
use sd_core::clock::Clock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Interval;

use super::ApiState;
use super::asked::service_name;
use super::failure::Failure;
use super::feeds::Followed;
use super::services::INSTANCES_PER_REQUEST;
use super::streams::{Events, Reader, frame, response};
use super::view::{Index, View};
use super::wanted::{Wanted, yes_or_no};
use crate::daemon::lifecycle::Lifecycle;
use crate::wire::rfc3339;

/// Which instances are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EventsQuery {
    ready: Option<String>,
    zone: Option<String>,
    changes: Option<String>,
}

pub(super) async fn events(
    State(state): State<ApiState>,
    reader: Reader,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<EventsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let service = service_name(&name?.0)?;
    let Query(query) = query?;
    let changes = yes_or_no("changes", query.changes.as_deref())?.unwrap_or_default();
    let wanted = Wanted::new(query.ready.as_deref(), query.zone)?;
    if changes && !wanted.is_everything() {
        return Err(Failure::bad_request(
            "changes: are those of the whole set, so ask without ready and zone",
        ));
    }
    let open = state.streams.open(&reader, &state.lifecycle)?;
    let followed = Followed::Service(service.clone());
    let mut views = state.feeds.follow(reader.caller(), &followed)?;
    // The first view is told like each that follows.
    views.mark_changed();
    let last = headers.get("last-event-id");
    let last = last.and_then(|id| Index::of_reader(id.to_str().ok()?));
    let events = ServiceEvents {
        service,
        views,
        wanted,
        changes,
        reader,
        clock: Arc::clone(&state.registry.config().clock),
        told: last,
        told_why: false,
        lifecycle: state.lifecycle.clone(),
        beats: state.streams.beats(state.config.heartbeat),
        ended: false,
    };
    Ok(response(events, open))
}

struct ServiceEvents {
    service: ServiceName,
    views: watch::Receiver<Arc<View>>,
    wanted: Wanted,
    /// Whether the reader can do with what is different.
    changes: bool,
    /// Pays for what is looked at for it alone.
    reader: Reader,
    clock: Arc<dyn Clock>,
    /// What the reader has.
    told: Option<Index>,
    /// Whether the reader knows why it has nothing.
    told_why: bool,
    lifecycle: watch::Receiver<Lifecycle>,
    beats: Interval,
    ended: bool,
}

/// What is told of a set without the set.
#[derive(Serialize)]
struct Notice<'a> {
    event: &'a str,
    message: &'a str,
    service: &'a ServiceName,
    /// `initializing`, `live` or `stale`.
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    generated_at: String,
}

impl Events for ServiceEvents {
    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            tokio::select! {
                biased;
                () = Lifecycle::stopping(&mut self.lifecycle) => {
                    return Some(self.end("the agent is stopping: connect again"));
                }
                changed = self.views.changed() => match changed {
                    Ok(()) => {
                        let view = Arc::clone(&self.views.borrow_and_update());
                        let (view, looked_at) = self.wanted.of(&view, self.clock.as_ref());
                        self.reader.pays(looked_at / INSTANCES_PER_REQUEST);
                        if let Some(frame) = self.tell(&view) {
                            return Some(frame);
                        }
                    }
                    Err(_) => return Some(self.end("the registry is closed: connect again")),
                },
                _ = self.beats.tick() => return Some(self.beat()),
            }
        }
        None
    }

    fn disconnected(&mut self, message: &str) -> Bytes {
        self.end(message)
    }
}

impl ServiceEvents {
    /// What a view has for a reader that was told another one before.
    fn tell(&mut self, view: &View) -> Option<Bytes> {
        if !view.is_known() {
            if self.told_why || view.error().is_none() {
                return None;
            }
            self.told_why = true;
            return Some(self.notice("degraded", "the service could not be read yet", view));
        }
        let index = view.index();
        let before = self.told.replace(index.clone());
        match before {
            Some(before) if before == *index => None,
            Some(before) if before.is_same_set(index) => Some(self.of_same_set(view)),
            Some(before) if self.changes => Some(self.changes_since(&before, view)),
            _ => Some(view.frame()),
        }
    }

    /// What has become of the set that the reader has, if that is not longer than the set, and whether it is confirmed.
    fn changes_since(&mut self, before: &Index, view: &View) -> Bytes {
        let Some((changes, told)) = view.changes().since(before) else {
            return view.frame();
        };
        if told == *view.index() {
            return changes;
        }
        let notice = self.of_same_set(view);
        Bytes::from([changes, notice].concat())
    }

    /// What a reader who has the set is told of its status.
    fn of_same_set(&self, view: &View) -> Bytes {
        if view.is_live() {
            self.notice("resync", "the set is confirmed again and unchanged", view)
        } else {
            self.notice("degraded", "the set cannot be confirmed, and stays", view)
        }
    }

    fn notice(&self, event: &str, message: &str, view: &View) -> Bytes {
        let notice = Notice {
            event,
            message,
            service: &self.service,
            status: view.status(),
            since: view.since(),
            error: view.error().map(|error| error.report().to_string()),
            generated_at: rfc3339(SystemTime::now()),
        };
        let id = self.told.as_ref().map_or("", Index::as_str);
        frame(id, event, &notice)
    }

    fn beat(&self) -> Bytes {
        let view = Arc::clone(&self.views.borrow());
        self.notice("heartbeat", "the stream is alive", &view)
    }

    fn end(&mut self, message: &str) -> Bytes {
        self.ended = true;
        let view = Arc::clone(&self.views.borrow());
        self.notice("disconnected", message, &view)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::clock::BootClock;
    use sd_core::memory::Memory;
    use sd_testing::LONG;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::daemon::api::config::ApiConfig;
    use crate::daemon::api::feeds::Feeds;
    use crate::daemon::api::streams::Streams;
    use crate::daemon::registrations::Caller;

    const BEAT: Duration = Duration::from_secs(5);

    async fn next(events: &mut ServiceEvents) -> String {
        let next = timeout(LONG, events.next()).await.unwrap();
        String::from_utf8(next.unwrap().to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_beats_every_five_seconds_and_each_beat_names_what_its_reader_has() {
        let feeds = Feeds::new(Memory::new().connect(), &ApiConfig::default());
        let service = ServiceName::new("greeter").unwrap();
        let (_lifecycle, lifecycle) = watch::channel(Lifecycle::Running);
        let stream = |told: Option<Index>| {
            let mut views = feeds
                .follow(
                    &Caller("caller".into()),
                    &Followed::Service(service.clone()),
                )
                .unwrap();
            views.mark_changed();
            ServiceEvents {
                service: service.clone(),
                views,
                wanted: Wanted::default(),
                changes: false,
                reader: Reader::for_test("reader", None),
                clock: Arc::new(BootClock),
                told,
                told_why: false,
                lifecycle: lifecycle.clone(),
                beats: Streams::new(&ApiConfig::default()).beats(BEAT),
                ended: false,
            }
        };
        let mut first = stream(None);
        let snapshot = next(&mut first).await;
        assert!(snapshot.contains("\nevent: snapshot\n"), "{snapshot}");
        let has = first.told.clone().unwrap();
        for told in [None, Some(has.clone())] {
            let mut events = stream(told.clone());
            let begin = Instant::now();
            if told.is_none() {
                assert_eq!(next(&mut events).await, snapshot);
            }
            for beat in 1..=3 {
                let told = next(&mut events).await;
                let head = format!("id: {}\nevent: heartbeat\n", has.as_str());
                assert!(told.starts_with(&head), "{told}");
                assert_eq!(begin.elapsed().as_secs(), BEAT.as_secs() * beat);
            }
        }
    }
}
