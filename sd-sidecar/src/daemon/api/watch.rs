//! `GET /watch`: the reference system's stream of the agent itself, with the events that only newer clients know.
//!
//! | event | says |
//! |---|---|
//! | `connected` | the first event: the client registers what it has, again if it had before |
//! | `heartbeat` | the stream is alive |
//! | `degraded` | something that the agent needs does not work, such as its registry |
//! | `resync` | it works again: the client may replay its registrations, of which some may have been refused meanwhile |
//! | `disconnected` | the agent ends the stream: connect again |
//!
//! Ids count the events of a stream, and go on counting where a client returns with one in `Last-Event-ID`.

use std::time::SystemTime;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Interval;

use super::ApiState;
use super::failure::Failure;
use super::streams::{Events, Reader, frame, response};
use crate::daemon::lifecycle::Lifecycle;
use crate::wire::rfc3339;

/// What clients of the reference system are connected to.
const SERVICE: &str = "sidecar-agent";

pub(super) async fn watch(
    State(state): State<ApiState>,
    reader: Reader,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let open = state.streams.open(&reader, &state.lifecycle)?;
    let last = headers.get("last-event-id");
    let last = last.and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let events = AgentEvents {
        last_id: last.unwrap_or(0),
        is_connected: false,
        told: Lifecycle::Running,
        lifecycle: state.lifecycle.clone(),
        beats: state.streams.beats(state.config.heartbeat),
    };
    Ok(response(events, open))
}

struct AgentEvents {
    last_id: u64,
    is_connected: bool,
    /// What the client knows of the agent.
    told: Lifecycle,
    lifecycle: watch::Receiver<Lifecycle>,
    beats: Interval,
}

#[derive(Serialize)]
struct Payload<'a> {
    event: &'a str,
    message: &'a str,
    service: &'a str,
    /// `ready`, `starting` or `degraded`.
    status: &'a str,
    lifecycle_state: &'a str,
    ready: bool,
    generated_at: String,
}

impl Events for AgentEvents {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.is_connected {
            return Some(self.connected());
        }
        while !self.told.is_stopping() {
            tokio::select! {
                biased;
                changed = self.lifecycle.changed() => {
                    // Without an owner, the agent has ended.
                    let now = changed.map(|()| self.lifecycle.borrow_and_update().clone());
                    let now = now.unwrap_or(Lifecycle::Stopping);
                    if let Some(frame) = self.tell(now) {
                        return Some(frame);
                    }
                }
                _ = self.beats.tick() => {
                    let now = self.told.clone();
                    return Some(self.event("heartbeat", "watch stream is alive", &now));
                }
            }
        }
        None
    }

    fn disconnected(&mut self, message: &str) -> Bytes {
        let now = self.told.clone();
        self.event("disconnected", message, &now)
    }
}

impl AgentEvents {
    fn connected(&mut self) -> Bytes {
        self.is_connected = true;
        let now = self.lifecycle.borrow_and_update().clone();
        let frame = self.event("connected", "watch stream established", &now);
        match now {
            // Told by events of their own, with the reasons.
            Lifecycle::Degraded(_) | Lifecycle::Stopping => self.lifecycle.mark_changed(),
            Lifecycle::Starting | Lifecycle::Running => self.told = now,
        }
        frame
    }

    fn tell(&mut self, now: Lifecycle) -> Option<Bytes> {
        let before = std::mem::replace(&mut self.told, now);
        let now = self.told.clone();
        match (&before, &now) {
            (_, Lifecycle::Stopping) => {
                Some(self.event("disconnected", "the agent is stopping: connect again", &now))
            }
            (_, Lifecycle::Degraded(reasons)) if before != now => {
                Some(self.event("degraded", &reasons.join("; "), &now))
            }
            (Lifecycle::Degraded(_), Lifecycle::Running) => {
                let message = "the agent works again: registrations may be replayed";
                Some(self.event("resync", message, &now))
            }
            (Lifecycle::Starting, Lifecycle::Running) => {
                Some(self.event("heartbeat", "the agent is ready", &now))
            }
            _ => None,
        }
    }

