//! From a leader's sudden death to the next one.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use super::{Part, candidate, connect, until_it_waits, within};
use crate::report::{Bar, Table};
use crate::stats::{Spread, as_millis};
use crate::{Effort, Error, Result};

const ELECTION: &str = "failover";
const TTL: Duration = Duration::from_secs(2);
/// How often etcd looks for leases that have ended.
const SWEEP: Duration = Duration::from_millis(500);
/// For the rest of a hand-over, on a busy machine.
const SLACK: Duration = Duration::from_millis(100);

pub(super) fn measure(effort: Effort, runtime: &Runtime, address: &str) -> Result<Part> {
    let samples = effort.pick(20, 2);
    let mut times = Vec::new();
    for _ in 0..samples {
        times.push(runtime.block_on(sample(address))?);
    }
    let spread = Spread::of(times.iter().copied().map(as_millis));
    let mut table = Table::new(["time-to-live", "shortest", "p50", "longest"]);
    table.row([
        format!("{} ms", TTL.as_millis()),
        format!("{:.0} ms", spread.lowest),
        format!("{:.0} ms", spread.median),
        format!("{:.0} ms", spread.highest),
    ]);
    let bar = Bar::at_most(
        "kill -9 → the next one leads, longest; the time-to-live of 2 s, the server's sweep of 0.5 s, and 0.1 s",
        spread.highest,
        as_millis(TTL + SWEEP + SLACK),
        |millis| format!("{millis:.0} ms"),
    );
    Ok(Part {
        text: format!("{METHOD}\n{samples} leaders:\n\n{table}"),
        bars: vec![bar],
    })
}

async fn sample(address: &str) -> Result<Duration> {
    let mut leader = Leader::start(address)?;
    let registry = connect(address)?;
    let next = candidate(&registry, ELECTION, TTL).build()?;
    let elected = async {
        let leadership = next.campaign().await?;
        Ok::<_, Error>((Instant::now(), leadership))
    };
    let killed = async {
        until_it_waits(&next).await?;
        // At any point of its renewals.
        sleep(TTL.mul_f64(0.5 + fastrand::f64())).await;
        let at = Instant::now();
        leader.child.kill()?;
        Ok::<_, Error>(at)
    };
    let both = async { tokio::try_join!(elected, killed) };
    let ((elected, leadership), killed) = within("the next one leads", both).await??;
    leadership.resign().await?;
    registry.close().await?;
    Ok(elected - killed)
}

/// A process that leads.
struct Leader {
    child: Child,
}

impl Leader {
    /// Starts this program again, and waits until it leads.
    fn start(address: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(format!("--lead={address}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take();
        let leader = Self { child };
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.is_empty() {
            return Err("the leader's process exited before it led".into());
        }
        Ok(leader)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What that process does: leads until it is killed, or its input ends.
pub(crate) fn lead(address: &str) -> Result<()> {
    let runtime = Runtime::new()?;
    let registry = runtime.block_on(async { connect(address) })?;
    let candidate = candidate(&registry, ELECTION, TTL).build()?;
    let leadership = runtime.block_on(candidate.campaign())?;
    writeln!(io::stdout(), "{}", leadership.token())?;
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(leadership);
    Ok(())
}

const METHOD: &str = "\
**Killed to the next leader.** A leader in a process of its own is killed (SIGKILL) at any point between two renewals, while a
candidate waits. The leader's lease expires a time-to-live after the last renewal; etcd looks for expired leases every 500 ms.
";
