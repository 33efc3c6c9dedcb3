//! Consul: registering, handing over, a large service, and many services, over a real agent.

mod agent;
mod handover;
mod large;
mod many;
mod register;

use std::time::Duration;

use sd_consul::ConsulConfig;
use sd_core::Registry;
use tokio::runtime::Runtime;

use self::agent::Agent;
use crate::part::section;
use crate::report::Section;
use crate::{Effort, Result};

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    let address = address()?;
    let runtime = Runtime::new()?;
    let version = runtime.block_on(Agent::at(&address)?.version())?;
    let parts = [
        register::measure(effort, &runtime, &address)?,
        handover::measure(effort, &runtime, &address)?,
        large::measure(effort, &runtime, &address)?,
        many::measure(effort, &runtime, &address)?,
    ];
    let introduction =
        format!("Everything against one agent of Consul {version} that is its own server.");
    let chart = format!("Milliseconds with Consul {version}, median and quartiles");
    Ok(section("Consul", &introduction, ("consul", chart), parts))
}

/// Where the agent is.
fn address() -> Result<String> {
    let named = std::env::var("SD_TEST_CONSUL");
    let missing = "SD_TEST_CONSUL must hold the URL of a Consul agent: `cargo xtask bench` starts one and sets it";
    Ok(named.map_err(|_| missing)?)
}

fn config(address: &str) -> ConsulConfig {
    ConsulConfig::new([address]).with_election_prefix("bench/elections")
}

fn connect(address: &str) -> Result<Registry> {
    Ok(sd_consul::connect(config(address))?)
}
