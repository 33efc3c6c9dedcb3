//! A campaign without others, over a session that is there: how many requests and round trips it takes, and how long.

use std::time::Duration;

use sd_core::Registry;
use sd_election::Candidate;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};
use zookeeper_client as zk;

use super::distance::far_away;
use super::server::{Server, ephemeral, make};
use super::{SESSION, connect};
use crate::election::within;
use crate::harness::interleave;
use crate::part::{Part, spread, table_of};
use crate::report::Bar;
use crate::source::PAUSE;
use crate::stats::{Spread, as_millis};
use crate::{Effort, Error, Result};

/// How far away the server is where that shows how many round trips there are, each way.
const EACH_WAY: Duration = Duration::from_millis(25);
const ROUND_TRIPS: f64 = 3.0;
const NAMES: [&str; 3] = [
    "sd-election",
    "sd-election, 50 ms away",
    "raw zookeeper-client, one write",
];

pub(super) fn measure(effort: Effort, runtime: &Runtime, server: &Server) -> Result<Part> {
    let samples = effort.pick(100, 10);
    let mut contenders = runtime.block_on(async {
        let far = Server::at(far_away(server.address(), EACH_WAY).await?);
        let writer = server.client().await?;
        make(&writer, "/bench").await?;
        Ok::<_, Error>([
            Contender::Ours(Ours::connect(server, "near")?),
            Contender::Ours(Ours::connect(&far, "far")?),
            Contender::Write(writer),
        ])
    })?;
    // The first sample of each, which makes the session, is thrown away.
    let figures = interleave(&mut contenders, samples, |contender| {
        contender.sample(runtime, server)
    })?;
    let times: Vec<Vec<Duration>> = figures
        .iter()
        .map(|of| of.iter().map(|(time, _)| *time).collect())
        .collect();
    let rows = NAMES.into_iter().zip(times.iter().map(Vec::as_slice));
    let requests = Spread::of(figures[0].iter().map(|(_, requests)| *requests)).median;
    let trips = (spread(&times[1]).median / as_millis(2 * EACH_WAY)).floor();
    let text = format!(
        "{METHOD}\n{samples} samples of each:\n\n{}\nRequests of a campaign: {requests:.0} (median).\n",
        table_of(rows)
    );
    Ok(Part {
        text,
        bars: vec![Bar::at_most(
            "a campaign alone on a connected elector, round trips, median",
            trips,
            ROUND_TRIPS,
            |trips| format!("{trips:.0}"),
        )],
        groups: Vec::new(),
    })
}

enum Contender {
    Ours(Ours),
    Write(zk::Client),
}

struct Ours {
    _registry: Registry,
    candidate: Candidate,
}

impl Ours {
    fn connect(server: &Server, election: &str) -> Result<Self> {
        let registry = connect(server)?;
        let candidate = Candidate::builder(&registry, election).ttl(SESSION);
        Ok(Self {
            candidate: candidate.build()?,
            _registry: registry,
        })
    }
}

impl Contender {
    /// How long it took, and how many requests came meanwhile.
    fn sample(&mut self, runtime: &Runtime, server: &Server) -> Result<(Duration, f64)> {
        runtime.block_on(async { sleep(PAUSE).await });
        let before = server.requests(None)?;
        let began = Instant::now();
        match self {
            Self::Ours(ours) => {
                let campaign = within("it leads", ours.candidate.campaign());
                let leadership = runtime.block_on(campaign)??;
                let took = began.elapsed();
                let requests = requests_since(before, server)?;
                runtime.block_on(leadership.resign())?;
                Ok((took, requests))
            }
            Self::Write(client) => {
                const NODE: &str = "/bench/written";
                runtime.block_on(client.create(NODE, b"", &ephemeral()))?;
                let took = began.elapsed();
                let requests = requests_since(before, server)?;
                runtime.block_on(client.delete(NODE, None))?;
                Ok((took, requests))
            }
        }
    }
}

fn requests_since(before: u64, server: &Server) -> Result<f64> {
    let requests = server.requests(None)?.saturating_sub(before);
    Ok(f64::from(u32::try_from(requests)?))
}

const METHOD: &str = "\
**A campaign alone.** No other candidate takes part, and the elector has its session: from the call of `campaign` to its return. Requests
are those that the server counts meanwhile, among them now and then a sign of life of another session. Some of them are sent together: how
many round trips there are is seen with a server that is 50 ms away, there and back. One write alone stands beside it.
";
