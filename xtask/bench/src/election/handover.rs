//! From resigning to the next leader, beside the Go client, and beside the two requests that it takes at least.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use super::{Part, connect};
use crate::go::{ETCD_ELECTION, GoElection};
use crate::harness::interleave;
use crate::ours::HandingOver;
use crate::plot::{Chart, Group, PlotBar, Scale};
use crate::report::{Bar, Table};
use crate::stats::{Latency, Ratio, Spread, as_millis};
use crate::{Effort, Error, Result};

const TTL: Duration = Duration::from_secs(10);
/// Long after the server has caught up with the watches of the one that waits, which it does every 100 ms.
const SETTLED: Duration = Duration::from_millis(300);
/// Before that.
const JUST_JOINED: Duration = Duration::from_millis(30);
/// What the two requests may be exceeded by, for waking up threads and tasks.
const SLACK_MS: f64 = 0.5;

pub(super) fn measure(
    effort: Effort,
    runtime: &Runtime,
    address: &str,
    version: &str,
) -> Result<(Part, Chart)> {
    let samples = effort.pick(200, 5);
    let mut contenders = runtime.block_on(async {
        let registries = [connect(address)?, connect(address)?];
        Ok::<_, Error>([
            Contender::Ours(Box::new(HandingOver::begin(registries, TTL).await?)),
            Contender::Go(ETCD_ELECTION.start(address, "/bench/go-elections")?),
            Contender::Write(Client::connect([address], None).await?),
            Contender::Read(Client::connect([address], None).await?),
        ])
    })?;
    let mut run = |waits: Duration, samples: usize| {
        interleave(&mut contenders, samples, |contender| {
            contender.sample(runtime, waits)
        })
    };
    let just_joined = run(JUST_JOINED, samples / 5)?;
    let figures = run(SETTLED, samples)?;
    let [ours, theirs] = [&figures[0], &figures[1]];

    let mut table = Table::new(["what", "p50", "quartiles", "p99", "longest"]);
    let names = names();
    let early = [
        (
            format!("{}, the next one has just joined", names[0]),
            &just_joined[0],
        ),
        (
            format!("{}, the next one has just joined", names[1]),
            &just_joined[1],
        ),
    ];
    for (name, times) in names.iter().cloned().zip(&figures).chain(early) {
        let latency = Latency::of(times.iter().copied());
        let spread = spread(times);
        table.row([
            name,
            format!("{:.3} ms", latency.p50),
            format!("{:.3}–{:.3} ms", spread.quarter, spread.three_quarters),
            format!("{:.3} ms", latency.p99),
            format!("{:.3} ms", latency.longest),
        ]);
    }
    let ratio = Ratio::of(ours, theirs, Duration::as_secs_f64);
    let (median, requests) = (
        spread(ours).median,
        spread(&figures[2]).median + spread(&figures[3]).median,
    );
    let text = format!(
        "{METHOD}\n{samples} samples of each, and {} of each that has just joined:\n\n{table}\nsd-election ÷ Go, paired: {:.2} \
         (quartiles {:.2}–{:.2}), below 1 in {} of {}. The two requests take {requests:.3} ms together (medians).\n",
        samples / 5,
        ratio.median(),
        ratio.spread.quarter,
        ratio.spread.three_quarters,
        ratio.less,
        ratio.rounds,
    );
    let bars = vec![
        Bar::at_most(
            "resign → the next one leads, sd-election ÷ the Go client's election, median of paired ratios",
            ratio.median(),
            1.0,
            |ratio| format!("{ratio:.2}×"),
        ),
        Bar::at_most(
            "resign → the next one leads, median; two round trips, one of them a write, and 0.5 ms",
            median,
            requests + SLACK_MS,
            |millis| format!("{millis:.3} ms"),
        ),
    ];
    let chart = Chart {
        name: "election",
        title: "Milliseconds from resign to the next leader, median and quartiles".to_owned(),
        scale: Scale::Linear,
        groups: vec![Group {
            label: format!("etcd {version}"),
            bars: names
                .into_iter()
                .zip(&figures)
                .enumerate()
                .map(|(nth, (label, times))| PlotBar {
                    label,
                    ours: nth == 0,
                    spread: spread(times),
                })
                .collect(),
        }],
    };
    Ok((Part { text, bars }, chart))
}

fn names() -> [String; 4] {
    [
        "sd-election".to_owned(),
        format!("Go client {}", ETCD_ELECTION.client_version()),
        "one write: a key is deleted".to_owned(),
        "one linearizable read".to_owned(),
    ]
}

fn spread(times: &[Duration]) -> Spread {
    Spread::of(times.iter().copied().map(as_millis))
}

enum Contender {
    Ours(Box<HandingOver>),
    Go(GoElection),
    Write(Client),
    Read(Client),
}

impl Contender {
    fn sample(&mut self, runtime: &Runtime, waits: Duration) -> Result<Duration> {
        match self {
            Self::Go(election) => election.hand_over(waits),
            Self::Ours(ours) => runtime.block_on(ours.hand_over(waits)),
            Self::Write(client) => runtime.block_on(write(client, waits)),
            Self::Read(client) => runtime.block_on(read(client, waits)),
        }
    }
}

/// What a hand-over writes.
async fn write(client: &mut Client, waits: Duration) -> Result<Duration> {
    const KEY: &str = "/bench/written";
    let lease = client.lease_grant(10, None).await?.id();
    let attached = PutOptions::new().with_lease(lease);
    client.put(KEY, "a", Some(attached)).await?;
    sleep(waits).await;
    let delete = Txn::new()
        .when([Compare::lease(KEY, CompareOp::Equal, lease)])
        .and_then([TxnOp::delete(KEY, None)]);
    let began = Instant::now();
    client.txn(delete).await?;
    let took = began.elapsed();
    client.lease_revoke(lease).await?;
    Ok(took)
}

/// What the next one must do, to know that it leads.
async fn read(client: &mut Client, waits: Duration) -> Result<Duration> {
    sleep(waits).await;
    let began = Instant::now();
    client.get("/bench/written", None).await?;
    Ok(began.elapsed())
}

const METHOD: &str = "\
**Resign to the next leader.** Two candidates with connections of their own take turns: one leads, the other one joins and
waits 300 ms; then the clock runs from the call of resign to the moment at which the other one's campaign returns. The Go
client's `concurrency.Election` does the same in a process of its own, on its own clock, and takes turns with ours. Both need
a write that deletes the leader's key. The Go client's next candidate then makes sure by a linearizable read; ours leads on the
event of its watch. Both requests are also timed alone, through etcd-client. What the leaver does afterwards, ending its lease, is not
waited for. A server serves watches that begin in its past only every 100 ms: a candidate with such a watch learns late of a
leader that resigns right after the candidate has joined. The last two rows show that, with a wait of 30 ms.
";
