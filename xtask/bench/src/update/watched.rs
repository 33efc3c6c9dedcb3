//! A balanced channel of many endpoints in this process, and the moments at which it publishes a set.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use examples::Hello;
use examples::greeter::GreeterServer;
use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use sd_grpc::{BalancedChannel, ChannelConfig, instrument};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::source::Source;
use crate::{Error, Result};

/// What a connection may hold on its way, each way.
const BUFFER: usize = 4096;
/// Connections that wait to be accepted.
const BACKLOG: usize = 128;

/// A channel over pipes to one server in this process.
#[derive(Debug)]
pub(super) struct Watched {
    _channel: BalancedChannel,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    published: watch::Receiver<Published>,
    connects: Arc<AtomicUsize>,
}

/// A publishing as its metrics tell it, right before the set is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Published {
    pub(super) at: Instant,
    pub(super) ready: f64,
}

impl Watched {
    pub(super) fn build(source: &Arc<Source>, service: &str) -> Result<Self> {
        let (pipes, accepted) = mpsc::channel(BACKLOG);
        let server = tokio::spawn(
            Server::builder()
                .add_service(GreeterServer::new(Hello::from("pipe")))
                .serve_with_incoming(
                    ReceiverStream::new(accepted).map(Ok::<DuplexStream, io::Error>),
                ),
        );
        let connects = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connects);
        let connector = move |_| {
            let pipes = pipes.clone();
            counted.fetch_add(1, Ordering::Relaxed);
            async move {
                let (ours, theirs) = duplex(BUFFER);
                let gone = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
                pipes.send(theirs).await.map_err(gone)?;
                Ok(ours)
            }
        };
        let (sender, published) = watch::channel(Published {
            at: Instant::now(),
            ready: 0.0,
        });
        let mut config = ChannelConfig::default();
        // Pipes in memory take no descriptors.
        config.descriptor_share = None;
        let channel = with_local_recorder(&Stamps(Arc::new(ReadyGauge(sender))), || {
            BalancedChannel::builder(source, service)
                .config(config)
                .connector(connector)
                .build()
        })?;
        Ok(Self {
            _channel: channel,
            server,
            published,
            connects,
        })
    }

    /// How many connections were opened so far.
    pub(super) fn connects(&self) -> usize {
        self.connects.load(Ordering::Relaxed)
    }

    /// Forgets what was published so far.
    pub(super) fn mark_seen(&mut self) {
        self.published.mark_unchanged();
    }

    /// Waits for the next publishing with so many ready endpoints.
    pub(super) async fn published(&mut self, ready: usize, within: Duration) -> Result<Published> {
        let ready = f64::from(u32::try_from(ready)?);
        let told = async {
            loop {
                self.published.changed().await?;
                let published = *self.published.borrow_and_update();
                if (published.ready - ready).abs() < 0.5 {
                    return Ok::<_, Error>(published);
                }
            }
        };
        timeout(within, told)
            .await
            .map_err(|_| format!("no set with {ready} ready endpoints within {within:?}"))?
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Hands out one gauge that notes when it is set, and nothing else.
struct Stamps(Arc<ReadyGauge>);

struct ReadyGauge(watch::Sender<Published>);

impl GaugeFn for ReadyGauge {
    fn increment(&self, _: f64) {}

    fn decrement(&self, _: f64) {}

    fn set(&self, ready: f64) {
        let at = Instant::now();
        self.0.send_replace(Published { at, ready });
    }
}

impl Recorder for Stamps {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let is_ready = key.labels().any(|label| label.value() == "ready");
        if key.name() == instrument::ENDPOINTS && is_ready {
            Gauge::from_arc(Arc::clone(&self.0))
        } else {
            Gauge::noop()
        }
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
