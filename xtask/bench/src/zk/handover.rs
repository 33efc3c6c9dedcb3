//! From resigning to the next leader, beside Curator's latch, and beside the requests that it takes by hand.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};
use zookeeper_client as zk;

use super::curator::{self, Curator};
use super::server::{Server, make};
use super::{PATIENCE, SESSION, connect};
use crate::harness::interleave;
use crate::ours::HandingOver;
use crate::part::{Part, group_of, spread, table_of};
use crate::report::Bar;
use crate::stats::Ratio;
use crate::{Effort, Error, Result};

/// Long after the watches of the one that waits are set.
const SETTLED: Duration = Duration::from_millis(300);
const JUST_JOINED: Duration = Duration::from_millis(30);

pub(super) fn measure(effort: Effort, runtime: &Runtime, server: &Server) -> Result<Part> {
    let samples = effort.pick(200, 10);
    let mut contenders = runtime.block_on(async {
        let registries = [connect(server)?, connect(server)?];
        Ok::<_, Error>([
            Contender::Ours(Box::new(HandingOver::begin(registries, SESSION).await?)),
            Contender::Curator(Box::new(Curator::start(server).await?)),
            Contender::Raw(Box::new(Raw::connect(server).await?)),
        ])
    })?;
    let mut run = |waits: Duration, samples: usize| {
        interleave(&mut contenders, samples, |contender| {
            runtime.block_on(contender.hand_over(waits))
        })
    };
    // Java is slow until it has compiled what runs often. These figures are thrown away.
    run(JUST_JOINED, samples)?;
    let just_joined = run(JUST_JOINED, samples / 5)?;
    let settled = run(SETTLED, samples)?;

    let latch = format!("Curator {}, LeaderLatch", curator::version());
    let names = ["sd-election", &latch, "raw zookeeper-client"];
    let early = names.map(|name| format!("{name}, the next one has just joined"));
    let rows = || names.into_iter().zip(settled.iter().map(Vec::as_slice));
    let early_rows = early.iter().map(String::as_str);
    let early_rows = early_rows.zip(just_joined.iter().map(Vec::as_slice));
    let ratio_of = |figures: &[Vec<Duration>], other: usize| {
        Ratio::of(&figures[0], &figures[other], Duration::as_secs_f64)
    };
    let (ratio, early_ratio) = (ratio_of(&settled, 1), ratio_of(&just_joined, 1));
    let text = format!(
        "{METHOD}\n{samples} samples of each, and {} of each that has just joined:\n\n{}\nsd-election ÷ Curator, paired: {:.2} \
         (quartiles {:.2}–{:.2}), below 1 in {} of {}; of those that have just joined {:.2}. sd-election ÷ the raw client: {:.2} \
         (medians).\n",
        samples / 5,
        table_of(rows().chain(early_rows)),
        ratio.median(),
        ratio.spread.quarter,
        ratio.spread.three_quarters,
        ratio.less,
        ratio.rounds,
        early_ratio.median(),
        spread(&settled[0]).median / spread(&settled[2]).median,
    );
    let bar = |what: &str, ratio: &Ratio| {
        let what = format!("{what}, sd-election ÷ Curator's latch, median of paired ratios");
        Bar::at_most(what, ratio.median(), 1.0, |ratio| format!("{ratio:.2}×"))
    };
    Ok(Part {
        text,
        bars: vec![
            bar("resign → the next one leads", &ratio),
            bar(
                "resign → the next one leads, which has just joined",
                &early_ratio,
            ),
        ],
        groups: vec![group_of("resign → the next leader", rows())],
    })
}

enum Contender {
    Ours(Box<HandingOver>),
    Curator(Box<Curator>),
    Raw(Box<Raw>),
}

impl Contender {
    async fn hand_over(&mut self, waits: Duration) -> Result<Duration> {
        match self {
            Self::Ours(ours) => ours.hand_over(waits).await,
            Self::Curator(curator) => curator.hand_over(waits).await,
            Self::Raw(raw) => timeout(PATIENCE, raw.hand_over(waits)).await?,
        }
    }
}

/// Two clients that take turns in having the first node, by ZooKeeper's recipe.
struct Raw {
    leader: zk::Client,
    next: zk::Client,
    /// That of the leader.
    first: String,
}

impl Raw {
    const FOLDER: &str = "/bench/raw-latch";

    async fn connect(server: &Server) -> Result<Self> {
        let (leader, next) = (server.client().await?, server.client().await?);
        make(&leader, Self::FOLDER).await?;
        let first = Self::join(&leader).await?;
        Ok(Self {
            leader,
            next,
            first,
        })
    }

    /// Returns the path of the node.
    async fn join(client: &zk::Client) -> Result<String> {
        let in_order = zk::CreateMode::EphemeralSequential.with_acls(zk::Acls::anyone_all());
        let prefix = format!("{}/latch-", Self::FOLDER);
        let (_, number) = client.create(&prefix, b"", &in_order).await?;
        Ok(format!("{prefix}{number}"))
    }

    async fn hand_over(&mut self, waits: Duration) -> Result<Duration> {
        let own = Self::join(&self.next).await?;
        let (_, _, deleted) = self.next.get_and_watch_data(&self.first).await?;
        let elected = async {
            deleted.changed().await;
            let nodes = self.next.list_children(Self::FOLDER).await?;
            match nodes.iter().min() {
                Some(first) if own.ends_with(first) => Ok::<_, Error>(Instant::now()),
                first => Err(format!("{first:?} is first, and not {own}").into()),
            }
        };
        let resigned = async {
            sleep(waits).await;
            let began = Instant::now();
            self.leader.delete(&self.first, None).await?;
            Ok(began)
        };
        let (at, began) = tokio::try_join!(elected, resigned)?;
        self.first = own;
        std::mem::swap(&mut self.leader, &mut self.next);
        Ok(at - began)
    }
}

const METHOD: &str = "\
**Resign to the next leader.** Two candidates with sessions of their own take turns: one leads, the other one joins and waits 300 ms;
then the clock runs from the call of resign to the moment at which the other one's campaign returns. Two processes with a `LeaderLatch`
of Curator's do the same, from the call of `close` to that of `isLeader`, on their own clock, and take turns with ours. All wait for one
another by a watch on the node before theirs. Curator's latch, and the raw client by ZooKeeper's recipe, then read which node is first
now; ours knows that from the watch. The last rows show candidates that have waited for 30 ms.
";
