//! The local agent, as the program that its users run, over a real etcd: register to seen, one change for a thousand readers, an agent at
//! rest, and a flood of requests.

mod caller;
mod events;
mod fan_out;
mod flood;
mod hostile;
mod idle;
mod plain;
mod program;
mod register;

use std::time::Duration;

use tokio::runtime::Runtime;

pub(crate) use self::hostile::flood;
pub(crate) use self::plain::write_plainly;

use crate::part::section;
use crate::process::raise_open_files;
use crate::report::Section;
use crate::{Effort, Result};

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    raise_open_files()?;
    let etcd = crate::register::address()?;
    let runtime = Runtime::new()?;
    let version = runtime.block_on(crate::register::version(&etcd))?;
    let parts = [
        register::measure(effort, &runtime, &etcd)?,
        fan_out::measure(effort, &etcd)?,
        idle::measure(effort, &runtime, &etcd)?,
        flood::measure(effort, &runtime, &etcd)?,
    ];
    let introduction = format!("{INTRODUCTION}Here: etcd {version}.");
    let chart = "Milliseconds with the local agent, median and quartiles".to_owned();
    Ok(section(
        "The local agent",
        &introduction,
        ("agent", chart),
        parts,
    ))
}

/// Where in etcd no other agent has kept anything.
fn any_prefix() -> String {
    format!("/bench/agent-{:016x}", fastrand::u64(..))
}

const INTRODUCTION: &str = "\
Each agent is a process of `sd-agent` at etcd, with its default settings: it logs each request, here to a file, and keeps its state on
disk. The agents, etcd, the bench and its further processes share all cores of this machine. In the first two parts contenders take turns,
round by round. The others have no rounds: an agent at rest and one under a flood are measured alone, one after the other, because each
would take the time of the next.

";
