//! ZooKeeper: registering, handing over, a campaign alone, and one change among many, over a real server.

mod campaign;
mod curator;
mod distance;
mod handover;
mod large;
mod register;
mod server;

use std::time::Duration;

use sd_core::Registry;
use sd_zk::ZkConfig;
use tokio::runtime::Runtime;

use self::server::Server;
use crate::part::section;
use crate::report::Section;
use crate::{Effort, Result};

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of all sessions: so long that signs of life are rare.
const SESSION: Duration = Duration::from_secs(30);

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    let server = Server::from_env()?;
    let runtime = Runtime::new()?;
    let version = server.version()?;
    let parts = [
        register::measure(effort, &runtime, &server)?,
        handover::measure(effort, &runtime, &server)?,
        campaign::measure(effort, &runtime, &server)?,
        large::measure(effort, &runtime, &server)?,
    ];
    let introduction = format!("Everything against one ZooKeeper {version}.");
    let chart = format!("Milliseconds with ZooKeeper {version}, median and quartiles");
    Ok(section("ZooKeeper", &introduction, ("zk", chart), parts))
}

/// A registry with a session of its own.
fn connect(server: &Server) -> Result<Registry> {
    let config = ZkConfig::new([server.address().to_string()])
        .with_prefix("/bench/services")
        .with_election_prefix("/bench/elections")
        .with_session_timeout(SESSION);
    Ok(sd_zk::connect(config)?)
}
