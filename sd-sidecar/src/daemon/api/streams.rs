//! What all streams of events have in common.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::config::ApiConfig;
use super::failure::Failure;
use super::json;
use crate::daemon::lifecycle::Lifecycle;
use crate::wire::sse::Frame;

/// Counts the streams and long polls that are open.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    most: usize,
    free: Arc<Semaphore>,
}

/// The right to keep one stream open, until it is dropped.
pub(super) type Open = OwnedSemaphorePermit;

impl Streams {
    pub(super) fn new(config: &ApiConfig) -> Self {
        let most = config.most_streams.min(Semaphore::MAX_PERMITS);
        Self {
            most,
            free: Arc::new(Semaphore::new(most)),
        }
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.most - self.free.available_permits()
    }

    /// Opens one more, unless the agent stops or has as many as it may.
    pub(super) fn open(&self, lifecycle: &watch::Receiver<Lifecycle>) -> Result<Open, Failure> {
        if lifecycle.borrow().is_stopping() {
            return Err(Failure::unavailable("stopping", "the agent is stopping"));
        }
        Arc::clone(&self.free).try_acquire_owned().map_err(|_| {
            let text = format!("{} streams are open, which is as many as may be", self.most);
            Failure::unavailable("too_many_streams", text)
        })
    }
}

/// A stream of events. The next one is asked for when its reader has room for it, so that what a slow reader misses is never kept.
pub(super) trait Events: Send + 'static {
    /// The bytes of the next event, or nothing at the end.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// The answer that streams these events while `open`.
pub(super) fn response(events: impl Events, open: Open) -> Response {
    let frames = stream::unfold((events, open), |(mut events, open)| async move {
        let frame = events.next().await?;
        Some((Ok::<_, Infallible>(frame), (events, open)))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONNECTION, HeaderValue::from_static("keep-alive")),
    ];
    (headers, Body::from_stream(frames)).into_response()
}

/// The signs of life of a stream, the first of them after one interval.
pub(super) fn beats(every: Duration) -> Interval {
    // An interval cannot be zero, and one of years has no end that could be reckoned.
    let every = every.clamp(Duration::from_millis(1), Duration::from_secs(24 * 3600));
    let mut beats = interval_at(Instant::now() + every, every);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
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
