//! From resigning to the next leader, beside the one request and the one message that it takes by hand.

use std::time::Duration;

use redis::Script;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};

use super::server::{Messages, Server};
use super::{PATIENCE, connect};
use crate::harness::interleave;
use crate::ours::HandingOver;
use crate::part::{Part, group_of, spread, table_of};
use crate::report::Bar;
use crate::{Effort, Error, Result};

const TTL: Duration = Duration::from_secs(10);
/// Long after the one that waits has joined.
const SETTLED: Duration = Duration::from_millis(300);
const NAMES: [&str; 2] = ["sd-election", "raw redis"];
const LIMIT: f64 = 1.1;

pub(super) fn measure(effort: Effort, runtime: &Runtime, server: &Server) -> Result<Part> {
    let samples = effort.pick(200, 10);
    let mut contenders = runtime.block_on(async {
        let registries = [connect(server)?, connect(server)?];
        Ok::<_, Error>([
            Contender::Ours(Box::new(HandingOver::begin(registries, TTL).await?)),
            Contender::Raw(Box::new(Raw::connect(server).await?)),
        ])
    })?;
    let figures = interleave(&mut contenders, samples, |contender| {
        runtime.block_on(contender.hand_over())
    })?;
    let rows = || NAMES.into_iter().zip(figures.iter().map(Vec::as_slice));
    let medians = spread(&figures[0]).median / spread(&figures[1]).median;
    let text = format!(
        "{METHOD}\n{samples} samples of each:\n\n{}\nRatio of the medians: {medians:.2}.\n",
        table_of(rows()),
    );
    Ok(Part {
        text,
        bars: vec![Bar::at_most(
            "resign → the next one leads, beside the raw request and message, ratio of medians",
            medians,
            LIMIT,
            |ratio| format!("{ratio:.2}×"),
        )],
        groups: vec![group_of("resign → the next leader", rows())],
    })
}

enum Contender {
    Ours(Box<HandingOver>),
    Raw(Box<Raw>),
}

impl Contender {
    async fn hand_over(&mut self) -> Result<Duration> {
        match self {
            Self::Ours(ours) => ours.hand_over(SETTLED).await,
            Self::Raw(raw) => timeout(PATIENCE, raw.hand_over(SETTLED)).await?,
        }
    }
}

/// Two clients that take turns in being the first of a sorted set.
struct Raw {
    leader: Side,
    next: Side,
    join: Script,
    leave: Script,
}

/// One of them.
struct Side {
    connection: MultiplexedConnection,
    messages: Messages,
    name: &'static str,
}

impl Raw {
    const KEY: &str = "bench-raw:queue";
    const CHANNEL: &str = "bench-raw:leaders";

    async fn connect(server: &Server) -> Result<Self> {
        let side = async |name| {
            Ok::<_, Error>(Side {
                connection: server.connection().await?,
                messages: server.messages(Self::CHANNEL).await?,
                name,
            })
        };
        let mut raw = Self {
            leader: side("a").await?,
            next: side("b").await?,
            join: Script::new(
                "local time = redis.call('TIME')
                 return redis.call('ZADD', KEYS[1], time[1] * 1000000 + time[2], ARGV[1])",
            ),
            leave: Script::new(
                "redis.call('ZREM', KEYS[1], ARGV[1])
                 local first = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
                 return redis.call('PUBLISH', ARGV[2], first)",
            ),
        };
        redis::cmd("DEL")
            .arg(Self::KEY)
            .exec_async(&mut raw.leader.connection)
            .await?;
        let leader = &mut raw.leader;
        let mut join = raw.join.key(Self::KEY);
        join.arg(leader.name);
        join.invoke_async::<u64>(&mut leader.connection).await?;
        Ok(raw)
    }

    async fn hand_over(&mut self, waits: Duration) -> Result<Duration> {
        let Self {
            leader,
            next,
            join,
            leave,
        } = self;
        let mut join = join.key(Self::KEY);
        join.arg(next.name);
        join.invoke_async::<u64>(&mut next.connection).await?;
        let elected = async {
            next.messages.next(next.name).await?;
            Ok::<_, Error>(Instant::now())
        };
        let resigned = async {
            sleep(waits).await;
            let mut leave = leave.key(Self::KEY);
            leave.arg(leader.name).arg(Self::CHANNEL);
            let began = Instant::now();
            leave.invoke_async::<u64>(&mut leader.connection).await?;
            Ok(began)
        };
        let (at, began) = tokio::try_join!(elected, resigned)?;
        std::mem::swap(&mut self.leader, &mut self.next);
        Ok(at - began)
    }
}

const METHOD: &str = "\
**Resign to the next leader.** Two candidates with connections of their own take turns: one leads, the other one joins and waits 300 ms;
then the clock runs from the call of resign to the moment at which the other one's campaign returns. By hand, a script removes the
leader from a sorted set and publishes who is first now, and the other client is told. Ours ends with the same: the message that
a candidate is the first needs no further read.
";
