//! What a subscriber is told of calls. A program of its own: tracing remembers what a thread without a subscriber made of a span.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::echo::{EchoClient, Text};
use common::raw::{Raw, answer};
use common::{Set, TestServer, eventually, ready, within};
use h2::Reason;
use h2::server::Builder;
use sd_grpc::Idempotent;
use sd_grpc::instrument::SPANS;
use tonic::codegen::http::HeaderMap;
use tonic::{Request, Status};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Instrument, Subscriber, info_span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// What is known of a span.
#[derive(Clone, Debug, Default)]
struct Seen {
    id: u64,
    name: &'static str,
    parent: Option<&'static str>,
    fields: BTreeMap<String, String>,
    closed: bool,
}

/// Notes every span of calls, and `outer`.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

impl Spans {
    fn change(&self, id: &Id, change: impl FnOnce(&mut Seen)) {
        let mut all = self.0.lock().unwrap();
        // Numbers of spans that are closed are given again.
        if let Some(seen) = all.iter_mut().rev().find(|seen| seen.id == id.into_u64()) {
            change(seen);
        }
    }

    fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}").trim_matches('"').to_owned();
        self.fields.insert(field.name().to_owned(), value);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let metadata = attributes.metadata();
        if metadata.target() != SPANS && metadata.name() != "outer" {
            return;
        }
        let parent = context.span(id).and_then(|span| span.parent());
        let mut seen = Seen {
            id: id.into_u64(),
            name: metadata.name(),
            parent: parent.map(|parent| parent.name()),
            ..Seen::default()
        };
        attributes.record(&mut seen);
        self.0.lock().unwrap().push(seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.change(id, |seen| values.record(seen));
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.change(&id, |seen| seen.closed = true);
    }
}

#[tokio::test]
async fn a_call_has_a_span_with_its_attempts_until_its_response_has_ended() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let asked = Arc::new(AtomicBool::new(false));
    let server = || {
        let asked = Arc::clone(&asked);
        TestServer::answering(move |_| {
            let first = !asked.swap(true, Ordering::SeqCst);
            async move {
                if first {
                    return Err(Status::unavailable("not now"));
                }
                Ok(Text::new("done"))
            }
        })
    };
    let (one, other) = (server(), server());
    let set = Set::of([one.instance(), other.instance()]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 2).await;
    let mut client = EchoClient::new(channel);

    let mut request = Request::new(Text::new("hello"));
    request.extensions_mut().insert(Idempotent);
    let outer = info_span!("outer");
    within("an answer", client.unary(request).instrument(outer))
        .await
        .unwrap();
    let [_, call, first, second] = &spans.all()[..] else {
        panic!("{:?}", spans.all());
    };
    assert_eq!((call.name, call.parent), ("call", Some("outer")));
    let status = "rpc.response.status_code";
    for (field, value) in [
        ("otel.name", "test.Echo/Unary"),
        ("otel.kind", "client"),
        ("rpc.system.name", "grpc"),
        ("rpc.method", "test.Echo/Unary"),
        ("server.address", "echo"),
        (status, "OK"),
    ] {
        assert_eq!(call.fields[field], value, "{call:?}");
    }
    assert!(!call.fields.contains_key("error.type"), "{call:?}");
    let mut asked = Vec::new();
    for (attempt, number, code) in [(first, "1", "UNAVAILABLE"), (second, "2", "OK")] {
        assert_eq!((attempt.name, attempt.parent), ("attempt", Some("call")));
        assert_eq!(attempt.fields["number"], number);
        assert_eq!(attempt.fields[status], code);
        asked.push(attempt.fields["endpoint"].clone());
    }
    asked.sort();
    let mut servers = [one.address.to_string(), other.address.to_string()];
    servers.sort();
    assert_eq!(asked, servers);
    assert!(spans.all().iter().all(|span| span.closed));

    let stream = client.split("a b").await.unwrap();
    let open = |spans: &Spans| spans.all().iter().filter(|span| !span.closed).count();
    assert_eq!(open(&spans), 2, "the call and its attempt");
    drop(stream);
    eventually("both are closed", || open(&spans) == 0).await;
    let all = spans.all();
    let call = all.iter().rfind(|span| span.name == "call").unwrap();
    assert_eq!(call.fields[status], "CANCELLED");
    assert_eq!(call.fields["otel.status_code"], "ERROR");

    each_attempt_has_a_number_of_its_own(&spans).await;
}

/// Also one that does not count, because the server refused it without a look.
async fn each_attempt_has_a_number_of_its_own(spans: &Spans) {
    let asked = Arc::new(AtomicBool::new(false));
    let settings = Builder::new();
    let server = || {
        let asked = Arc::clone(&asked);
        Raw::start(&settings, None, move |_, mut respond| {
            if asked.swap(true, Ordering::SeqCst) {
                answer(respond, HeaderMap::new());
            } else {
                respond.send_reset(Reason::REFUSED_STREAM);
            }
            std::future::ready(())
        })
    };
    let (one, other) = (server().await, server().await);
    let set = Set::of([one.instance(), other.instance()]);
    let channel = set.channel().build().unwrap();
    ready(&channel, 2).await;
    let before = spans.all().len();
    EchoClient::new(channel).say("hello").await.unwrap();
    let all = spans.all();
    let attempts = all[before..].iter().filter(|span| span.name == "attempt");
    let numbers: Vec<_> = attempts.map(|span| &*span.fields["number"]).collect();
    assert_eq!(numbers, ["1", "2"]);
}
