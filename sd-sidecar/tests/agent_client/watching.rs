//! The stream of an agent, as it is and as it should not be.

use std::time::Duration;

use futures_util::StreamExt;
use sd_sidecar::agent::{
    AgentError, ConnectionEvent, ConnectionEvents, EventKind, EventSource, HttpClient, WatchSource,
};
use sd_sidecar::wire::parse_rfc3339;
use tokio::time::{Instant, timeout};

use crate::fake_agent::{FakeAgent, SOON};

const INTERVAL: Duration = Duration::from_millis(50);

fn source(agent: &FakeAgent) -> WatchSource {
    let http = HttpClient::new(&agent.url, SOON).unwrap();
    WatchSource::new(http, "/watch", INTERVAL).with_silence(SOON)
}

async fn next(events: &mut ConnectionEvents) -> ConnectionEvent {
    timeout(SOON, events.next())
        .await
        .expect("an event")
        .expect("the source goes on")
}

/// The events of one stream up to its end.
async fn events_of(stream: &str) -> Vec<ConnectionEvent> {
    let mut agent = FakeAgent::start().await;
    let mut events = source(&agent).subscribe().await.unwrap();
    let mut watch = agent.watch().await.open().await;
    watch.send(stream).await;
    watch.close().await;
    let mut seen = Vec::new();
    loop {
        let event = next(&mut events).await;
        let is_last = event.kind == EventKind::Disconnected;
        seen.push(event);
        if is_last {
            return seen;
        }
    }
}

/// S1.
#[tokio::test]
async fn a_structured_stream_is_read_with_ids_and_all_fields() {
    let events = events_of(concat!(
        "id: 1\nevent: connected\ndata: {\"event\":\"connected\",\"message\":\"watch stream established\",",
        "\"service\":\"sidecar-agent\",\"status\":\"ready\",\"lifecycle_state\":\"running\",\"ready\":true,",
        "\"generated_at\":\"2026-04-17T10:00:00Z\"}\n\n",
        "id: 2\nevent: heartbeat\ndata: {\"event\":\"heartbeat\",\"ready\":false,\"generated_at\":\"2026-04-17T10:00:05Z\"}\n\n",
    ))
    .await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::Connected,
            EventKind::Heartbeat,
            EventKind::Disconnected
        ]
    );
    let [first, second, last] = &events[..] else {
        unreachable!()
    };
    assert_eq!(
        (first.event_id.as_str(), first.message.as_str()),
        ("1", "watch stream established")
    );
    assert_eq!(
        (first.service.as_str(), first.status.as_str()),
        ("sidecar-agent", "ready")
    );
    assert_eq!(
        (first.lifecycle_state.as_str(), first.ready),
        ("running", Some(true))
    );
    assert_eq!(first.generated_at, parse_rfc3339("2026-04-17T10:00:00Z"));
    assert_eq!((second.event_id.as_str(), second.ready), ("2", Some(false)));
    assert_eq!(
        last.error.as_ref().unwrap().to_string(),
        "watch stream closed"
    );
    assert!(last.event_id.is_empty(), "no id is carried over");
}

/// S2, S7, S8, S10 to S14.
#[tokio::test]
async fn streams_of_every_form_are_read() {
    use EventKind::{Connected, Heartbeat};
    let long = format!(
        "event: connected\ndata: {{\"message\":\"{}\"}}\n\n",
        "x".repeat(70 * 1024)
    );
    for (stream, kinds) in [
        (
            "event: connected\ndata: ok\n\n: heartbeat\n\n",
            vec![Connected],
        ),
        ("data: ok\n\n", vec![Connected]),
        ("data: OK\r\n\r\n", vec![Connected]),
        ("event: connected\ndata: ok", vec![Connected]),
        (long.as_str(), vec![Connected]),
        ("event: heartbeat\ndata: {\ndata: }\n\n", vec![Heartbeat]),
        (
            "event: ready\ndata: {}\n\ndata: hello\n\nevent: disconnected\ndata: {}\n\nevent: heartbeat\n\n",
            vec![Heartbeat],
        ),
        (
            "event: x\ndata: {\"event\":\"connected\"}\n\n",
            vec![Connected],
        ),
        ("", vec![]),
    ] {
        let events = events_of(stream).await;
        let seen: Vec<_> = events[..events.len() - 1]
            .iter()
            .map(|event| event.kind)
            .collect();
        assert_eq!(seen, kinds, "{stream:.100}");
    }
    let ids: Vec<_> = events_of("id: 7\ndata: ok\n\nevent: heartbeat\n\n").await;
    assert_eq!(
        (ids[0].event_id.as_str(), ids[1].event_id.as_str()),
        ("7", "")
    );
}

/// S3 and S4.
#[tokio::test]
async fn a_refused_stream_is_tried_again_after_the_interval() {
    let mut agent = FakeAgent::start().await;
    let mut events = source(&agent).subscribe().await.unwrap();
    for status in [
        "503 Service Unavailable",
        "502 Bad Gateway",
        "204 No Content",
    ] {
        agent.watch().await.refuse(status).await;
        let refused = Instant::now();
        let event = next(&mut events).await;
        let error = event.error.unwrap();
        assert_eq!(error.to_string(), format!("watch stream refused: {status}"));
        assert_eq!(error.kind(), "watch_http_status");
        // The next attempt is what opens the next stream.
        let watch = agent.watch().await;
        assert!(refused.elapsed() >= INTERVAL, "{:?}", refused.elapsed());
        watch.open().await.close().await;
        assert_eq!(
            next(&mut events).await.error.unwrap().kind(),
            "watch_stream_closed"
        );
    }
}

