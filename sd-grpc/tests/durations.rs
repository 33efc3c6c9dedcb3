//! What a recorder of metrics is told of calls.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use common::echo::{EchoClient, Text, texts};
use common::{TestServer, ready};
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use sd_core::memory::Memory;
use sd_core::{Instance, RegistrationGuard};
use sd_grpc::instrument::CALL_DURATION;
use sd_grpc::{BalancedChannel, CallLabels, ChannelConfig};
use tokio::time::timeout;
use tonic::{Request, Status};

type Labels = BTreeMap<String, String>;

/// Every duration that was recorded in this process, with its labels.
#[derive(Clone, Default)]
struct Durations(Arc<Mutex<Vec<(Labels, f64)>>>);

impl Durations {
    /// The one that is installed.
    fn installed() -> Self {
        static INSTALLED: OnceLock<Durations> = OnceLock::new();
        let installed = INSTALLED.get_or_init(|| {
            let durations = Durations::default();
            metrics::set_global_recorder(durations.clone()).unwrap();
            durations
        });
        installed.clone()
    }

    /// How many were recorded for `service`, by the values of `labels`; nothing for a label that is not there.
    fn count(&self, service: &str, labels: &[&str]) -> BTreeMap<Vec<String>, usize> {
        let mut counts = BTreeMap::new();
        for (all, _) in self.0.lock().unwrap().iter() {
            if all["server.address"] != service {
                continue;
            }
            let value = |label: &&str| all.get(*label).cloned().unwrap_or_default();
            *counts
                .entry(labels.iter().map(value).collect())
                .or_default() += 1;
        }
        counts
    }
}

struct Recorded {
    labels: Labels,
    all: Durations,
}

impl HistogramFn for Recorded {
    fn record(&self, value: f64) {
        let mut all = self.all.0.lock().unwrap();
        all.push((self.labels.clone(), value));
    }
}

impl Recorder for Durations {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        assert_eq!(key.name(), CALL_DURATION);
        let label = |label: &metrics::Label| (label.key().to_owned(), label.value().to_owned());
        Histogram::from_arc(Arc::new(Recorded {
            labels: key.labels().map(label).collect(),
            all: self.clone(),
        }))
    }
}

/// A channel to these servers, as instances of a service of this name.
async fn channel(
    service: &str,
    servers: &[&TestServer],
    labels: CallLabels,
) -> (BalancedChannel, Vec<RegistrationGuard>) {
    let registry = Memory::new().connect();
    let mut guards = Vec::new();
    for server in servers {
        let instance = Instance::new(service, server.address).unwrap();
        guards.push(registry.register(instance).await.unwrap());
    }
    let mut config = ChannelConfig::default();
    config.call_labels = labels;
    let channel = BalancedChannel::builder(&registry, service).config(config);
    let channel = channel.build().unwrap();
    ready(&channel, servers.len()).await;
    (channel, guards)
}

fn owned(expected: &[(&[&str], usize)]) -> BTreeMap<Vec<String>, usize> {
    let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    expected.iter().map(|(w, n)| (owned(w), *n)).collect()
}

#[tokio::test]
async fn every_call_is_timed_once_by_method_and_by_how_it_ended() {
    let durations = Durations::installed();
    let server = TestServer::answering(|seen| async move {
        match seen.text.as_str() {
            "never" => std::future::pending().await,
            "missing" => Err(Status::not_found("no such thing")),
            _ => Ok(Text::new("done")),
        }
    });
    let (channel, _guards) = channel("timed", &[&server], CallLabels::default()).await;
    let mut client = EchoClient::new(channel);

    client.say("a").await.unwrap();
    client.say("b").await.unwrap();
    client.say("missing").await.unwrap_err();
    let mut late = Request::new(Text::new("never"));
    late.set_timeout(Duration::from_millis(50));
    client.unary(late).await.unwrap_err();
    let dropped = timeout(Duration::from_millis(20), client.say("never")).await;
    dropped.unwrap_err();
    let words = client.split("one two three").await.unwrap();
    assert_eq!(texts(words).await.unwrap().len(), 3);
    drop(client.split("one two three").await.unwrap());

    let labels = ["rpc.method", "rpc.response.status_code", "error.type"];
    let (unary, split) = ("test.Echo/Unary", "test.Echo/Split");
    let expected = owned(&[
        (&[unary, "OK", ""], 2),
        (&[unary, "NOT_FOUND", "NOT_FOUND"], 1),
        (&[unary, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"], 1),
        (&[unary, "CANCELLED", "CANCELLED"], 1),
        (&[split, "OK", ""], 1),
        (&[split, "CANCELLED", "CANCELLED"], 1),
    ]);
    assert_eq!(durations.count("timed", &labels), expected);
    let all = durations.0.lock().unwrap();
    let late = all.iter().find(|(labels, _)| {
        labels["server.address"] == "timed"
            && labels["rpc.response.status_code"] == "DEADLINE_EXCEEDED"
    });
    let seconds = late.unwrap().1;
    assert!((0.05..20.0).contains(&seconds), "{seconds} s");
}

#[tokio::test]
async fn endpoints_and_methods_are_told_apart_up_to_their_bounds() {
    let durations = Durations::installed();
    let (one, other) = (TestServer::start(), TestServer::start());
    let labels = CallLabels::none().with_methods(1).with_endpoints(1);
    let (channel, _guards) = channel("bounded", &[&one, &other], labels).await;
    let mut client = EchoClient::new(channel);
    let first = client.say("hello").await.unwrap();
    client.say("hello").await.unwrap();
    for _ in 0..2 {
        texts(client.split("a b").await.unwrap()).await.unwrap();
    }
    let method = "test.Echo/Unary";
    let expected = owned(&[
        (&[method, &first], 1),
        (&[method, "_OTHER"], 1),
        (&["_OTHER", &first], 1),
        (&["_OTHER", "_OTHER"], 1),
    ]);
    assert_eq!(
        durations.count("bounded", &["rpc.method", "endpoint"]),
        expected
    );
}
