//! Calls through a channel, whatever it is made of, and what became of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use examples::greeter::{GreeterClient, HelloRequest};
use sd_grpc::Idempotent;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Code, Request};

use crate::Result;
use crate::cores::processor_time;
use crate::stream_service::StreamsClient;
use crate::transport::Transport;

/// What one call does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Unary,
    /// Receives so many messages.
    Download(usize),
    /// Sends so many messages and receives as many.
    Echo(usize),
}

/// How calls are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) shape: Shape,
    pub(crate) calls: usize,
    pub(crate) in_flight: usize,
    pub(crate) deadline: Duration,
    /// Whether calls are marked as safe to be executed twice.
    pub(crate) idempotent: bool,
}

/// What became of them.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How long each call took, whether it failed or not.
    pub(crate) times: Vec<Duration>,
    pub(crate) failed: BTreeMap<i32, usize>,
    pub(crate) took: Duration,
    /// The processor time of this whole process meanwhile.
    pub(crate) processor: Duration,
}

impl Outcome {
    pub(crate) fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    /// The status codes of the failed calls.
    pub(crate) fn codes(&self) -> String {
        let codes: Vec<String> = self
            .failed
            .iter()
            .map(|(code, count)| format!("{count} {:?}", Code::from(*code)))
            .collect();
        codes.join(", ")
    }
}

type Calling = Pin<Box<dyn Future<Output = Result<Outcome>> + Send>>;

/// A channel of any kind.
pub(crate) struct Client {
    pub(crate) name: &'static str,
    pub(crate) ours: bool,
    call: Box<dyn Fn(Load) -> Calling + Send>,
}

impl Client {
    /// A client over `channel`, and whatever must live as long as it.
    pub(crate) fn new<T: Transport, K: Send + Sync + 'static>(
        name: &'static str,
        ours: bool,
        channel: T,
        keep: K,
    ) -> Self {
        let keep = Arc::new(keep);
        Self {
            name,
            ours,
            call: Box::new(move |load| {
                let (channel, keep) = (channel.clone(), Arc::clone(&keep));
                Box::pin(async move {
                    let outcome = run(channel, load).await;
                    drop(keep);
                    outcome
                })
            }),
        }
    }

    /// Makes calls.
    pub(crate) async fn run(&self, load: Load) -> Result<Outcome> {
        (self.call)(load).await
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

async fn run<T: Transport>(channel: T, load: Load) -> Result<Outcome> {
    let left = Arc::new(AtomicUsize::new(load.calls));
    let (started, used) = (Instant::now(), processor_time());
    let mut callers: JoinSet<Outcome> = (0..load.in_flight)
        .map(|_| caller(channel.clone(), Arc::clone(&left), load))
        .collect();
    let mut all = Outcome::default();
    while let Some(outcome) = callers.join_next().await {
        let outcome = outcome?;
        all.times.extend(outcome.times);
        for (code, count) in outcome.failed {
            *all.failed.entry(code).or_default() += count;
        }
    }
    all.took = started.elapsed();
    all.processor = processor_time().saturating_sub(used);
    Ok(all)
}

/// One call after the other, as long as there are some left for all callers together.
async fn caller<T: Transport>(channel: T, left: Arc<AtomicUsize>, load: Load) -> Outcome {
    let mut unary = GreeterClient::new(channel.clone());
    let mut streams = StreamsClient::new(channel);
    let mut outcome = Outcome::default();
    let take = |left: usize| left.checked_sub(1);
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        .is_ok()
    {
        let mut request = Request::new(());
        request.set_timeout(load.deadline);
        if load.idempotent {
            request.extensions_mut().insert(Idempotent);
        }
        let hello = |()| HelloRequest {
            name: "sixteen bytes ok".to_owned(),
        };
        let started = Instant::now();
        let answer = match load.shape {
            Shape::Unary => unary.say_hello(request.map(hello)).await.map(drop),
            Shape::Download(messages) => streams.download(request.map(|()| messages)).await,
            Shape::Echo(messages) => streams.echo(request.map(|()| messages)).await,
        };
        outcome.times.push(started.elapsed());
        if let Err(status) = answer {
            *outcome.failed.entry(status.code().into()).or_default() += 1;
        }
    }
    outcome
}
