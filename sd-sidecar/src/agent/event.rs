//! What the watch stream of an agent tells.

use std::sync::Arc;
use std::time::SystemTime;

use sd_core::Missed;
use serde::Deserialize;

use super::error::{AgentError, Result, printable};
use crate::wire::{parse_rfc3339, sse::Frame};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The connection to the agent has begun: services are registered now.
    Connected,
    /// The agent lives.
    Heartbeat,
    /// The connection has ended, or could not begin. The next attempt follows.
    Disconnected,
    /// The agent wants to be told again what is to be registered.
    Resync,
    /// The agent is not well, for example because its registry is down.
    Degraded,
    /// A listener was too slow, and this many events are gone.
    Missed(u64),
}

impl EventKind {
    /// The name of the event on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Heartbeat => "heartbeat",
            Self::Disconnected => "disconnected",
            Self::Resync => "resync",
            Self::Degraded => "degraded",
            Self::Missed(_) => "missed",
        }
    }
}

/// One event of the connection to the agent.
#[derive(Clone, Debug)]
pub struct ConnectionEvent {
    /// What it is about.
    pub kind: EventKind,
    /// Its id. Empty if the agent gave none.
    pub event_id: String,
    /// What the agent says.
    pub message: String,
    /// Who says it.
    pub service: String,
    /// How the agent is: `ready`, `starting` or `degraded`.
    pub status: String,
    /// Where the agent is in its life.
    pub lifecycle_state: String,
    /// Whether the agent does its work, if it says so.
    pub ready: Option<bool>,
    /// When the agent said it.
    pub generated_at: Option<SystemTime>,
    /// Why the connection ended.
    pub error: Option<Arc<AgentError>>,
}

impl ConnectionEvent {
    /// An event that says nothing else.
    pub fn new(kind: EventKind) -> Self {
        Self {
            kind,
            event_id: String::new(),
            message: String::new(),
            service: String::new(),
            status: String::new(),
            lifecycle_state: String::new(),
            ready: None,
            generated_at: None,
            error: None,
        }
    }

    /// The connection has ended because of `error`.
    pub fn disconnected(error: AgentError) -> Self {
        Self {
            error: Some(Arc::new(error)),
            ..Self::new(EventKind::Disconnected)
        }
    }

    /// Reads a frame of the stream, in the form of any generation. `None` if it says nothing that concerns a client.
    ///
    /// # Errors
    /// `WatchEventParse` if it looks like JSON and cannot be read.
    pub fn of_frame(frame: Frame) -> Result<Option<Self>> {
        let text = frame.data.trim();
        // First of all, as events that are none of ours may hold anything.
        let named = serde_json::from_str::<Named>(text).unwrap_or_default();
        let name = match (named.event.trim(), frame.event.trim()) {
            ("", "") => "message",
            ("", name) | (name, _) => name,
        };
        let is_known = matches!(
            name,
            "connected" | "heartbeat" | "resync" | "degraded" | "message"
        );
        if !is_known {
            // Also an agent's own `disconnected`: the stream ends, and that is what counts.
            return Ok(None);
        }
        let payload = match serde_json::from_str::<Payload>(text) {
            _ if text.is_empty() => Payload::default(),
            Ok(payload) => payload,
            Err(_) if name == "message" && text.starts_with(['{', '[']) => return Ok(None),
            Err(error) if text.starts_with(['{', '[']) => {
                return Err(AgentError::WatchEventParse {
                    event_type: printable(name),
                    event_id: printable(frame.id),
                    payload: printable(text),
                    reason: printable(error),
                });
            }
            Err(_) => Payload {
                message: text.to_owned(),
                ..Payload::default()
            },
        };
        let kind = match name {
            "connected" => EventKind::Connected,
            "heartbeat" => EventKind::Heartbeat,
            "resync" => EventKind::Resync,
            "degraded" => EventKind::Degraded,
            "message" if payload.message.eq_ignore_ascii_case("ok") => EventKind::Connected,
            _ => return Ok(None),
        };
        Ok(Some(Self {
            kind,
            event_id: frame.id,
            message: payload.message,
            service: payload.service,
            status: payload.status,
            lifecycle_state: payload.lifecycle_state,
            ready: payload.ready,
            generated_at: payload.generated_at,
            error: None,
        }))
    }

    /// Whether it says that the agent is there.
    pub fn is_connected(&self) -> bool {
        !matches!(self.kind, EventKind::Disconnected | EventKind::Missed(_))
    }
}

