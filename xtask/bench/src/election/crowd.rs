//! A thousand candidates for one name: who is woken by an exit, and what all of them cost while nothing happens.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sd_core::Registry;
use sd_election::Leadership;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::counters::Counters;
use super::{Part, candidate, connect, until_it_waits, within};
use crate::memory::resident;
use crate::report::{Bar, Table};
use crate::{Effort, Result};

/// For counting what exits cause: nothing is renewed meanwhile.
const LONG_TTL: Duration = Duration::from_mins(10);
/// For counting renewals.
const TTL: Duration = Duration::from_secs(10);
/// Transactions by which one leaves.
const LEAVING: f64 = 1.0;
/// For all that an exit causes to have happened.
const SETTLED: Duration = Duration::from_millis(200);

/// Requests by method, and messages to watches.
struct Counted {
    requests: BTreeMap<String, f64>,
    told: f64,
}

pub(super) fn measure(effort: Effort, runtime: &Runtime, address: &str) -> Result<Part> {
    let (size, exits, intervals) = effort.pick((1_000, 20, 6), (30, 2, 2));
    let before = resident("VmRSS")?;
    let mut crowd = runtime.block_on(Crowd::gather(address, "exits", size, LONG_TTL))?;
    let kib = (resident("VmRSS")? - before) / 1024.0;
    let leaders = runtime.block_on(crowd.leaders_resign(address, exits))?;
    let waiting = runtime.block_on(crowd.waiting_ones_leave(address, exits))?;
    runtime.block_on(crowd.registry.close())?;

    let crowd = runtime.block_on(Crowd::gather(address, "rest", size, TTL))?;
    let rest = runtime.block_on(crowd.rest(address, intervals))?;
    runtime.block_on(crowd.registry.close())?;

    let each = f64::from(exits);
    let at_rest = f64::from(size) * f64::from(intervals);
    let mut table = Table::new(["what happens", "requests", "messages to watches"]);
    table.row([
        "the leader resigns".to_owned(),
        leaders.show(each),
        format!("{:.2}", leaders.told / each),
    ]);
    table.row([
        "a candidate in the middle of the queue leaves".to_owned(),
        waiting.show(each),
        format!("{:.2}", waiting.told / each),
    ]);
    table.row([
        "nothing, for each candidate and third of its time-to-live".to_owned(),
        rest.show(at_rest),
        format!("{:.2}", rest.told / at_rest),
    ]);
    let text = format!(
        "{METHOD}\n{size} candidates in one process, each with a connection of its own, take {:.0} KiB of its memory each:\n\n{table}",
        kib / f64::from(size)
    );
    let bars = vec![
        Bar::at_most(
            format!("{size} candidates, the leader resigns: requests of all others together"),
            (leaders.of("Txn") + leaders.of("Watch")) / each - LEAVING,
            3.0,
            |count| format!("{count:.2}"),
        ),
        Bar::at_most(
            format!("{size} candidates at rest: requests for each renewal, keep-alive included"),
            // One half of a renewal may lie outside of the time in which they were counted.
            (rest.total() / rest.of("LeaseKeepAlive") * 100.0).round() / 100.0,
            2.0,
            |count| format!("{count:.2}"),
        ),
    ];
    Ok(Part { text, bars })
}

impl Counted {
    async fn during(address: &str, what: impl Future<Output = Result<()>>) -> Result<Self> {
        let before = Counters::read(address).await?;
        what.await?;
        let after = Counters::read(address).await?;
        Ok(Self {
            requests: after.requests_since(&before),
            told: after.told_since(&before),
        })
    }

    fn of(&self, method: &str) -> f64 {
        self.requests.get(method).copied().unwrap_or(0.0)
    }

    fn total(&self) -> f64 {
        self.requests.values().sum()
    }

    /// The requests for each of so many.
    fn show(&self, each: f64) -> String {
        let requests = self.requests.iter();
        let shown: Vec<String> = requests
            .map(|(method, count)| format!("{:.2} {method}", count / each))
            .collect();
        shown.join(", ")
    }
}

type Campaign = JoinHandle<sd_core::Result<Leadership>>;

/// A leader, and those who wait in the order in which they have joined.
struct Crowd {
    registry: Registry,
    leader: Option<Leadership>,
    waiting: VecDeque<Campaign>,
}

impl Crowd {
    async fn gather(address: &str, election: &str, size: u32, ttl: Duration) -> Result<Self> {
        let registry = connect(address)?;
        let build = || candidate(&registry, election, ttl).build();
        let leader = within("the first one leads", build()?.campaign()).await??;
        let mut waiting = VecDeque::new();
        for _ in 1..size {
            let candidate = Arc::new(build()?);
            let campaigning = Arc::clone(&candidate);
            waiting.push_back(tokio::spawn(async move { campaigning.campaign().await }));
            until_it_waits(&candidate).await?;
        }
        sleep(SETTLED).await;
        Ok(Self {
            leader: Some(leader),
            waiting,
            registry,
        })
    }

    async fn leaders_resign(&mut self, address: &str, exits: u32) -> Result<Counted> {
        Counted::during(address, async {
            for _ in 0..exits {
                self.leader.take().ok_or(NO_CANDIDATE)?.resign().await?;
                let next = self.waiting.pop_front().ok_or(NO_CANDIDATE)?;
                self.leader = Some(within("the next one leads", next).await???);
                sleep(SETTLED).await;
            }
            Ok(())
        })
        .await
    }

    async fn waiting_ones_leave(&mut self, address: &str, exits: u32) -> Result<Counted> {
        Counted::during(address, async {
            for _ in 0..exits {
                let middle = self.waiting.len() / 2;
                // It leaves in the background when its campaign is dropped.
                self.waiting.remove(middle).ok_or(NO_CANDIDATE)?.abort();
                sleep(SETTLED).await;
            }
            Ok(())
        })
        .await
    }

    async fn rest(&self, address: &str, intervals: u32) -> Result<Counted> {
        Counted::during(address, async {
            sleep(TTL / 3 * intervals).await;
            Ok(())
        })
        .await
    }
}

const NO_CANDIDATE: &str = "no candidate is left";

const METHOD: &str = "\
**A crowd.** Many candidates of one name, on the one thread that elections have by default. Requests and messages are those that
the server counts; each exit is given 200 ms for all its consequences. A candidate leaves with one `Txn` and a `LeaseRevoke`. When
the leader resigns, the next one leads on the event and asks nothing. The one behind that asks where it stands, opens a `Watch` of
all entries, so that it can do the same, and asks once more what it missed before. When a candidate in the queue leaves, the two
behind it ask in the same way. The one that is next hears of every exit on its `Watch`. A renewal is one
`LeaseKeepAlive` and one `Txn`; three of them come within a time-to-live of 10 s, each a little early, so that not all come at once.
";