    fn event(&mut self, event: &str, message: &str, now: &Lifecycle) -> Bytes {
        self.last_id = self.last_id.saturating_add(1);
        let payload = Payload {
            event,
            message,
            service: SERVICE,
            status: match now {
                Lifecycle::Running => "ready",
                Lifecycle::Starting => "starting",
                Lifecycle::Degraded(_) | Lifecycle::Stopping => "degraded",
            },
            lifecycle_state: now.name(),
            ready: now.is_ready(),
            generated_at: rfc3339(SystemTime::now()),
        };
        frame(&self.last_id.to_string(), event, &payload)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;
    use tokio::time::Instant;

    use super::super::{ApiConfig, Streams};
    use super::*;
    use crate::wire::sse;

    const BEAT: Duration = Duration::from_secs(5);

    fn events(lifecycle: &watch::Sender<Lifecycle>, last_id: u64) -> AgentEvents {
        AgentEvents {
            last_id,
            is_connected: false,
            told: Lifecycle::Running,
            lifecycle: lifecycle.subscribe(),
            beats: Streams::new(&ApiConfig::default()).beats(BEAT),
        }
    }

    async fn next(events: &mut AgentEvents) -> (String, Value) {
        let bytes = events.next().await.unwrap();
        let mut frames = Vec::new();
        let mut reader = sse::Reader::default();
        reader.push(&bytes, |frame| frames.push(frame)).unwrap();
        let [frame] = &frames[..] else {
            panic!("{bytes:?} is not one frame")
        };
        let payload: Value = serde_json::from_str(&frame.data).unwrap();
        assert_eq!(payload["event"], frame.event);
        (format!("{} {}", frame.id, frame.event), payload)
    }

    fn degraded(reason: &str) -> Lifecycle {
        Lifecycle::Degraded([reason.to_owned()].into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_connected_and_then_beats_every_five_seconds() {
        let (lifecycle, _) = watch::channel(Lifecycle::Running);
        let mut events = events(&lifecycle, 0);
        let begin = Instant::now();
        let (what, payload) = next(&mut events).await;
        assert_eq!(what, "1 connected");
        assert_eq!(payload["message"], "watch stream established");
        assert_eq!(payload["service"], "sidecar-agent");
        assert_eq!(payload["status"], "ready");
        assert_eq!(payload["lifecycle_state"], "running");
        assert_eq!(payload["ready"], true);
        for beat in 1..=3 {
            let (what, payload) = next(&mut events).await;
            assert_eq!(what, format!("{} heartbeat", beat + 1));
            assert_eq!(payload["message"], "watch stream is alive");
            assert_eq!(begin.elapsed().as_secs(), BEAT.as_secs() * beat);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_becomes_of_the_agent_is_told_once_each_and_the_end_last() {
        let (lifecycle, _) = watch::channel(Lifecycle::Starting);
        let mut events = events(&lifecycle, 0);
        assert_eq!(next(&mut events).await.1["status"], "starting");
        lifecycle.send_replace(Lifecycle::Running);
        assert_eq!(next(&mut events).await.1["message"], "the agent is ready");
        lifecycle.send_replace(degraded("no registry"));
        let (what, payload) = next(&mut events).await;
        assert_eq!(what, "3 degraded");
        assert_eq!(payload["message"], "no registry");
        assert_eq!(payload["ready"], false);
        lifecycle.send_replace(degraded("no registry"));
        lifecycle.send_replace(Lifecycle::Running);
        assert_eq!(next(&mut events).await.0, "4 resync");
        lifecycle.send_replace(Lifecycle::Stopping);
        assert_eq!(next(&mut events).await.0, "5 disconnected");
        assert_eq!(events.next().await, None);
        assert_eq!(events.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_connects_to_a_degraded_agent_hears_why_and_ids_go_on() {
        let (lifecycle, _) = watch::channel(degraded("disk full"));
        let mut events = events(&lifecycle, 41);
        let (what, payload) = next(&mut events).await;
        assert_eq!(what, "42 connected");
        assert_eq!(payload["status"], "degraded");
        let (what, payload) = next(&mut events).await;
        assert_eq!(what, "43 degraded");
        assert_eq!(payload["message"], "disk full");
        drop(lifecycle);
        assert_eq!(next(&mut events).await.0, "44 disconnected");
        assert_eq!(events.next().await, None);
    }
}
