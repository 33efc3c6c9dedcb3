//! Elections over a real etcd: handing over, taking over from the dead, a thousand candidates, and what asking costs.

mod belief;
mod counters;
mod crowd;
mod failover;
mod handover;

use std::time::Duration;

use sd_core::Registry;
use sd_election::{Candidate, CandidateBuilder, CandidatePhase};
use sd_etcd::EtcdConfig;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

pub(crate) use self::failover::lead;

use crate::report::{Bar, Section};
use crate::{Effort, Result};

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One part of the section.
struct Part {
    text: String,
    bars: Vec<Bar>,
}

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    let address = crate::register::address()?;
    let runtime = Runtime::new()?;
    let version = runtime.block_on(crate::register::version(&address))?;
    let (handover, chart) = handover::measure(effort, &runtime, &address, &version)?;
    let failover = failover::measure(effort, &runtime, &address)?;
    let crowd = crowd::measure(effort, &runtime, &address)?;
    let belief = belief::measure(effort, &runtime)?;
    let parts = [handover, failover, crowd, belief];
    let text: Vec<&str> = parts.iter().map(|part| part.text.trim()).collect();
    Ok(Section {
        title: "Elections",
        text: format!(
            "Everything against etcd {version}.\n\n{}\n",
            text.join("\n\n")
        ),
        bars: parts.into_iter().flat_map(|part| part.bars).collect(),
        charts: vec![chart],
    })
}

/// A client of the etcd at `address`.
fn connect(address: &str) -> Result<Registry> {
    let config = EtcdConfig::new([address]).with_election_prefix("/bench/elections");
    Ok(sd_etcd::connect(config)?)
}

fn candidate(registry: &Registry, election: &str, ttl: Duration) -> CandidateBuilder {
    Candidate::builder(registry, election).ttl(ttl)
}

/// Returns when the server has told the candidate that others are before it.
pub(crate) async fn until_it_waits(candidate: &Candidate) -> Result<()> {
    let waits = async {
        while !matches!(candidate.state().phase, CandidatePhase::Waiting { .. }) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within("a candidate waits in the queue", waits).await
}

/// What comes of `what`, unless it takes far too long.
pub(crate) async fn within<T>(what: &str, comes: impl Future<Output = T>) -> Result<T> {
    let timed = timeout(PATIENCE, comes).await;
    timed.map_err(|_| format!("{what}: not within {PATIENCE:?}").into())
}