/// S9.
#[tokio::test]
async fn an_event_that_cannot_be_read_ends_the_connection_and_is_shown() {
    let mut agent = FakeAgent::start().await;
    let mut events = source(&agent).subscribe().await.unwrap();
    let mut watch = agent.watch().await.open().await;
    watch
        .send("id: 9\nevent: connected\ndata: {\"ready\":\n\n")
        .await;
    let error = next(&mut events).await.error.unwrap();
    let AgentError::WatchEventParse {
        event_id, payload, ..
    } = &*error
    else {
        panic!("{error}");
    };
    assert_eq!((event_id.as_str(), payload.as_str()), ("9", "{\"ready\":"));
    watch.gone().await;
    agent.connected().await;
    assert_eq!(next(&mut events).await.kind, EventKind::Connected);
}

/// S6.
#[tokio::test]
async fn dropping_the_events_ends_the_connection_and_the_attempts() {
    let mut agent = FakeAgent::start().await;
    let mut events = source(&agent).subscribe().await.unwrap();
    let mut watch = agent.connected().await;
    assert_eq!(next(&mut events).await.kind, EventKind::Connected);
    drop(events);
    watch.gone().await;
    assert!(agent.is_left_alone(6 * INTERVAL).await);

    // So it is during a pause.
    let mut events = source(&agent).subscribe().await.unwrap();
    agent.watch().await.refuse("503 Service Unavailable").await;
    next(&mut events).await;
    drop(events);
    assert!(agent.is_left_alone(6 * INTERVAL).await);
}

/// The reference system's stream that is waited for without an end (C3): an agent that hangs, and a connection that is half open.
#[tokio::test]
async fn a_stream_that_falls_silent_counts_as_lost() {
    let mut agent = FakeAgent::start().await;
    let silence = Duration::from_millis(300);
    let mut events = source(&agent)
        .with_silence(silence)
        .subscribe()
        .await
        .unwrap();
    let mut watch = agent.connected().await;
    assert_eq!(next(&mut events).await.kind, EventKind::Connected);
    let error = next(&mut events).await.error.unwrap();
    assert!(
        matches!(&*error, AgentError::WatchStreamSilent { after } if *after == silence),
        "{error}"
    );
    watch.gone().await;
    agent.connected().await;
    assert_eq!(next(&mut events).await.kind, EventKind::Connected);
}

/// The reference system's comments, which are ignored entirely (C3).
#[tokio::test]
async fn comments_are_signs_of_life() {
    let mut agent = FakeAgent::start().await;
    let silence = Duration::from_secs(3);
    let mut events = source(&agent)
        .with_silence(silence)
        .subscribe()
        .await
        .unwrap();
    let mut watch = agent.connected().await;
    assert_eq!(next(&mut events).await.kind, EventKind::Connected);
    let begin = Instant::now();
    while begin.elapsed() < silence + silence / 2 {
        watch.send(": heartbeat\n\n").await;
        let quiet = timeout(silence / 10, events.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
}

#[tokio::test]
async fn an_agent_that_takes_the_connection_and_answers_nothing_is_given_up() {
    let mut agent = FakeAgent::start().await;
    let http = HttpClient::new(&agent.url, Duration::from_millis(200)).unwrap();
    let mut events = WatchSource::new(http, "/watch", INTERVAL)
        .subscribe()
        .await
        .unwrap();
    let mut watch = agent.watch().await;
    let error = next(&mut events).await.error.unwrap();
    assert!(matches!(&*error, AgentError::TimedOut { .. }), "{error}");
    watch.gone().await;
}

#[tokio::test]
async fn an_event_that_never_ends_is_given_up() {
    let mut agent = FakeAgent::start().await;
    let mut events = source(&agent).subscribe().await.unwrap();
    let mut watch = agent.watch().await.open().await;
    let flood = tokio::spawn(async move {
        let line = format!("data: {}\n", "x".repeat(60_000));
        for _ in 0..30 {
            watch.send(&line).await;
        }
    });
    let error = next(&mut events).await.error.unwrap();
    assert!(
        error
            .to_string()
            .contains("an event is longer than 1048576 bytes"),
        "{error}"
    );
    let _ = flood.await;
}

/// The reference system's fixed pause (C4).
#[tokio::test]
async fn pauses_grow_until_an_agent_connects() {
    let mut agent = FakeAgent::start().await;
    let mut events = source(&agent).subscribe().await.unwrap();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let begin = Instant::now();
        agent.watch().await.refuse("503 Service Unavailable").await;
        next(&mut events).await;
        pauses.push(begin.elapsed());
    }
    let begin = Instant::now();
    agent.connected().await.close().await;
    let grown = begin.elapsed() + pauses.iter().skip(1).sum();
    // Six pauses of at least one interval, which would be 6 intervals if they did not grow. At random they are 66 on average.
    assert!(grown > 8 * INTERVAL, "{pauses:?}");
    assert_eq!(next(&mut events).await.kind, EventKind::Connected);
    next(&mut events).await;
    let begin = Instant::now();
    agent.connected().await;
    // A pause that had grown on would be of 1 to 128 intervals.
    assert!(begin.elapsed() < 40 * INTERVAL, "{:?}", begin.elapsed());
}
