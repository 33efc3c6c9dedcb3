//! From register to seen: sd-etcd beside the client crate that it is made of, doing the same requests by hand.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, EventType, PutOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use sd_core::Instance;
use sd_etcd::EtcdConfig;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::interleave;
use crate::ours::{ADDRESS, Registering};
use crate::plot::{Chart, Group, PlotBar, Scale};
use crate::report::{Bar, Section, Table};
use crate::source::PAUSE;
use crate::stats::{Latency, Ratio, Spread, as_millis};
use crate::{Effort, Error, Result};

const LIMIT: f64 = 1.1;
const SERVICE: &str = "bench";
const TTL: i64 = 10;
/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    let address = address()?;
    let samples = effort.pick(1_000, 30);
    let runtime = Runtime::new()?;
    let mut contenders = runtime.block_on(async {
        let open = || sd_etcd::connect(EtcdConfig::new([&address]).with_prefix("/bench/ours"));
        let ours = Registering::begin([open()?, open()?], SERVICE, PATIENCE).await?;
        Ok::<_, Error>([
            Contender::Ours(Box::new(ours)),
            Contender::Raw(Box::new(Raw::connect(&address).await?)),
        ])
    })?;
    let server = runtime.block_on(version(&address))?;
    let figures = interleave(&mut contenders, samples, |contender| {
        runtime.block_on(async {
            sleep(PAUSE).await;
            let sample = async {
                match contender {
                    Contender::Ours(ours) => ours.sample().await,
                    Contender::Raw(raw) => raw.sample().await,
                }
            };
            timeout(PATIENCE, sample).await?
        })
    })?;
    let [ours, raw] = [&figures[0], &figures[1]];

    let mut table = Table::new(["contender", "p50", "quartiles", "p99", "longest"]);
    for (name, times) in [NAMES[0], NAMES[1]].into_iter().zip([ours, raw]) {
        let latency = Latency::of(times.iter().copied());
        let spread = Spread::of(times.iter().copied().map(as_millis));
        table.row([
            name.to_owned(),
            format!("{:.3} ms", latency.p50),
            format!("{:.3}–{:.3} ms", spread.quarter, spread.three_quarters),
            format!("{:.3} ms", latency.p99),
            format!("{:.3} ms", latency.longest),
        ]);
    }
    let ratio = Ratio::of(ours, raw, Duration::as_secs_f64);
    let medians = median(ours) / median(raw);
    let text = format!(
        "{METHOD}\n{samples} samples of each against etcd {server}, in milliseconds from the call to the moment at which the \
         reader has the instance:\n\n{table}\nRatio of the medians: {medians:.2}. Median of the paired ratios: {:.2} (quartiles \
         {:.2}–{:.2}), below 1 in {} of {}.\n",
        ratio.median(),
        ratio.spread.quarter,
        ratio.spread.three_quarters,
        ratio.less,
        ratio.rounds
    );
    let chart = Chart {
        name: "register",
        title: "Milliseconds from register to seen, median and quartiles".to_owned(),
        scale: Scale::Linear,
        groups: vec![Group {
            label: format!("etcd {server}"),
            bars: [(NAMES[0], true, ours), (NAMES[1], false, raw)]
                .map(|(name, ours, times)| PlotBar {
                    label: name.to_owned(),
                    ours,
                    spread: Spread::of(times.iter().copied().map(as_millis)),
                })
                .into(),
        }],
    };
    Ok(Section {
        title: "Register to seen",
        text,
        bars: vec![Bar::at_most(
            "register → seen by a watcher, beside raw etcd-client, ratio of medians",
            medians,
            LIMIT,
            |ratio| format!("{ratio:.2}×"),
        )],
        charts: vec![chart],
    })
}

const NAMES: [&str; 2] = ["sd-etcd", "raw etcd-client"];

fn median(times: &[Duration]) -> f64 {
    Spread::of(times.iter().map(Duration::as_secs_f64)).median
}

/// Where etcd is.
pub(crate) fn address() -> Result<String> {
    let named = std::env::var("SD_TEST_ETCD");
    let missing =
        "SD_TEST_ETCD must hold the URL of an etcd: `cargo xtask bench` starts one and sets it";
    Ok(named.map_err(|_| missing)?)
}

pub(crate) async fn version(address: &str) -> Result<String> {
    let mut client = Client::connect([address], None).await?;
    Ok(client.status().await?.version().to_owned())
}

enum Contender {
    Ours(Box<Registering>),
    Raw(Box<Raw>),
}

/// What a program does that has only the client crate: a lease, a guarded put, and a watch at another client.
struct Raw {
    writer: Client,
    reader: WatchStream,
}

impl Raw {
    const PREFIX: &str = "/bench/raw/";

    async fn connect(address: &str) -> Result<Self> {
        let writer = Client::connect([address], None).await?;
        let mut reader = Client::connect([address], None).await?;
        let prefix = WatchOptions::new().with_prefix();
        let reader = reader.watch(Self::PREFIX, Some(prefix)).await?;
        Ok(Self { writer, reader })
    }

    async fn sample(&mut self) -> Result<Duration> {
        let instance = Instance::new(SERVICE, ADDRESS)?;
        let key = format!("{}{}", Self::PREFIX, instance.id());
        let started = Instant::now();
        let register = async {
            let value = serde_json::to_vec(&instance)?;
            let lease = self.writer.lease_grant(TTL, None).await?.id();
            let put = PutOptions::new().with_lease(lease);
            let txn = Txn::new()
                .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, 0)])
                .and_then([TxnOp::put(key.as_str(), value, Some(put))]);
            let written = self.writer.txn(txn).await?.succeeded();
            if written {
                Ok::<_, Error>(lease)
            } else {
                Err("the key was taken".into())
            }
        };
        let seen = async {
            told(&mut self.reader, EventType::Put, &key).await?;
            Ok(started.elapsed())
        };
        let (lease, seen): (i64, Duration) = tokio::try_join!(register, seen)?;
        self.writer.lease_revoke(lease).await?;
        told(&mut self.reader, EventType::Delete, &key).await?;
        Ok(seen)
    }
}

/// Reads the feed until it tells this about `key`.
async fn told(feed: &mut WatchStream, what: EventType, key: &str) -> Result<()> {
    loop {
        let answer = feed.message().await?.ok_or("the server ended the watch")?;
        let concerned = answer.events().iter().any(|event| {
            event.event_type() == what
                && event
                    .kv()
                    .is_some_and(|entry| entry.key() == key.as_bytes())
        });
        if concerned {
            return Ok(());
        }
    }
}

const METHOD: &str = "\
Both send the same requests over two connections: grant a lease of 10 s, put the record in a transaction that requires the key to
be free, and notify another client through a watch on the prefix. Ours goes all the way: `Registry::register` with its task that
keeps the registration, and a `Subscription` that publishes a complete set. Between samples the record is removed and 15 ms
pass, so that each is a first change after quiet, which a subscription publishes at once.
";
