//! One instance among thousands changes: sd-zk beside the client crate, both with a watch on each record.

use std::sync::Arc;
use std::time::Duration;

use sd_core::{InstanceId, Registry, Subscription};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use zookeeper_client as zk;

use super::server::{Server, ephemeral, make};
use super::{PATIENCE, connect};
use crate::harness::interleave;
use crate::part::{Part, group_of, spread, table_of};
use crate::report::Bar;
use crate::source::PAUSE;
use crate::stats::{Ratio, Spread};
use crate::{Effort, Error, Result};

const INSTANCES: usize = 5_000;
/// The one that changes.
const CHANGING: usize = INSTANCES / 2;
const LIMIT: f64 = 1.5;
/// Requests that are under way at a time, while records are made and read for the first time.
const AT_ONCE: usize = 200;
const NAMES: [&str; 2] = ["sd-zk", "raw zookeeper-client"];

pub(super) fn measure(effort: Effort, runtime: &Runtime, server: &Server) -> Result<Part> {
    let samples = effort.pick(200, 10);
    let mut contenders = runtime.block_on(async {
        Ok::<_, Error>([
            Contender::Ours(Box::new(Ours::connect(server).await?)),
            Contender::Raw(Box::new(Raw::connect(server).await?)),
        ])
    })?;
    let mut change = 0;
    let figures = interleave(&mut contenders, samples, |contender| {
        change += 1;
        contender.sample(runtime, server, change)
    })?;
    let times: Vec<Vec<Duration>> = figures
        .iter()
        .map(|of| of.iter().map(|(time, _)| *time).collect())
        .collect();
    let reads = [0, 1].map(|nth: usize| {
        let reads = figures[nth].iter().map(|(_, requests)| *requests);
        Spread::of(reads).median
    });
    let rows = || NAMES.into_iter().zip(times.iter().map(Vec::as_slice));
    let ratio = Ratio::of(&times[0], &times[1], Duration::as_secs_f64);
    let medians = spread(&times[0]).median / spread(&times[1]).median;
    let text = format!(
        "{METHOD}\n{samples} changes for each:\n\n{}\nRatio of the medians: {medians:.2}. Median of the paired ratios: {:.2} \
         (quartiles {:.2}–{:.2}), below 1 in {} of {}. Requests of the reader for each change (medians): {:.0}, and {:.0} of the raw \
         client.\n",
        table_of(rows()),
        ratio.median(),
        ratio.spread.quarter,
        ratio.spread.three_quarters,
        ratio.less,
        ratio.rounds,
        reads[0],
        reads[1],
    );
    Ok(Part {
        text,
        bars: vec![
            Bar::at_most(
                format!(
                    "one instance among {INSTANCES} changes, beside raw zookeeper-client, ratio of medians"
                ),
                medians,
                LIMIT,
                |ratio| format!("{ratio:.2}×"),
            ),
            Bar::at_most(
                format!("one instance among {INSTANCES} changes, requests of the reader, median"),
                reads[0],
                1.0,
                |reads| format!("{reads:.0}"),
            ),
        ],
        groups: vec![group_of(&format!("one change among {INSTANCES}"), rows())],
    })
}

enum Contender {
    Ours(Box<Ours>),
    Raw(Box<Raw>),
}

impl Contender {
    /// From the write to the moment at which the reader has it, and how many requests the reader sent meanwhile.
    fn sample(
        &mut self,
        runtime: &Runtime,
        server: &Server,
        change: usize,
    ) -> Result<(Duration, f64)> {
        runtime.block_on(async { sleep(PAUSE).await });
        let session = match self {
            Self::Ours(ours) => &ours.session,
            Self::Raw(raw) => &raw.session,
        }
        .clone();
        let before = server.requests(Some(&session))?;
        let seen = runtime.block_on(async {
            let seen = async {
                match self {
                    Self::Ours(ours) => ours.sample(change).await,
                    Self::Raw(raw) => raw.sample(change).await,
                }
            };
            timeout(PATIENCE, seen).await?
        })?;
        let requests = server.requests(Some(&session))?.saturating_sub(before);
        Ok((seen, f64::from(u32::try_from(requests)?)))
    }
}

/// A service whose records an operator has made.
struct Service {
    operator: Arc<zk::Client>,
    folder: String,
}

impl Service {
    async fn fill(server: &Server, folder: &str) -> Result<Self> {
        let operator = Arc::new(server.client().await?);
        make(&operator, folder).await?;
        let service = Self {
            operator,
            folder: folder.to_owned(),
        };
        let mut making = JoinSet::new();
        for nth in 0..INSTANCES {
            if making.len() == AT_ONCE
                && let Some(made) = making.join_next().await
            {
                made??;
            }
            let (operator, path) = (Arc::clone(&service.operator), service.path(nth));
            making.spawn(async move {
                let created = operator.create(&path, &record(nth, 0), &ephemeral());
                created.await.map(drop)
            });
        }
        while let Some(made) = making.join_next().await {
            made??;
        }
        Ok(service)
    }