impl From<Missed> for ConnectionEvent {
    fn from(missed: Missed) -> Self {
        Self::new(EventKind::Missed(missed.count))
    }
}

/// Says which event it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    #[serde(deserialize_with = "text")]
    event: String,
}

/// What a structured event holds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Payload {
    #[serde(deserialize_with = "text")]
    message: String,
    #[serde(deserialize_with = "text")]
    service: String,
    #[serde(deserialize_with = "text")]
    status: String,
    #[serde(deserialize_with = "text")]
    lifecycle_state: String,
    ready: Option<bool>,
    #[serde(deserialize_with = "time")]
    generated_at: Option<SystemTime>,
}

/// `null` is an empty text, as in Go.
fn text<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<String, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.unwrap_or_default())
}

fn time<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<SystemTime>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let at = parse_rfc3339(&text);
    at.map(Some)
        .ok_or_else(|| serde::de::Error::custom("generated_at is no RFC 3339 time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(id: &str, event: &str, data: &str) -> Result<Option<ConnectionEvent>> {
        ConnectionEvent::of_frame(Frame {
            id: id.into(),
            event: event.into(),
            data: data.into(),
        })
    }

    fn kind(event: &str, data: &str) -> Option<EventKind> {
        read("", event, data).unwrap().map(|event| event.kind)
    }

    #[test]
    fn a_structured_event_is_read_with_all_its_fields() {
        let data = r#"{"event":"connected","message":"watch stream established","service":"sidecar-agent","status":"ready","lifecycle_state":"running","ready":true,"generated_at":"2026-04-17T10:00:00Z"}"#;
        let event = read("1", "connected", data).unwrap().unwrap();
        assert_eq!(event.kind, EventKind::Connected);
        assert_eq!(
            (event.event_id.as_str(), event.status.as_str()),
            ("1", "ready")
        );
        assert_eq!(event.message, "watch stream established");
        assert_eq!(
            (event.service.as_str(), event.lifecycle_state.as_str()),
            ("sidecar-agent", "running")
        );
        assert_eq!(event.ready, Some(true));
        assert_eq!(event.generated_at, parse_rfc3339("2026-04-17T10:00:00Z"));
        let bare = read("", "heartbeat", "{}").unwrap().unwrap();
        assert_eq!((bare.ready, bare.generated_at), (None, None));
    }

    #[test]
    fn the_first_generations_events_connect() {
        assert_eq!(kind("connected", "ok"), Some(EventKind::Connected));
        assert_eq!(kind("", "ok"), Some(EventKind::Connected));
        assert_eq!(kind("message", " OK "), Some(EventKind::Connected));
        assert_eq!(kind("connected", ""), Some(EventKind::Connected));
    }

    #[test]
    fn what_is_unknown_is_ignored_also_an_agents_own_disconnected() {
        for (event, data) in [
            ("", "hello"),
            ("ready", "{}"),
            ("disconnected", r#"{"event":"disconnected"}"#),
            ("connected", r#"{"event":"disconnected"}"#),
            ("routes", r#"{"message":{"of":["another","shape"]}}"#),
            ("routes", "[1"),
            ("", r#"{"message":1}"#),
        ] {
            assert_eq!(kind(event, data), None, "{event} {data}");
        }
        let nulls = r#"{"event":null,"message":null,"service":null,"status":null,"lifecycle_state":null,"ready":null,"generated_at":null}"#;
        assert_eq!(kind("heartbeat", nulls), Some(EventKind::Heartbeat));
    }

    #[test]
    fn what_the_payload_says_counts_before_the_name_of_the_frame() {
        assert_eq!(
            kind("x", r#"{"event":"heartbeat"}"#),
            Some(EventKind::Heartbeat)
        );
        assert_eq!(
            kind("heartbeat", r#"{"event":" "}"#),
            Some(EventKind::Heartbeat)
        );
        assert_eq!(kind("", r#"{"event":"resync"}"#), Some(EventKind::Resync));
    }

    #[test]
    fn bad_json_is_an_error_with_id_and_payload() {
        for data in [
            "{\"event\":",
            "[1]",
            "{\"ready\":\"yes\"}",
            "{\"generated_at\":\"now\u{1b}\"}",
        ] {
            let error = read("7", "connected", data).unwrap_err();
            let AgentError::WatchEventParse {
                event_type,
                event_id,
                payload,
                ..
            } = &error
            else {
                panic!("{error}");
            };
            assert_eq!((event_type.as_str(), event_id.as_str()), ("connected", "7"));
            assert!(payload.starts_with(&data[..3]) && !error.to_string().contains('\u{1b}'));
        }
    }
}
