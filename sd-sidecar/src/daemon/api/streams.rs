//! What all streams of events have in common.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::request::Parts;
use sd_core::sync::lock;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::asked::By;
use super::config::ApiConfig;
use super::failure::Failure;
use super::json;
use crate::daemon::lifecycle::Lifecycle;
use crate::daemon::limits::Bill;
use crate::daemon::registrations::Caller;
use crate::daemon::security::Access;
use crate::wire::sse::Frame;

/// Counts the streams and long polls that are open.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// From when on their signs of life are counted.
    since: Instant,
    most: usize,
    /// How many of them one caller may have.
    most_of_one: usize,
    free: Arc<Semaphore>,
    /// How many each caller has who has any.
    of_callers: Arc<Mutex<HashMap<Caller, usize>>>,
}

const REVOKED: &str = "who may read has changed: connect again";

/// A caller may have as many streams as these in any case.
const FEW: usize = 16;

/// The right to keep one stream open, until it is dropped.
#[derive(Debug)]
pub(super) struct Open {
    caller: Caller,
    of_callers: Arc<Mutex<HashMap<Caller, usize>>>,
    access: Access,
    _place: OwnedSemaphorePermit,
}

impl Open {
    /// Returns once the caller must show again that it may read. Cancel-safe.
    pub(super) async fn revoked(&self) {
        self.access.revoked().await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut of_callers = lock(&self.of_callers);
        if let Some(count) = of_callers.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                of_callers.remove(&self.caller);
            }
        }
    }
}

/// Who wants to open a stream.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    caller: Caller,
    access: Access,
    /// Who pays for what is done for this reader alone, where that is counted.
    bill: Option<Bill>,
}

impl Reader {
    /// Who asks.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Adds to what its request costs, in usual ones.
    pub(super) fn pays(&self, cost: usize) {
        if let Some(bill) = &self.bill {
            bill.add(cost);
        }
    }