    fn path(&self, nth: usize) -> String {
        format!("{}/{}", self.folder, id(nth))
    }

    async fn change(&self, change: usize) -> Result<()> {
        let (path, record) = (self.path(CHANGING), record(CHANGING, change));
        self.operator.set_data(&path, &record, None).await?;
        Ok(())
    }
}

fn id(nth: usize) -> String {
    format!("instance-{nth:06}")
}

/// As Curator writes it.
fn record(nth: usize, change: usize) -> Vec<u8> {
    let payload = json!({"owner": "payments", "commit": "0123456789abcdef", "change": change});
    let record = json!({"name": "bench-large", "id": id(nth), "address": "10.0.0.1", "port": 1 + nth, "sslPort": null,
        "payload": payload, "registrationTimeUTC": 1_700_000_000_000_u64, "serviceType": "DYNAMIC", "uriSpec": null});
    record.to_string().into_bytes()
}

/// A subscription.
struct Ours {
    service: Service,
    _registry: Registry,
    subscription: Subscription,
    changing: InstanceId,
    session: String,
}

impl Ours {
    async fn connect(server: &Server) -> Result<Self> {
        let service = Service::fill(server, "/bench/services/bench-large").await?;
        let registry = connect(server)?;
        let mut subscription = registry.subscribe("bench-large")?;
        let mut state = subscription.wait_until_known(PATIENCE).await?;
        while state.snapshot().len() < INSTANCES {
            state = timeout(PATIENCE, subscription.changed()).await??;
        }
        Ok(Self {
            // Of the session that the feed is in.
            session: state.snapshot().revision().domain().to_owned(),
            service,
            _registry: registry,
            subscription,
            changing: InstanceId::new(id(CHANGING))?,
        })
    }

    async fn sample(&mut self, change: usize) -> Result<Duration> {
        let change_text = change.to_string();
        self.subscription.state_and_mark_seen();
        let began = Instant::now();
        let seen = async {
            loop {
                let state = self.subscription.changed().await?;
                let changed = state.snapshot().get(&self.changing);
                let change = changed.and_then(|one| one.metadata().get("change"));
                if change.is_some_and(|change| *change == *change_text) {
                    return Ok::<_, Error>(began.elapsed());
                }
            }
        };
        let (seen, ()) = tokio::try_join!(seen, self.service.change(change))?;
        Ok(seen)
    }
}

/// What a program does that has only the client crate: a watch on each record, which is read again when that tells.
struct Raw {
    service: Service,
    reader: Arc<zk::Client>,
    records: Vec<Value>,
    /// Tell which record has changed.
    watches: JoinSet<usize>,
    session: String,
}

impl Raw {
    async fn connect(server: &Server) -> Result<Self> {
        let service = Service::fill(server, "/bench/raw-large").await?;
        let reader = Arc::new(server.client().await?);
        let session = format!("{:#x}", reader.session_id().0);
        let mut raw = Self {
            service,
            reader,
            records: vec![Value::Null; INSTANCES],
            watches: JoinSet::new(),
            session,
        };
        let mut reading = JoinSet::new();
        for nth in 0..INSTANCES {
            if reading.len() == AT_ONCE
                && let Some(read) = reading.join_next().await
            {
                raw.take(read??)?;
            }
            reading.spawn(read(Arc::clone(&raw.reader), raw.service.path(nth), nth));
        }
        while let Some(read) = reading.join_next().await {
            raw.take(read??)?;
        }
        Ok(raw)
    }

    fn take(&mut self, (nth, record, changed): (usize, Vec<u8>, zk::OneshotWatcher)) -> Result<()> {
        self.records[nth] = serde_json::from_slice(&record)?;
        self.watches.spawn(async move {
            changed.changed().await;
            nth
        });
        Ok(())
    }

    async fn sample(&mut self, change: usize) -> Result<Duration> {
        let began = Instant::now();
        let (reader, path) = (Arc::clone(&self.reader), self.service.path(CHANGING));
        let watches = &mut self.watches;
        let told = async {
            let changed = watches.join_next().await.ok_or("no watch is set")??;
            read(reader, path, changed).await
        };
        let (read, ()) = tokio::try_join!(told, self.service.change(change))?;
        self.take(read)?;
        let seen = began.elapsed();
        if self.records[CHANGING]["payload"]["change"] != change {
            return Err("another record was told to have changed".into());
        }
        Ok(seen)
    }
}

async fn read(
    reader: Arc<zk::Client>,
    path: String,
    nth: usize,
) -> Result<(usize, Vec<u8>, zk::OneshotWatcher)> {
    let (record, _, changed) = reader.get_and_watch_data(&path).await?;
    Ok((nth, record, changed))
}

const METHOD: &str = "\
**One change among many.** An operator changes the record of one of 5000 instances. Both have a watch on each record, and read the one
that tells again; ours then publishes a set of all of them. The clock runs from the write to the moment at which the reader has the change.
Requests are those that the server counts in the reader's session.
";
