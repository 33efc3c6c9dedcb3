//! Redis: registering and handing over, over a real server.

mod handover;
mod register;
mod server;

use std::time::Duration;

use sd_core::Registry;
use sd_redis::RedisConfig;
use tokio::runtime::Runtime;

use self::server::Server;
use crate::part::section;
use crate::report::Section;
use crate::{Effort, Result};

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn measure(effort: Effort) -> Result<Section> {
    let server = Server::from_env()?;
    let runtime = Runtime::new()?;
    let version = server.version()?;
    let parts = [
        register::measure(effort, &runtime, &server)?,
        handover::measure(effort, &runtime, &server)?,
    ];
    let introduction = format!("Everything against one {version}.");
    let chart = format!("Milliseconds with {version}, median and quartiles");
    Ok(section("Redis", &introduction, ("redis", chart), parts))
}

/// A registry with connections of its own.
fn connect(server: &Server) -> Result<Registry> {
    let config = RedisConfig::from_url(server.url())?
        .with_prefix("bench-services")
        .with_election_prefix("bench-elections");
    Ok(sd_redis::connect(config)?)
}
