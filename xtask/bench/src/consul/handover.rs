//! From resigning to the next leader, beside the lock of Consul's Go client, and beside the requests that it takes at least.

use std::time::Duration;

use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};

use super::agent::Agent;
use super::{PATIENCE, connect};
use crate::go::{CONSUL_LOCK, GoElection};
use crate::harness::interleave;
use crate::ours::HandingOver;
use crate::part::{Part, group_of, spread, table_of};
use crate::report::Bar;
use crate::stats::Ratio;
use crate::{Effort, Error, Result};

/// The shortest that Consul grants.
const TTL: Duration = Duration::from_secs(10);
/// Until the blocking query of the one that waits is under way.
const WAITS: Duration = Duration::from_millis(100);

pub(super) fn measure(effort: Effort, runtime: &Runtime, address: &str) -> Result<Part> {
    let samples = effort.pick(200, 10);
    // What an earlier run has left may be locked still.
    let run = fastrand::u64(..);
    let mut contenders = runtime.block_on(async {
        let registries = [connect(address)?, connect(address)?];
        Ok::<_, Error>([
            Contender::Ours(Box::new(HandingOver::begin(registries, TTL).await?)),
            Contender::Go(CONSUL_LOCK.start(address, &format!("bench/go-{run:x}"))?),
            Contender::Raw(Box::new(Raw::connect(address, run).await?)),
        ])
    })?;
    let figures = interleave(&mut contenders, samples, |contender| match contender {
        Contender::Ours(ours) => runtime.block_on(ours.hand_over(WAITS)),
        Contender::Go(election) => election.hand_over(WAITS),
        Contender::Raw(raw) => {
            runtime.block_on(async { timeout(PATIENCE, raw.hand_over()).await? })
        }
    })?;
    let go = format!("Go client {}", CONSUL_LOCK.client_version());
    let names = ["sd-election", &go, "raw reqwest"];
    let rows = || names.into_iter().zip(figures.iter().map(Vec::as_slice));
    let [ours, theirs, raw] = [&figures[0], &figures[1], &figures[2]];
    let ratio = Ratio::of(ours, theirs, Duration::as_secs_f64);
    let text = format!(
        "{METHOD}\n{samples} samples of each:\n\n{}\nsd-election ÷ Go: {:.2} (medians), {:.2} paired (quartiles {:.2}–{:.2}), below \
         1 in {} of {}. sd-election ÷ the raw client: {:.2} (medians).\n",
        table_of(rows()),
        spread(ours).median / spread(theirs).median,
        ratio.median(),
        ratio.spread.quarter,
        ratio.spread.three_quarters,
        ratio.less,
        ratio.rounds,
        spread(ours).median / spread(raw).median,
    );
    Ok(Part {
        text,
        bars: vec![Bar::at_most(
            "resign → the next one leads, sd-election ÷ the Go client's lock, median of paired ratios",
            ratio.median(),
            1.0,
            |ratio| format!("{ratio:.2}×"),
        )],
        groups: vec![group_of("resign → the next leader", rows())],
    })
}

enum Contender {
    Ours(Box<HandingOver>),
    Go(GoElection),
    Raw(Box<Raw>),
}

/// Two sessions that take turns in holding a key.
struct Raw {
    target: String,
    clients: [Agent; 2],
    sessions: [String; 2],
    /// Which of them holds it.
    holder: usize,
}

impl Raw {
    async fn connect(address: &str, run: u64) -> Result<Self> {
        let clients = [Agent::at(address)?, Agent::at(address)?];
        let mut sessions = [String::new(), String::new()];
        for (client, session) in clients.iter().zip(&mut sessions) {
            let wanted = json!({"TTL": "10m", "NodeChecks": [], "Checks": []});
            let made = client.put("/v1/session/create", wanted).await?;
            let made: serde_json::Value = serde_json::from_str(&made)?;
            *session = made["ID"].as_str().ok_or("a session without an id")?.into();
        }
        let raw = Self {
            target: format!("/v1/kv/bench/raw-{run:x}"),
            clients,
            sessions,
            holder: 0,
        };
        raw.acquire(0).await?;
        Ok(raw)
    }

    async fn acquire(&self, nth: usize) -> Result<()> {
        let target = format!("{}?acquire={}", self.target, self.sessions[nth]);
        match self.clients[nth].put(&target, "leader").await?.trim() {
            "true" => Ok(()),
            _ => Err("the key is locked".into()),
        }
    }

    async fn hand_over(&mut self) -> Result<Duration> {
        let (from, to) = (self.holder, 1 - self.holder);
        let (_, index) = self.clients[to]
            .get::<serde_json::Value>(&self.target)
            .await?;
        let elected = async {
            let target = format!("{}?index={index}&wait=30s", self.target);
            self.clients[to].get::<serde_json::Value>(&target).await?;
            self.acquire(to).await?;
            Ok::<_, Error>(Instant::now())
        };
        let resigned = async {
            sleep(WAITS).await;
            let began = Instant::now();
            let target = format!("{}?release={}", self.target, self.sessions[from]);
            self.clients[from].put(&target, "").await?;
            Ok(began)
        };
        let (at, began) = tokio::try_join!(elected, resigned)?;
        self.holder = to;
        Ok(at - began)
    }
}

const METHOD: &str = "\
**Resign to the next leader.** Two candidates with connections of their own take turns: one leads, the other one joins and
waits 100 ms; then the clock runs from the call of resign to the moment at which the other one's campaign returns. The Go
client's `api.Lock` does the same in a process of its own, on its own clock, and takes turns with ours. All need three requests
one after the other: the release, the blocking query that it ends, and the acquisition of the lock. The same three are also timed
alone, as a raw HTTP client sends them. Ending the session comes after that, and is not waited for.
";