    #[cfg(test)]
    pub(super) fn for_test(name: &str, bill: Option<Bill>) -> Self {
        Self {
            caller: Caller(name.into()),
            access: Access::default(),
            bill,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Reader {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let By(caller) = By::from_request_parts(parts, state).await?;
        let access = parts.extensions.get::<Access>().cloned();
        Ok(Self {
            caller,
            access: access.unwrap_or_default(),
            bill: parts.extensions.get::<Bill>().cloned(),
        })
    }
}

impl Streams {
    pub(super) fn new(config: &ApiConfig) -> Self {
        let most = config.most_streams.min(Semaphore::MAX_PERMITS);
        Self {
            since: Instant::now(),
            most,
            most_of_one: most.min((most / 4).max(FEW)),
            free: Arc::new(Semaphore::new(most)),
            of_callers: Arc::default(),
        }
    }

    /// The signs of life of one of them, at most `every` apart. Those of all come at the same moments, so that a host with many streams that
    /// are quiet wakes once for all of them.
    pub(super) fn beats(&self, every: Duration) -> Interval {
        // An interval cannot be zero, and one of years has no end that could be reckoned.
        let every = every.clamp(Duration::from_millis(1), Duration::from_secs(24 * 3600));
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.since).as_nanos() % every.as_nanos();
        let passed = Duration::from_nanos(u64::try_from(passed).unwrap_or_default());
        let mut beats = interval_at(now + every.saturating_sub(passed), every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
        beats
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.most - self.free.available_permits()
    }

    /// Opens one more, unless the agent stops, or it or the caller has as many as may be.
    pub(super) fn open(
        &self,
        reader: &Reader,
        lifecycle: &watch::Receiver<Lifecycle>,
    ) -> Result<Open, Failure> {
        if lifecycle.borrow().is_stopping() {
            return Err(Failure::unavailable("stopping", "the agent is stopping"));
        }
        let too_many = |text: String| Failure::unavailable("too_many_streams", text);
        let place = Arc::clone(&self.free).try_acquire_owned().map_err(|_| {
            too_many(format!(
                "{} streams are open, which is as many as may be",
                self.most
            ))
        })?;
        let mut of_callers = lock(&self.of_callers);
        let count = of_callers.entry(reader.caller.clone()).or_default();
        // One alone may have more, as long as there are enough for others.
        let are_scarce = self.free.available_permits() < self.most / 2;
        if are_scarce && *count >= self.most_of_one {
            return Err(too_many(format!(
                "{count} streams of this caller are open, which is as many as one may have: see limits.streams"
            )));
        }
        *count += 1;
        Ok(Open {
            caller: reader.caller.clone(),
            of_callers: Arc::clone(&self.of_callers),
            access: reader.access.clone(),
            _place: place,
        })
    }
}

/// A stream of events. The next one is asked for when its reader has room for it, so that what a slow reader misses is never kept.
pub(super) trait Events: Send + 'static {
    /// The bytes of the next event, or nothing at the end.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;

    /// The last event of a stream that ends before the agent does.
    fn disconnected(&mut self, message: &str) -> Bytes;
}

/// The answer that streams these events while `open`, and its reader may read.
pub(super) fn response(events: impl Events, open: Open) -> Response {
    let frames = stream::unfold(Some((events, open)), |stream| async move {
        let (mut events, open) = stream?;
        let (frame, stream) = tokio::select! {
            biased;
            () = open.revoked() => (events.disconnected(REVOKED), None),
            frame = events.next() => (frame?, Some((events, open))),
        };
        Some((Ok::<_, Infallible>(frame), stream))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONNECTION, HeaderValue::from_static("keep-alive")),
    ];
    (headers, Body::from_stream(frames)).into_response()
}

/// An event with this data.
pub(super) fn frame(id: &str, event: &str, data: &impl Serialize) -> Bytes {
    // JSON is text.
    let data = String::from_utf8(json::to_bytes(data).into()).unwrap_or_default();
    let frame = Frame {
        id: id.to_owned(),
        event: event.to_owned(),
        data,
    };
    Bytes::from(frame.to_string())
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn reader(name: &str) -> Reader {
        Reader::for_test(name, None)
    }

    fn streams(most_streams: usize) -> Streams {
        Streams::new(&ApiConfig {
            most_streams,
            ..ApiConfig::default()
        })
    }

    #[test]
    fn one_caller_leaves_streams_to_others_and_what_it_closes_makes_room() {
        let (_lifecycle, lifecycle) = watch::channel(Lifecycle::Running);
        let streams = streams(100);
        let (hostile, other) = (reader("hostile"), reader("other"));
        let mut open: Vec<_> = (0..50)
            .map(|_| streams.open(&hostile, &lifecycle).unwrap())
            .collect();
        let refused = streams.open(&hostile, &lifecycle).unwrap_err();
        let refused = format!("{refused:?}");
        assert!(refused.contains("50 streams of this caller"), "{refused}");
        assert_eq!(streams.count(), 50);
        drop(streams.open(&other, &lifecycle).unwrap());
        open.pop();
        open.push(streams.open(&hostile, &lifecycle).unwrap());
        drop(open);
        assert_eq!(streams.count(), 0);
        assert!(lock(&streams.of_callers).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn streams_beat_at_the_same_moments_whenever_they_were_opened() {
        let every = Duration::from_secs(5);
        let streams = streams(10);
        let begin = Instant::now();
        let mut first = streams.beats(every);
        tokio::time::advance(Duration::from_millis(7300)).await;
        let mut later = streams.beats(every);
        // It was looked at late, and is not late for ever.
        first.tick().await;
        for beat in 2..5 {
            let (one, other) = tokio::join!(first.tick(), later.tick());
            assert_eq!((one - begin, other - begin), (every * beat, every * beat));
        }
    }

    #[tokio::test]
    async fn a_stream_ends_when_its_reader_must_show_again_that_it_may_read() {
        struct Silent;
        impl Events for Silent {
            async fn next(&mut self) -> Option<Bytes> {
                std::future::pending().await
            }

            fn disconnected(&mut self, message: &str) -> Bytes {
                Bytes::copy_from_slice(message.as_bytes())
            }
        }
        let (_lifecycle, lifecycle) = watch::channel(Lifecycle::Running);
        let streams = streams(1);
        let revoke = CancellationToken::new();
        let reader = Reader {
            access: Access::new(revoke.clone(), CancellationToken::new()),
            ..reader("team-a")
        };
        let open = streams.open(&reader, &lifecycle).unwrap();
        let body = response(Silent, open).into_body();
        let read = tokio::spawn(axum::body::to_bytes(body, 1024));
        tokio::task::yield_now().await;
        assert!(!read.is_finished());
        revoke.cancel();
        assert_eq!(read.await.unwrap().unwrap(), REVOKED);
        assert_eq!(streams.count(), 0);
    }
}
